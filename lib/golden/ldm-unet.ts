// Golden kind ldm_unet_crossattn: forward, taps and gradients of latent diffusion's U-Net.
import { DiffusionError } from "../errors.js";
import { checkFields, flag, limits, text, whole } from "../models/check-config.js";
import type { Rules } from "../models/check-config.js";
import {
  latentDiffusionCodeUnetKeys,
  latentDiffusionUnetKeys,
} from "../models/latent-diffusion-unet.keys.js";
import { latentDiffusionUnet } from "../models/latent-diffusion-unet.js";
import type { LatentDiffusionUnet, LatentDiffusionUnetConfig } from "../models/latent-diffusion-unet.js"; // prettier-ignore
import { countOrNone, given, maybe, trunkConfig, unetRules } from "./adm-models.js";
import type { Config, GoldenCase, Values } from "./case.js";
import type { Evaluate, GoldenRunner } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { givenValues, runModel, tapResults } from "./model-run.js";

const rules: Rules = {
  ...unetRules,
  image_size: whole(1, limits.side),
  num_heads: maybe(countOrNone),
  num_head_channels: maybe(countOrNone),
  num_classes: maybe(whole(1, limits.width)),
  resblock_updown: maybe(flag),
  use_new_attention_order: maybe(flag),
  use_fp16: maybe(flag),
  use_spatial_transformer: maybe(flag),
  transformer_depth: maybe(whole(1, limits.layers)),
  context_dim: maybe(whole(1, limits.width)),
  n_embed: maybe(whole(1, limits.codes)),
  legacy: maybe(flag),
  /** Where the case looked for its taps. */
  first_spatial_transformer: maybe(text(200)),
};

/** Our configuration of the U-Net. Throws "option" for an option it does not have. */
export function latentUnetConfig(kind: string, c: Config): LatentDiffusionUnetConfig {
  checkFields(kind, c, rules);
  const usesTransformer = c["use_spatial_transformer"] === true;
  if (usesTransformer !== given(c["context_dim"])) {
    throw new DiffusionError(
      "option",
      `${kind}: expected context_dim exactly with use_spatial_transformer, got ${JSON.stringify(c["context_dim"] ?? null)}`,
    );
  }
  if (!given(c["num_heads"]) && !given(c["num_head_channels"])) {
    throw new DiffusionError(
      "option",
      `${kind}: expected num_heads or num_head_channels, got neither`,
    );
  }
  const { heads, ...trunk } = trunkConfig(c);
  return {
    ...trunk,
    ...(given(heads) && { heads }),
    resolution: c["image_size"] as number,
    inChannels: c["in_channels"] as number,
    outChannels: c["out_channels"] as number,
    legacyHeads: (c["legacy"] as boolean | undefined) ?? true,
    ...(given(c["num_classes"]) && { classes: c["num_classes"] }),
    ...(given(c["n_embed"]) && { codes: c["n_embed"] }),
    ...(usesTransformer && {
      transformer: {
        contextWidth: c["context_dim"] as number,
        depth: (c["transformer_depth"] as number | undefined) ?? 1,
      },
    }),
  };
}

function unet(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  const config = latentUnetConfig(golden.kind, golden.config);
  const model: LatentDiffusionUnet = latentDiffusionUnet(config);
  const keys = config.codes === undefined ? latentDiffusionUnetKeys : latentDiffusionCodeUnetKeys;
  const options = { parameters: model.parameters, keys, inputs: givenValues(golden) };
  return runModel(golden, evaluate, options, ({ t, x, gradientsOf }) => {
    const output = channelsFirst(
      model.forward({
        x: channelsLast(x["x"]!),
        times: x["t"]!,
        ...(x["y"] && { labels: x["y"] }),
        ...(x["context"] && { context: x["context"] }),
      }),
    );
    const loss = output.mul(x["upstream"]!).mean();
    return { ...tapResults(golden, t), output, loss, ...gradientsOf(loss) };
  });
}

export const ldmUnetRunners: Readonly<Record<string, GoldenRunner>> = {
  ldm_unet_crossattn: unet,
};
