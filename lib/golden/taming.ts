// Golden kinds of the VQGAN: taming_vqmodel, taming_quantizer_remap and taming_ema_quantizer.
import { gradients } from "../autodiff/differentiate.js";
import { checkFields, flag, limits, optional, real, whole } from "../models/check-config.js";
import type { Rule } from "../models/check-config.js";
import {
  codebookLoss,
  codeRemap,
  perplexity,
  vectorQuantizer,
} from "../models/vector-quantizer.js";
import type { UnknownIndex, VectorQuantizer } from "../models/vector-quantizer.js";
import { tamingVqganKeys } from "../models/vqgan.keys.js";
import { vqgan } from "../models/vqgan.js";
import type { Vqgan, VqganConfig } from "../models/vqgan.js";
import { ParamScope } from "../nn/module.js";
import { matmul, topK } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { codecConfig } from "./first-stage-config.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { runModel, tapResults } from "./model-run.js";
import type { ModelRun } from "./model-run.js";

type VqModelConfig = Record<"n_embed" | "embed_dim" | "beta", number>;

function vqganConfig(golden: GoldenCase): VqganConfig {
  const codec = codecConfig(golden, { n_embed: whole(1, limits.codes), beta: real(0, 1e6) });
  const { n_embed: codes, embed_dim: width, beta } = golden.config as VqModelConfig;
  return { ...codec, quantizer: { codes, width, beta } };
}

/** Second best minus best squared distance of each latent: how clear its code is. */
export function indexMargin(latents: Tensor, codebook: Tensor): Tensor {
  const D = codebook.shape[1]!;
  const z = latents.reshape([latents.size / D, D]);
  const distances = z
    .square()
    .sum([1], true)
    .add(codebook.square().sum([1]))
    .sub(matmul(z, codebook, { transposeB: true }).mul(2));
  const { values } = topK(distances, { k: 2, descending: false });
  const column = (i: number): Tensor =>
    values.slice([0, i], [values.shape[0]!, 1]).reshape([values.shape[0]!]);
  return column(1).sub(column(0));
}

function vqModelResults(
  golden: GoldenCase,
  model: Vqgan,
  { t, x: inputs, gradientsOf }: ModelRun,
): Tensors {
  const { beta } = golden.config as VqModelConfig;
  const x = channelsLast(inputs["x"]!);
  const latents = model.encode(x);
  const encoderOut = t.recorded.get("encoder.conv_out")!;
  const { quantised, indices } = model.quantizer.quantise(latents);
  const reconstruction = model.decode(quantised);
  const tapped = tapResults(golden, t);
  const codes = model.quantizer.lookup(indices);
  const distortion = reconstruction.sub(x).square().mean();
  const results: Tensors = {
    ...tapped,
    encoder_out: channelsFirst(encoderOut),
    prequant: channelsFirst(latents),
    "tap.index_margin": indexMargin(latents, t.parameter(model.quantizer.codebook)),
    indices: indices.reshape([indices.size]),
    z_q: channelsFirst(quantised),
    reconstruction: channelsFirst(reconstruction),
    decoded_from_codes: channelsFirst(model.decode(codes)),
  };
  for (const [name, legacy] of Object.entries({ legacy: true, nonlegacy: false })) {
    const codebook = codebookLoss(latents, codes, beta, legacy);
    const total = distortion.add(codebook);
    results[`loss_codebook_${name}`] = codebook;
    results[`loss_total_${name}`] = total;
    Object.assign(results, gradientsOf(total, `grad.${name}.`));
  }
  return results;
}

function vqModel(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  const model = vqgan(vqganConfig(golden));
  const inputs = { x: ioValues(golden, "x") };
  const options = { parameters: model.parameters, keys: tamingVqganKeys, inputs };
  return runModel(golden, evaluate, options, (run) => vqModelResults(golden, model, run));
}

interface RemapConfig {
  n_e: number;
  e_dim: number;
  beta: number;
  legacy?: boolean;
  unknown_index: UnknownIndex;
  sane_index_shape?: boolean;
}

const unknownIndexRule: Rule = (value) =>
  value === "extra" || value === "random"
    ? undefined
    : whole(0, limits.codes)(value) && '"extra", "random" or a code';

const remapRules = {
  n_e: whole(1, limits.codes),
  e_dim: whole(1, limits.width),
  beta: real(0, 1e6),
  legacy: optional(flag),
  unknown_index: unknownIndexRule,
  sane_index_shape: optional(flag),
  /** Length of the list of codes that are kept, which the weights hold. */
  n_used: optional(whole(1, limits.codes)),
};

function quantise(quantizer: VectorQuantizer, t: Trace, x: Tensors): Tensors {
  const z = channelsLast(x["z"]!);
  const { quantised, indices, loss } = quantizer.quantise(z);
  const through = channelsFirst(quantised);
  const codebook = t.parameter(quantizer.codebook);
  return {
    z_q: through,
    loss,
    indices_full: indices.reshape([indices.size]),
    indices,
    "grad.z": gradients(through.mul(x["upstream"]!).sum().add(loss), [x["z"]!])[0]!,
    "grad.embedding.weight": gradients(loss, [codebook])[0]!,
  };
}

