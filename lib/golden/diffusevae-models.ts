// Golden kinds diffusevae_vae and diffusevae_unet: forward, taps, losses and gradients of DiffuseVAE's
// two networks.
import { admUnetKeys } from "../models/adm.keys.js";
import { checkFields, flag, limits, real, text, whole } from "../models/check-config.js";
import type { Rules } from "../models/check-config.js";
import { diffuseVaeUnet } from "../models/diffusevae-unet.js";
import type { DiffuseVaeMainUnetConfig } from "../models/diffusevae-unet.js";
import { diffuseVae, diffuseVaeLoss, drawLatent } from "../models/diffusevae-vae.js";
import type { DiffuseVae, DiffuseVaeConfig } from "../models/diffusevae-vae.js";
import { diffuseVaeKeys } from "../models/diffusevae.keys.js";
import type { Tensor } from "../trace/tensor.js";
import { maybe, trunkConfig, unetRules } from "./adm-models.js";
import type { Config, GoldenCase, Values } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { givenValues, runModel, tapResults } from "./model-run.js";
import type { ModelRun } from "./model-run.js";
import { unetResults } from "./unet-results.js";

const rules: Rules = {
  ...unetRules,
  num_classes: maybe(whole(1, limits.width)),
  z_dim: maybe(whole(1, limits.width)),
  use_z: maybe(flag),
  plain_unet: maybe(flag),
};

/** Our configuration of the main branch's U-Net. Throws "option" for an option it does not have. */
export function diffuseVaeUnetConfig(where: string, config: Config): DiffuseVaeMainUnetConfig {
  checkFields(where, config, rules);
  const { residualResample, attentionOrder, headChannels, ...trunk } = trunkConfig(config);
  void [residualResample, attentionOrder, headChannels];
  return {
    ...trunk,
    conditional: config["plain_unet"] !== true,
    imageChannels: config["in_channels"] as number,
    outChannels: config["out_channels"] as number,
    ...(typeof config["num_classes"] === "number" && { classes: config["num_classes"] }),
    ...(config["use_z"] === true && { latentWidth: config["z_dim"] as number }),
  };
}

const unet: GoldenRunner = async (golden, evaluate) => {
  const model = diffuseVaeUnet(diffuseVaeUnetConfig(golden.kind, golden.config));
  return unetResults(golden, evaluate, { model, keys: admUnetKeys, output: "eps" });
};

const vaeRules: Rules = {
  input_res: whole(1, limits.side),
  enc_block_str: text(4096),
  dec_block_str: text(4096),
  enc_channel_str: text(4096),
  dec_channel_str: text(4096),
  alpha: maybe(real(-1e9, 1e9)),
  // of the optimiser
  lr: maybe(real(0, 1e9)),
  n_classes: maybe(whole(1, limits.width)),
  emb_dim: maybe(whole(1, limits.width)),
};

const vaeConfig = (c: Config): DiffuseVaeConfig => ({
  resolution: c["input_res"] as number,
  encoder: c["enc_block_str"] as string,
  decoder: c["dec_block_str"] as string,
  encoderChannels: c["enc_channel_str"] as string,
  decoderChannels: c["dec_channel_str"] as string,
  ...(typeof c["n_classes"] === "number" && { classes: c["n_classes"] }),
  ...(typeof c["emb_dim"] === "number" && { classWidth: c["emb_dim"] }),
});

function vaeResults(
  golden: GoldenCase,
  model: DiffuseVae,
  { t, x, gradientsOf }: ModelRun,
): Tensors {
  const { alpha = 1 } = golden.config as { alpha?: number };
  const images = channelsLast(x["x"]!);
  const labels: [Tensor] | [] = x["y"] ? [x["y"]] : [];
  const posterior = model.encode(images, ...labels);
  const z = drawLatent(posterior, channelsLast(x["eps"]!));
  const decoded = model.decode(z, ...labels);
  const taps = tapResults(golden, t);
  const loss = diffuseVaeLoss(images, decoded, posterior, alpha);
  return {
    ...taps,
    mu: channelsFirst(posterior.mean),
    logvar: channelsFirst(posterior.logVariance),
    z: channelsFirst(z),
    decoded: channelsFirst(decoded),
    decoded_from_mu: channelsFirst(model.decode(posterior.mean, ...labels)),
    loss_recons: loss.reconstruction,
    loss_kl: loss.kl,
    loss_total: loss.total,
    ...gradientsOf(loss.total),
  };
}

function vae(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, vaeRules);
  const model = diffuseVae(vaeConfig(golden.config));
  const options = {
    parameters: model.parameters,
    keys: diffuseVaeKeys,
    inputs: givenValues(golden),
  };
  return runModel(golden, evaluate, options, (run) => vaeResults(golden, model, run));
}

export const diffuseVaeModelRunners: Readonly<Record<string, GoldenRunner>> = {
  diffusevae_vae: vae,
  diffusevae_unet: unet,
};
