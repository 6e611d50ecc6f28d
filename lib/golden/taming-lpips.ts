// Golden kind taming_lpips_narrow: LPIPS on a VGG16 of given widths.
import { gradients } from "../autodiff/differentiate.js";
import { checkFields, limits, listOf, whole } from "../models/check-config.js";
import { tamingLpipsKeys } from "../models/lpips.keys.js";
import { lpips, lpipsTaps } from "../models/lpips.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues } from "./case.js";
import type { Evaluate, GoldenRunner } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { loadWeights } from "./weights.js";

async function lpipsNarrow(
  golden: GoldenCase,
  evaluate: Evaluate,
): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, { vgg_widths: listOf(whole(1, limits.width), 5, 5) });
  const model = lpips({ widths: golden.config["vgg_widths"] as number[] });
  const specs = [...model.parameters, ...model.states];
  const { parameters } = loadWeights(golden, specs, tamingLpipsKeys);
  const inputs = { input: ioValues(golden, "input"), target: ioValues(golden, "target") };
  return evaluate(
    (t, x) => {
      const distance = model.distance(channelsLast(x["input"]!), channelsLast(x["target"]!));
      const taps = lpipsTaps.map((name) => [`tap.${name}`, channelsFirst(t.recorded.get(name)!)]);
      return {
        ...Object.fromEntries(taps),
        perceptual_distance: distance.reshape([distance.size, 1, 1, 1]),
        "grad.input": gradients(distance.sum(), [x["input"]!])[0]!,
      };
    },
    { inputs, parameters },
  );
}

export const tamingLpipsRunners: Readonly<Record<string, GoldenRunner>> = {
  taming_lpips_narrow: lpipsNarrow,
};