/** The draws of "random" as the case gives them: positions, or numbers in [0, 1), one for each unknown code. */
function givenDraws(golden: GoldenCase, count: number): (() => number) | undefined {
  const entry = [...golden.io].find(
    ([name, { role }]) => role === "input" && name !== "z" && name !== "upstream",
  );
  if (!entry) return undefined;
  const { data } = entry[1];
  let n = 0;
  return () => (data instanceof Int32Array ? (data[n++]! + 0.5) / count : data[n++]!);
}

async function quantizerRemap(
  golden: GoldenCase,
  evaluate: Evaluate,
): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, remapRules);
  const config = golden.config as unknown as RemapConfig;
  const quantizer = vectorQuantizer(new ParamScope("quantize"), {
    codes: config.n_e,
    width: config.e_dim,
    beta: config.beta,
    legacyBeta: config.legacy ?? true,
  });
  const parameters = new Map([[quantizer.codebook.name, golden.weights.get("embedding.weight")!]]);
  const inputs = { z: ioValues(golden, "z"), upstream: ioValues(golden, "upstream") };
  const results = await evaluate((t, x) => quantise(quantizer, t, x), { inputs, parameters });
  const remap = codeRemap(golden.weights.get("used")!.data as Int32Array, config.unknown_index);
  const grid = results["indices"]!.shape;
  const draws = givenDraws(golden, remap.count);
  const remapped = remap.toUsed(results["indices"]!.data as Int32Array, draws);
  const full = { shape: grid, data: remap.toFull(remapped) };
  const looked = await evaluate(
    (_, x) => ({ codebook_entry: channelsFirst(quantizer.lookup(x["full"]!)) }),
    {
      inputs: { full },
      parameters,
    },
  );
  // without sane_index_shape the reference returns a column
  const shape = config.sane_index_shape ? grid : [remapped.length, 1];
  return {
    ...results,
    ...looked,
    indices_remapped: { shape, data: remapped },
    unmapped_indices: { ...full, shape },
  };
}

interface EmaConfig {
  n_embed: number;
  embedding_dim: number;
  beta: number;
  decay: number;
  eps: number;
  steps: number;
}

const emaRules = {
  n_embed: whole(1, limits.codes),
  embedding_dim: whole(1, limits.width),
  beta: real(0, 1e6),
  decay: real(0, 1),
  eps: real(0, 1),
  steps: whole(0, 10_000),
};

const stateNames = {
  weight: "embedding.weight",
  cluster_size: "embedding.cluster_size",
  embed_avg: "embedding.embed_avg",
};

function emaStep(quantizer: VectorQuantizer, config: EmaConfig, x: Tensors): Tensors {
  const z = channelsLast(x["z"]!);
  const { quantised, indices, loss } = quantizer.quantise(z);
  const objective = loss.add(quantised.square().mean());
  const state = quantizer.updates(z, indices);
  const averages = quantizer.averages!;
  return {
    z_q: channelsFirst(quantised),
    loss,
    perplexity: perplexity(indices, config.n_embed),
    indices: indices.reshape([indices.size]),
    "grad.z": gradients(objective, [x["z"]!])[0]!,
    weight: state[quantizer.codebook.name]!,
    cluster_size: state[averages.counts.name]!,
    embed_avg: state[averages.sums.name]!,
  };
}

async function emaQuantizer(
  golden: GoldenCase,
  evaluate: Evaluate,
): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, emaRules);
  const config = golden.config as unknown as EmaConfig;
  const quantizer = vectorQuantizer(new ParamScope(), {
    codes: config.n_embed,
    width: config.embedding_dim,
    codebook: "ema",
    beta: config.beta,
    decay: config.decay,
    eps: config.eps,
  });
  let state = new Map(Object.values(stateNames).map((name) => [name, golden.weights.get(name)!]));
  const results: Record<string, Values> = {};
  for (let step = 0; step < config.steps; ++step) {
    const inputs = { z: ioValues(golden, `z.${step}`) };
    const {
      loss,
      "grad.z": gradZ,
      ...rest
    } = await evaluate((_, x) => emaStep(quantizer, config, x), {
      inputs,
      parameters: state,
    });
    results[`loss.s${step}`] = loss!;
    results[`grad.s${step}.z`] = gradZ!;
    for (const [name, values] of Object.entries(rest)) results[`s${step}.${name}`] = values;
    state = new Map(Object.entries(stateNames).map(([name, ours]) => [ours, rest[name]!]));
  }
  return results;
}

export const tamingRunners: Readonly<Record<string, GoldenRunner>> = {
  taming_vqmodel: vqModel,
  taming_quantizer_remap: quantizerRemap,
  taming_ema_quantizer: emaQuantizer,
};
