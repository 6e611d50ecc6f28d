// FiT and FiTv2 at every published size without weights: traced, differentiated, verified, compiled and planned, and
// nothing is executed. The published cost counts the matrices of the blocks, the plan everything.
import { describe, expect, it } from "vitest";
import { fit, fitConfigs } from "../../lib/models/fit.js";
import type { FitConfig } from "../../lib/models/fit.js";
import { entriesOf, expectGoodPlan, forwardOnly, latentInput, withGradients } from "./plans.js";

const time = 60_000;

/** Billions of multiply-adds of a forward pass. */
const published: Readonly<Record<keyof typeof fitConfigs, number>> = {
  "FiT-XL": 153,
  "FiTv2-B": 27.3,
  "FiTv2-XL": 147,
  "FiTv2-3B": 653,
};

describe("FiT", () => {
  it.each(entriesOf<FitConfig>(fitConfigs))("%s", async (name, config) => {
    const model = fit(config);
    const forward = latentInput(model, 32);
    const { multiplyAdds } = await expectGoodPlan(forwardOnly(forward));
    const expected = published[name as keyof typeof fitConfigs];
    expect(multiplyAdds / 1e9).toBeGreaterThan(expected);
    expect(multiplyAdds / 1e9).toBeLessThan(1.07 * expected);
    await expectGoodPlan(withGradients(model.parameters, forward));
  }, time);

  it("FiTv2-XL on a wide picture with stretched positions", async () => {
    const model = fit({ ...fitConfigs["FiTv2-XL"], layers: 2, rotary: { stretch: "yarn", trainedSide: 16 } });
    await expectGoodPlan(forwardOnly((t) =>
      model.forward({
        x: t.input("x", { shape: [1, 24, 64, 4] }),
        times: t.input("times", { shape: [1] }),
        labels: t.input("labels", { shape: [1], dtype: "i32" }),
      }),
    ));
  }, time);
}); // prettier-ignore
