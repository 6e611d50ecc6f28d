// What the golden kinds of pixel U-Nets share: inputs by their foreign names, taps, the output, its
// linear loss and the gradients.
import type { ParamSpec } from "../ir/param.js";
import type { UnetInput } from "../models/unet-input.js";
import type { KeyMap } from "../nn/key-map.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import type { GoldenCase, Values } from "./case.js";
import type { Evaluate, Tensors } from "./evaluate.js";
import { gradientResults, gradientsInForeignLayout, namesAfter } from "./gradients.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { loadWeights } from "./weights.js";

export interface GoldenUnet {
  parameters: readonly ParamSpec[];
  forward(input: UnetInput): Tensor;
}

/** Inputs and constants of a case. */
export const givenValues = (golden: GoldenCase): Record<string, Values> =>
  Object.fromEntries([...golden.io].filter(([, { role }]) => role === "input" || role === "const"));

/** Our input from the foreign one: x, t, and y, low_res and z where the case has them. */
const unetInput = (x: Tensors): UnetInput => ({
  x: channelsLast(x["x"]!),
  times: x["t"]!,
  ...(x["y"] && { labels: x["y"] }),
  ...(x["low_res"] && { lowRes: channelsLast(x["low_res"]) }),
  ...(x["z"] && { latent: x["z"] }),
});

/** Taps that the case asks for and the trace has, channels first. */
export const tapResults = (golden: GoldenCase, t: Trace): Tensors =>
  Object.fromEntries(
    namesAfter(golden, "tap.")
      .filter((name) => t.recorded.has(name))
      .map((name) => [`tap.${name}`, channelsFirst(t.recorded.get(name)!)]),
  );

/** Runs a case whose prediction is named `output`: loss = mean(prediction * upstream). */
export async function unetResults(
  golden: GoldenCase,
  evaluate: Evaluate,
  { model, keys, output }: { model: GoldenUnet; keys: KeyMap; output: string },
): Promise<Record<string, Values>> {
  const weights = loadWeights(golden, model.parameters, keys);
  const inputs = givenValues(golden);
  const prefix = "grad.";
  const results = await evaluate(
    (t, x) => {
      const prediction = channelsFirst(model.forward(unetInput(x)));
      const loss = prediction.mul(x["upstream"]!).mean();
      const request = { golden, prefix, inputs: x, weights, specs: model.parameters };
      return {
        ...tapResults(golden, t),
        [output]: prediction,
        loss,
        ...gradientResults(loss, request),
      };
    },
    { inputs, parameters: weights.parameters },
  );
  gradientsInForeignLayout(results, { prefix, weights, inputs });
  return results;
}
