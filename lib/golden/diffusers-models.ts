// Golden kinds diffusers_vqmodel and diffusers_vqdiffusion_transformer: forward, taps and gradients.
import { limits, whole } from "../models/check-config.js";
import { diffusersVqganKeys } from "../models/vqgan.keys.js";
import { vqgan } from "../models/vqgan.js";
import type { Vqgan, VqganConfig } from "../models/vqgan.js";
import {
  diffusersUnconditionalVqTransformerKeys,
  diffusersVqTransformerKeys,
} from "../models/vq-transformer.keys.js";
import { vqTransformer } from "../models/vq-transformer.js";
import type { VqTransformer, VqTransformerConfig } from "../models/vq-transformer.js";
import { checkFields } from "../models/check-config.js";
import type { KeyMap } from "../nn/key-map.js";
import { logSoftmax } from "../trace/functions.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues } from "./case.js";
import { codecModule, transformerConfig, transformerModule, vqModelConfig } from "./diffusers-config.js"; // prettier-ignore
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { givenValues, runModel, tapResults } from "./model-run.js";
import type { ModelRun } from "./model-run.js";
import { indexMargin } from "./taming.js";

export const codecKeys = ({ multipliers, residualBlocks }: VqganConfig): KeyMap =>
  diffusersVqganKeys(multipliers.length, residualBlocks);

function codecResults(
  golden: GoldenCase,
  model: Vqgan,
  { t, x: inputs, gradientsOf }: ModelRun,
): Tensors {
  const x = channelsLast(inputs["x"]!);
  const latents = model.encode(x);
  const { quantised, indices, loss: codebook } = model.quantizer.quantise(latents);
  const reconstruction = model.decode(quantised);
  const tapped = tapResults(golden, t, (name) =>
    codecModule(name, model.config.multipliers.length),
  );
  const loss = reconstruction.sub(x).square().mean().add(codebook);
  const maps = {
    latents,
    reconstruction,
    z_q: quantised,
    decode_not_quantized: model.decode(latents),
    decoded_from_codes: model.decode(model.quantizer.lookup(indices)),
  };
  return {
    ...tapped,
    ...Object.fromEntries(Object.entries(maps).map(([name, y]) => [name, channelsFirst(y)])),
    indices: indices.reshape([indices.size]),
    "tap.index_margin": indexMargin(latents, t.parameter(model.quantizer.codebook)),
    loss_codebook: codebook,
    loss_total: loss,
    ...gradientsOf(loss),
  };
}

function vqModel(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  const config = vqModelConfig(golden.kind, golden.config);
  const model = vqgan(config);
  const inputs = { x: ioValues(golden, "x") };
  const options = { parameters: model.parameters, keys: codecKeys(config), inputs };
  return runModel(golden, evaluate, options, (run) => codecResults(golden, model, run));
}

export const transformerKeys = ({ condition }: VqTransformerConfig): KeyMap =>
  condition ? diffusersVqTransformerKeys : diffusersUnconditionalVqTransformerKeys;

function transformerResults(
  golden: GoldenCase,
  model: VqTransformer,
  { t, x: inputs, gradientsOf }: ModelRun,
): Tensors {
  const condition = inputs["encoder_hidden_states"];
  const logits = model.forward({
    tokens: inputs["x"]!,
    times: inputs["times"]!,
    ...(condition && { condition }),
  });
  const hasCondition = model.config.condition !== undefined;
  const tapped = tapResults(golden, t, (name) => transformerModule(name, hasCondition));
  const logP = channelsFirst(logSoftmax(logits));
  const loss = logP.mul(inputs["upstream"]!).mean();
  return {
    ...tapped,
    log_p_x0: logP,
    loss,
    ...gradientsOf(loss),
  };
}

function transformer(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  const { timestep, ...rest } = golden.config;
  const config = transformerConfig(golden.kind, rest);
  const last = (config.timesteps ?? limits.timesteps) - 1;
  checkFields(golden.kind, { timestep }, { timestep: whole(0, last) });
  const model = vqTransformer(config);
  const B = ioValues(golden, "x").shape[0]!;
  const times = { shape: [B], data: new Int32Array(B).fill(timestep as number) };
  const inputs = { ...givenValues(golden), times };
  const options = { parameters: model.parameters, keys: transformerKeys(config), inputs };
  return runModel(golden, evaluate, options, (run) => transformerResults(golden, model, run));
}

export const diffusersModelRunners: Readonly<Record<string, GoldenRunner>> = {
  diffusers_vqmodel: vqModel,
  diffusers_vqdiffusion_transformer: transformer,
};
