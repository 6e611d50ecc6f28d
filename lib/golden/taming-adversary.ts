// Golden kinds of adversarial training: taming_nlayer_discriminator and taming_vq_gan_loss.
import { gradients } from "../autodiff/differentiate.js";
import { checkFields, flag, limits, listOf, oneOf, real, whole } from "../models/check-config.js";
import { patchDiscriminator } from "../models/patch-discriminator.js";
import type { NormState, PatchDiscriminator } from "../models/patch-discriminator.js";
import { tamingDiscriminatorKeys } from "../models/vqgan.keys.js";
import {
  adaptiveWeight,
  autoencoderLoss,
  discriminatorFactor,
  discriminatorLosses,
  generatorLoss,
  l1Loss,
} from "../processes/adversarial.js";
import type { DiscriminatorLossName } from "../processes/adversarial.js";
import { conv2d, stopGradient } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { maybe, only } from "./adm-models.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues, valuesGiven } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { gradientResults, gradientsInForeignLayout, namesAfter } from "./gradients.js";
import type { GradientRequest } from "./gradients.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { loadWeights } from "./weights.js";
import type { LoadedWeights } from "./weights.js";

interface DiscriminatorConfig {
  input_nc: number;
  ndf: number;
  n_layers: number;
  use_actnorm: boolean;
}

const discriminatorRules = {
  input_nc: maybe(whole(1, 64)),
  ndf: maybe(whole(1, limits.width)),
  n_layers: maybe(whole(0, 64)),
  use_actnorm: maybe(flag),
};

/** The defaults are the reference's. */
function build(golden: GoldenCase): PatchDiscriminator {
  checkFields(golden.kind, golden.config, discriminatorRules);
  const { input_nc, ndf, n_layers, use_actnorm } =
    golden.config as unknown as Partial<DiscriminatorConfig>;
  return patchDiscriminator({
    imageChannels: input_nc ?? 3,
    channels: ndf ?? 64,
    layers: n_layers ?? 3,
    norm: use_actnorm ? "act" : "batch",
  });
}

const load = (golden: GoldenCase, model: PatchDiscriminator): LoadedWeights =>
  loadWeights(golden, [...model.parameters, ...model.states], tamingDiscriminatorKeys);

const statePrefix = "state_after_real.";

/** Counters and flags of the reference's buffers after one training call. */
function counters(golden: GoldenCase): Record<string, Values> {
  const names = namesAfter(golden, statePrefix).filter((name) =>
    /num_batches_tracked|initialized/.test(name),
  );
  const value = (name: string): number =>
    name.endsWith("initialized") ? 1 : golden.weights.get(name)!.data[0]! + 1;
  return Object.fromEntries(
    names.map((name) => [statePrefix + name, { shape: [], data: Int32Array.of(value(name)) }]),
  );
}

/** Gradients of a loss with ActNorm's initialised values standing in for its parameters. */
function lossGradients(loss: Tensor, state: NormState, request: GradientRequest): Tensors {
  const { golden, prefix, weights } = request;
  const replaced: Tensors = { ...request.inputs };
  for (const name of namesAfter(golden, prefix)) {
    for (const [foreign, { name: ours }] of weights.origins) {
      if (foreign === name && state[ours]) replaced[name] = state[ours];
    }
  }
  return gradientResults(loss, { ...request, inputs: replaced });
}

function discriminatorResults(
  golden: GoldenCase,
  model: PatchDiscriminator,
  weights: LoadedWeights,
  t: Trace,
  x: Tensors,
) {
  const { use_actnorm: isActNorm } = golden.config as unknown as DiscriminatorConfig;
  const real = channelsLast(x["real"]!);
  const fake = channelsLast(x["fake"]!);
  const stored = model.state(t);
  const evaluated = model.forward(real, { mode: "eval", state: stored });
  const first = model.forward(real, { mode: isActNorm ? "initialise" : "train", state: stored });
  // From here on ActNorm's values are constants: gradients stop at them, as they are set without
  // one.
  const afterReal = isActNorm ? detach(first.state) : first.state;
  const onReal = isActNorm ? model.forward(real, { mode: "train", state: afterReal }) : first;
  const onFake = model.forward(fake, { mode: "train", state: afterReal });
  const losses = {
    hinge: discriminatorLosses.hinge(onReal.logits, onFake.logits),
    vanilla: discriminatorLosses.vanilla(onReal.logits, onFake.logits),
    generator: generatorLoss(onFake.logits),
  };
  const request = { golden, inputs: x, weights, specs: model.parameters };
  const grads = Object.entries(losses).map(([name, loss]) =>
    lossGradients(loss, isActNorm ? afterReal : {}, { ...request, prefix: `grad.${name}.` }),
  );
  return {
    logits_eval: channelsFirst(evaluated.logits),
    logits_real_train: channelsFirst(onReal.logits),
    logits_fake_train: channelsFirst(onFake.logits),
    ...Object.fromEntries(Object.entries(losses).map(([name, loss]) => [`loss_${name}`, loss])),
    ...Object.fromEntries(
      Object.entries(first.state).map(([name, value]) => [statePrefix + name, value]),
    ),
    ...Object.assign({}, ...grads),
  } as Tensors;
}

const detach = (state: NormState): NormState =>
  Object.fromEntries(Object.entries(state).map(([name, value]) => [name, stopGradient(value)]));

