// Golden kinds of the first stages of latent diffusion: ldm_autoencoder_kl and ldm_vqmodel_interface.
import { autoencoderKl } from "../models/autoencoder-kl.js";
import type { AutoencoderKl } from "../models/autoencoder-kl.js";
import { limits, whole } from "../models/check-config.js";
import { tamingVqganKeys } from "../models/vqgan.keys.js";
import { vqgan } from "../models/vqgan.js";
import type { Vqgan } from "../models/vqgan.js";
import type { Tensor } from "../trace/tensor.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { codecConfig } from "./first-stage-config.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { runModel } from "./model-run.js";
import type { ModelRun } from "./model-run.js";
import { indexMargin } from "./taming.js";

/** Weight of the KL term in the golden loss. */
const kKlWeight = 0.01;

function buildKl(golden: GoldenCase): AutoencoderKl {
  const codec = codecConfig(golden, {}, true);
  return autoencoderKl({ ...codec, embedChannels: golden.config["embed_dim"] as number });
}

function klResults(model: AutoencoderKl, { x: inputs, gradientsOf }: ModelRun): Tensors {
  const x = channelsLast(inputs["x"]!);
  const noise = channelsLast(inputs["noise"]!);
  const moments = model.moments(x);
  const posterior = model.encode(x);
  const z = posterior.sample(noise);
  const reconstruction = model.decode(z);
  const kl = posterior.kl();
  const loss = reconstruction.sub(x).square().mean().add(kl.mean().mul(kKlWeight));
  const maps: Record<string, Tensor> = {
    moments,
    mean: posterior.mean,
    logvar: posterior.logVariance,
    z,
    reconstruction,
    reconstruction_mode: model.decode(posterior.mean),
  };
  return {
    ...Object.fromEntries(Object.entries(maps).map(([name, y]) => [name, channelsFirst(y)])),
    loss_kl_per_sample: kl,
    nll_per_sample: posterior.nll(noise),
    loss_total: loss,
    ...gradientsOf(loss),
  };
}

function autoencoder(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  const model = buildKl(golden);
  const inputs = { x: ioValues(golden, "x"), noise: ioValues(golden, "noise") };
  const options = { parameters: model.parameters, keys: tamingVqganKeys, inputs };
  return runModel(golden, evaluate, options, (run) => klResults(model, run));
}

function buildVq(golden: GoldenCase): Vqgan {
  const codec = codecConfig(golden, { n_embed: whole(1, limits.codes) });
  const { n_embed: codes, embed_dim: width } = golden.config as Record<"n_embed" | "embed_dim", number>; // prettier-ignore
  return vqgan({ ...codec, quantizer: { codes, width } });
}

function vqResults(model: Vqgan, { t, x: inputs, gradientsOf }: ModelRun): Tensors {
  const x = channelsLast(inputs["x"]!);
  const h = model.encode(x);
  const { quantised, indices } = model.quantizer.quantise(h);
  const decoded = model.decode(quantised);
  const loss = decoded.sub(x).square().mean();
  return {
    h: channelsFirst(h),
    decoded: channelsFirst(decoded),
    decoded_not_quantized: channelsFirst(model.decode(h)),
    indices: indices.reshape([indices.size]),
    "tap.index_margin": indexMargin(h, t.parameter(model.quantizer.codebook)),
    loss,
    ...gradientsOf(loss),
  };
}

function vqInterface(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  const model = buildVq(golden);
  const inputs = { x: ioValues(golden, "x") };
  const options = { parameters: model.parameters, keys: tamingVqganKeys, inputs };
  return runModel(golden, evaluate, options, (run) => vqResults(model, run));
}

export const ldmFirstStageRunners: Readonly<Record<string, GoldenRunner>> = {
  ldm_autoencoder_kl: autoencoder,
  ldm_vqmodel_interface: vqInterface,
};
