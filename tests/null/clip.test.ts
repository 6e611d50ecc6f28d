// Text towers of CLIP at every published size without weights: traced, differentiated, verified, compiled and planned,
// and nothing is executed.
import { describe, it } from "vitest";
import { clipTextConfigs, clipTextEncoder } from "../../lib/models/clip-text-encoder.js";
import type { ClipTextEncoderConfig } from "../../lib/models/clip-text-encoder.js";
import type { Trace } from "../../lib/trace/trace.js";
import { entriesOf, expectGoodPlan, forwardOnly, withGradients } from "./plans.js";

describe("CLIP text towers", () => {
  it.each(entriesOf<ClipTextEncoderConfig>(clipTextConfigs))("%s", async (_, config) => {
    const model = clipTextEncoder(config);
    const forward = (t: Trace) =>
      model.forward(t.input("ids", { shape: [2, config.length], dtype: "i32" })).embedding!;
    await expectGoodPlan(forwardOnly(forward));
    await expectGoodPlan(withGradients(model.parameters, forward));
  }, 60_000);
}); // prettier-ignore