/** A channel vector in the reference's (1, C, 1, 1). */
const reshapeLike = (golden: GoldenCase, results: Record<string, Values>): Record<string, Values> =>
  Object.fromEntries(
    Object.entries(results).map(([name, values]) => [
      name,
      { ...values, shape: golden.io.get(name)?.shape ?? values.shape },
    ]),
  );

async function nLayerDiscriminator(
  golden: GoldenCase,
  evaluate: Evaluate,
): Promise<Record<string, Values>> {
  const model = build(golden);
  const weights = load(golden, model);
  const inputs = { real: ioValues(golden, "real"), fake: ioValues(golden, "fake") };
  const results = await evaluate((t, x) => discriminatorResults(golden, model, weights, t, x), {
    inputs,
    parameters: weights.parameters,
  });
  for (const name of ["hinge", "vanilla", "generator"]) {
    gradientsInForeignLayout(results, { prefix: `grad.${name}.`, weights, inputs });
  }
  return { ...reshapeLike(golden, results), ...counters(golden) };
}

interface GanLossConfig {
  disc_start: number;
  codebook_weight: number;
  disc_num_layers: number;
  disc_ndf: number;
  disc_weight: number;
  disc_factor: number;
  disc_loss: DiscriminatorLossName;
  global_steps: number[];
}

const ganLossRules = {
  disc_start: whole(0, 1e9),
  codebook_weight: real(-1e6, 1e6),
  disc_num_layers: whole(0, 64),
  disc_ndf: whole(1, limits.width),
  disc_weight: real(-1e6, 1e6),
  disc_factor: real(-1e6, 1e6),
  disc_loss: oneOf("hinge", "vanilla"),
  global_steps: listOf(whole(0, 1e9), 0, 1000),
  disc_in_channels: maybe(whole(1, 64)),
  /** Stored and never used by the reference. */
  pixelloss_weight: maybe(real(-1e6, 1e6)),
  perceptual_weight: only(0),
  use_actnorm: maybe(only(false)),
  disc_conditional: maybe(only(false)),
};

function generatorPass(
  config: GanLossConfig,
  model: PatchDiscriminator,
  state: NormState,
  x: Tensors,
  step: number,
) {
  const lastLayer = x["last_layer"]!;
  const weight = lastLayer.transpose([2, 3, 1, 0]);
  const reconstruction = conv2d(channelsLast(x["pre_last"]!), weight, { padding: [1, 1, 1, 1] });
  const judged = model.forward(reconstruction, { mode: "train", state });
  const nll = l1Loss(channelsLast(x["inputs"]!), reconstruction);
  const adversarial = generatorLoss(judged.logits);
  const balance = adaptiveWeight(
    gradients(nll, [lastLayer])[0]!,
    gradients(adversarial, [lastLayer])[0]!,
    {
      discriminatorWeight: config.disc_weight,
    },
  );
  const total = autoencoderLoss({
    reconstruction: nll,
    adversarial,
    codebook: x["codebook_loss"]!,
    weight: balance,
    factor: discriminatorFactor(step, config.disc_start, config.disc_factor),
    codebookWeight: config.codebook_weight,
  });
  const [gradLast, gradPre] = gradients(total, [lastLayer, x["pre_last"]!]);
  const results: Tensors = {
    [`loss.step${step}.gen.total_loss`]: total,
    [`loss.step${step}.gen.nll_loss`]: nll,
    [`loss.step${step}.gen.d_weight`]: balance,
    [`loss.step${step}.gen.g_loss`]: adversarial,
    [`grad.step${step}.last_layer`]: gradLast!,
    [`grad.step${step}.pre_last`]: gradPre!,
  };
  return { reconstruction, state: judged.state, results };
}

function ganLossResults(
  config: GanLossConfig,
  model: PatchDiscriminator,
  t: Trace,
  x: Tensors,
): Tensors {
  let state = model.state(t);
  const results: Tensors = {};
  for (const step of config.global_steps) {
    const generator = generatorPass(config, model, state, x, step);
    const real = model.forward(channelsLast(x["inputs"]!), {
      mode: "train",
      state: generator.state,
    });
    const fake = model.forward(stopGradient(generator.reconstruction), {
      mode: "train",
      state: real.state,
    });
    const factor = discriminatorFactor(step, config.disc_start, config.disc_factor);
    state = fake.state;
    Object.assign(results, generator.results, {
      [`loss.step${step}.disc.disc_loss`]: discriminatorLosses[config.disc_loss](
        real.logits,
        fake.logits,
      ).mul(factor),
      [`loss.step${step}.disc.logits_real`]: real.logits.mean(),
      [`loss.step${step}.disc.logits_fake`]: fake.logits.mean(),
    });
  }
  return results;
}

async function vqGanLoss(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, ganLossRules);
  const config = golden.config as unknown as GanLossConfig;
  const model = patchDiscriminator({
    imageChannels: ioValues(golden, "inputs").shape[1]!,
    channels: config.disc_ndf,
    layers: config.disc_num_layers,
  });
  const { parameters } = load(golden, model);
  const inputs = valuesGiven(golden, "inputs", "pre_last", "last_layer", "codebook_loss");
  return evaluate((t, x) => ganLossResults(config, model, t, x), { inputs, parameters });
}

export const tamingAdversaryRunners: Readonly<Record<string, GoldenRunner>> = {
  taming_nlayer_discriminator: nLayerDiscriminator,
  taming_vq_gan_loss: vqGanLoss,
};
