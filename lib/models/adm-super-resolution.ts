// ADM upsampler: the ADM U-Net on a noisy image joined with a low-resolution one (SuperResModel of
// openai/guided-diffusion). Source: Nichol and Dhariwal 2021, arXiv:2102.09672, section 5.
import { ParamScope } from "../nn/module.js";
import { concat, resize } from "../trace/functions.js";
import { admStride, checkAdmTrunk } from "./adm-trunk.js";
import { admNetwork, admUnetRules } from "./adm-unet.js";
import type { AdmUnet, AdmUnetConfig } from "./adm-unet.js";
import { checkFields } from "./check-config.js";
import { checkUnetInput } from "./unet-input.js";

/**
 * `imageChannels` are those of one image; the first convolution sees twice as many. `lowRes` of the
 * input is resized to x bilinearly, half-pixel centres, without antialiasing.
 */
export function admSuperResolution(
  config: AdmUnetConfig,
  scope: ParamScope = new ParamScope(),
): AdmUnet {
  const where = "admSuperResolution";
  checkFields(where, config, admUnetRules);
  checkAdmTrunk(where, config);
  const { imageChannels: channels = 3, classes } = config;
  const stride = admStride(config);
  const network = admNetwork(scope, config, 2 * channels);
  return {
    config,
    stride,
    parameters: scope.specs(),
    forward(input) {
      checkUnetInput({ where, channels, stride, classes, conditional: true }, input);
      const { x, lowRes } = input;
      const size = x.shape.slice(1, 3) as [number, number];
      return network(concat([x, resize(lowRes!, { size })], 3), input);
    },
  };
}
