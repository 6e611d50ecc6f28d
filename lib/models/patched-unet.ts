// The ADM U-Net on patches of pixels with a grid of latents joined to them: the first of the two decoders of 4M's
// tokenizers. Topology and parameter names of apple/ml-4m fourm/vq/models/unet/unet.py (PatchedUNetCondCat). Source:
// Mizrahi et al. 2023, arXiv:2312.06647, appendix; patches: Luhman and Luhman 2022, arXiv:2207.04316.
import { ParamScope } from "../nn/module.js";
import { concat, pixelShuffle, pixelUnshuffle, resize } from "../trace/functions.js";
import { admStride, admTrunk, admTrunkRules, checkAdmTrunk } from "./adm-trunk.js";
import type { AdmTrunkConfig } from "./adm-trunk.js";
import { admEmbedding, admHead } from "./adm-unet.js";
import { checkFields, limits, optional, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import { checkDecoderInput } from "./diffusion-decoder.js";
import type { DiffusionDecoder } from "./diffusion-decoder.js";

export interface PatchedUnetConfig extends AdmTrunkConfig {
  /** Channels of x; default 3. */
  imageChannels?: number;
  /** Channels of the prediction; default imageChannels. */
  outChannels?: number;
  /** Side of the patches whose pixels become channels. */
  patch: number;
  /** Channels of the condition. */
  conditionWidth: number;
}

export const patchedUnetRules: Readonly<Record<keyof PatchedUnetConfig, Rule>> = {
  ...admTrunkRules,
  imageChannels: optional(whole(1, 64)),
  outChannels: optional(whole(1, 64)),
  patch: whole(1, 64),
  conditionWidth: whole(1, limits.width),
};

/** A hidden place of the condition is zeros. */
export function patchedUnet(
  config: PatchedUnetConfig,
  scope: ParamScope = new ParamScope(),
): DiffusionDecoder {
  const where = "patchedUnet";
  checkFields(where, config, patchedUnetRules);
  checkAdmTrunk(where, config);
  const { imageChannels: channels = 3, outChannels = channels, groups = 32 } = config;
  const { patch, conditionWidth } = config;
  const stride = patch * admStride(config);
  const time = admEmbedding(scope, config);
  const trunk = admTrunk(scope, config, channels * patch ** 2 + conditionWidth);
  const head = admHead(scope.child("out"), groups, trunk.width, outChannels * patch ** 2);
  return {
    stride,
    parameters: scope.specs(),
    forward(input) {
      checkDecoderInput({ where, channels, stride, conditionWidth }, input);
      const { x, times, condition, hidden, dropoutKey } = input;
      const patches = pixelUnshuffle(x, patch);
      const size = patches.shape.slice(1, 3) as [number, number];
      const visible = hidden
        ? condition.mul(
            hidden
              .neg()
              .add(1)
              .reshape([...hidden.shape, 1]),
          )
        : condition;
      const joined = concat([patches, resize(visible, { size, method: "nearest" })], 3);
      const features = trunk.run(joined, { embedding: time(times), dropoutKey });
      const y = pixelShuffle(head(features), patch);
      x.trace.record(scope.path, y);
      return y;
    },
  };
}
