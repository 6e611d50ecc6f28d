// What the golden kinds of pixel U-Nets share: inputs by their foreign names, the output, and its linear
// loss.
import type { ParamSpec } from "../ir/param.js";
import type { UnetInput } from "../models/unet-input.js";
import type { KeyMap } from "../nn/key-map.js";
import type { Tensor } from "../trace/tensor.js";
import type { GoldenCase, Values } from "./case.js";
import type { Evaluate, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { givenValues, runModel, tapResults } from "./model-run.js";

export interface GoldenUnet {
  parameters: readonly ParamSpec[];
  forward(input: UnetInput): Tensor;
}

/** Our input from the foreign one: x, t, and y, low_res and z where the case has them. */
const unetInput = (x: Tensors): UnetInput => ({
  x: channelsLast(x["x"]!),
  times: x["t"]!,
  ...(x["y"] && { labels: x["y"] }),
  ...(x["low_res"] && { lowRes: channelsLast(x["low_res"]) }),
  ...(x["z"] && { latent: x["z"] }),
});

/** Runs a case whose prediction is named `output`: loss = mean(prediction * upstream). */
export function unetResults(
  golden: GoldenCase,
  evaluate: Evaluate,
  { model, keys, output }: { model: GoldenUnet; keys: KeyMap; output: string },
): Promise<Record<string, Values>> {
  const options = { parameters: model.parameters, keys, inputs: givenValues(golden) };
  return runModel(golden, evaluate, options, ({ t, x, gradientsOf }) => {
    const prediction = channelsFirst(model.forward(unetInput(x)));
    const loss = prediction.mul(x["upstream"]!).mean();
    return { ...tapResults(golden, t), [output]: prediction, loss, ...gradientsOf(loss) };
  });
}
