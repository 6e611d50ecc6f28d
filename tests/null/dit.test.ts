// DiT and SiT at every published size without weights: traced, differentiated, verified, compiled and planned, and
// nothing is executed. What the plan counts are the published multiply-adds and the pointwise work beside them.
import { describe, expect, it } from "vitest";
import { dit, ditConfigs, publishedDit } from "../../lib/models/dit.js";
import type { DitConfig } from "../../lib/models/dit.js";
import { sit, sitConfigs } from "../../lib/models/sit.js";
import type { SitConfig } from "../../lib/models/sit.js";
import { entriesOf, expectGoodPlan, forwardOnly, latentInput, withGradients } from "./plans.js";

const time = 60_000;

/** Billions of multiply-adds of a forward pass. */
const published: Readonly<Record<string, number>> = {
  "S/2": 6.056, "S/4": 1.413, "S/8": 0.358, "B/2": 23.005, "B/4": 5.565, "B/8": 1.418,
  "L/2": 80.698, "L/4": 19.696, "L/8": 5.011, "XL/2": 118.621, "XL/4": 29.044, "XL/8": 7.392,
  "XL/2 for 512 x 512 pixels": 524.5,
}; // prettier-ignore

describe("DiT", () => {
  const configs: [string, DitConfig][] = [
    ...entriesOf<DitConfig>(ditConfigs),
    ["XL/2 for 512 x 512 pixels", publishedDit("XL", 2, 64)],
  ];

  it.each(configs)("%s", async (name, config) => {
    const model = dit(config);
    const forward = latentInput(model, config.size[0]);
    const { multiplyAdds } = await expectGoodPlan(forwardOnly(forward));
    expect(multiplyAdds / 1e9).toBeGreaterThan(published[name]!);
    expect(multiplyAdds / 1e9).toBeLessThan(1.02 * published[name]!);
    await expectGoodPlan(withGradients(model.parameters, forward));
  }, time);
}); // prettier-ignore

describe("SiT", () => {
  it.each(entriesOf<SitConfig>(sitConfigs))("%s", async (_, config) => {
    await expectGoodPlan(forwardOnly(latentInput(sit(config), 32)));
  }, time);

  it("XL/2, differentiated", async () => {
    const model = sit(sitConfigs["XL/2"]);
    await expectGoodPlan(withGradients(model.parameters, latentInput(model, 32)));
  }, time);
}); // prettier-ignore
