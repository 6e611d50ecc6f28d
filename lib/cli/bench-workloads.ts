// What `smalti bench` and the comparison with other libraries run: whole networks by their published configurations,
// training steps, and single kernels. Inputs and results stay in buffers of the core, as between the steps of a sampler.
import type { Shape } from "../ir/shape.js";
import type { DType } from "../ir/dtype.js";
import type { Graph } from "../ir/graph.js";
import type { ParamSpec } from "../ir/param.js";
import { admUnet, type AdmUnetConfig } from "../models/adm-unet.js";
import { ddpmUnetConfigs } from "../models/ddpm-configs.js";
import { ddpmUnet } from "../models/ddpm-unet.js";
import { dit, ditConfigs } from "../models/dit.js";
import { vqTransformer } from "../models/vq-transformer.js";
import { vqganConfigs } from "../models/vqgan-configs.js";
import { vqgan } from "../models/vqgan.js";
import { coefficientTable, maskReplaceSchedule } from "../processes/schedules.js";
import type { TensorData } from "../runtime/buffer.js";
import type { CompileOptions } from "../runtime/program.js";
import { fusedStepGraph } from "../trainers/train-step.js";
import * as ops from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { trace, type Trace } from "../trace/trace.js";

export interface BenchWorkload {
  name: string;
  batch: number;
  /** A kernel is timed inside the core, the others as the calls that a program makes. */
  kind: "network" | "training" | "kernel";
  graph: () => Graph;
  compileOptions?: CompileOptions;
  /** What the bound is computed of: the graph, or the forward pass of a training step, which counts three times. */
  forward: () => Graph;
  /** Values by graph input that must not be random numbers between -1 and 1. */
  values?: Readonly<Record<string, (size: number) => TensorData>>;
}

interface Input {
  shape: Shape;
  dtype?: DType;
}

interface Network {
  inputs: Record<string, Input>;
  forward: (x: Record<string, Tensor>) => Tensor;
  parameters: readonly ParamSpec[];
}

const i32 = "i32" as const;
const whole = (below: number) => (size: number) =>
  Int32Array.from({ length: size }, (_, i) => (i * 7919) % below);
const filled = (value: number) => (size: number) => new Float32Array(size).fill(value);

/** Values of the inputs that count something. */
const values = {
  times: whole(100),
  labels: whole(1000),
  tokens: whole(2886),
  lr: filled(1e-4),
  biasCorrection1: filled(0.1),
  biasCorrection2: filled(0.001),
};

/** The result is written into a buffer of the core, not into a new array. */
function keep(t: Trace, name: string, y: Tensor): void {
  t.state(name, { shape: y.shape, dtype: y.dtype });
  t.update(name, y);
}

const resident = (t: Trace, inputs: Record<string, Input>): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(inputs).map(([name, spec]) => [name, t.state(name, spec)]));

const unetInputs = (batch: number, side: number): Record<string, Input> => ({
  x: { shape: [batch, side, side, 3] },
  times: { shape: [batch], dtype: i32 },
});

function cifarUnet(batch: number): Network {
  const { parameters, forward } = ddpmUnet(ddpmUnetConfigs.cifar10);
  return {
    inputs: unetInputs(batch, 32),
    forward: ({ x, times }) => forward({ x: x!, times: times! }),
    parameters,
  };
}

/** U-Nets of the ADM family for 64 x 64 pixels, smaller than the published ones. */
const adm64 = {
  resolution: 64,
  multipliers: [1, 2, 3, 4],
  headChannels: 64,
  scaleShiftNorm: true,
  residualResample: true,
} as const;

const admNetwork = (config: AdmUnetConfig) => (batch: number) => {
  const { parameters, forward } = admUnet(config);
  return {
    inputs: unetInputs(batch, config.resolution),
    forward: ({ x, times }) => forward({ x: x!, times: times! }),
    parameters,
  } satisfies Network as Network;
};

const adm64Unet = admNetwork({
  ...adm64,
  channels: 128,
  residualBlocks: 2,
  attentionFactors: [2, 4, 8],
  outChannels: 6,
});

const small64Unet = admNetwork({
  ...adm64,
  channels: 64,
  residualBlocks: 1,
  attentionFactors: [4, 8],
});

function vqganEncoder(batch: number): Network {
  const { parameters, encode } = vqgan(vqganConfigs["f16-16384"]);
  return {
    inputs: { x: { shape: [batch, 256, 256, 3] } },
    forward: ({ x }) => encode(x!),
    parameters,
  };
}

function vqganDecoder(batch: number): Network {
  const { parameters, decode } = vqgan(vqganConfigs["f16-16384"]);
  return {
    inputs: { x: { shape: [batch, 16, 16, 256] } },
    forward: ({ x }) => decode(x!),
    parameters,
  };
}

const ditNetwork =
  (size: "S/2" | "B/2") =>
  (batch: number): Network => {
    const { parameters, forward } = dit(ditConfigs[size]);
    return {
      inputs: {
        x: { shape: [batch, 32, 32, 4] },
        times: { shape: [batch], dtype: i32 },
        labels: { shape: [batch], dtype: i32 },
      },
      forward: ({ x, times, labels }) => forward({ x: x!, times: times!, labels: labels! }),
      parameters,
    };
  };

/** A VQ-Diffusion transformer of 12 layers for 32 x 32 tokens and 77 text tokens. */
function vqdSmall(batch: number): Network {
  const { parameters, forward } = vqTransformer({
    codes: 2886,
    grid: [32, 32],
    width: 512,
    layers: 12,
    heads: 8,
    condition: { kind: "text", width: 512 },
  });
  return {
    inputs: {
      tokens: { shape: [batch, 1024], dtype: i32 },
      condition: { shape: [batch, 77, 512] },
      times: { shape: [batch], dtype: i32 },
    },
    forward: ({ tokens, condition, times }) =>
      forward({ tokens: tokens!, condition: condition!, times: times! }),
    parameters,
  };
}

type Build = (batch: number) => Network;

const forwardGraph = (batch: number, build: Build): Graph =>
  trace((t) => {
    const { inputs, forward } = build(batch);
    keep(t, "y", forward(resident(t, inputs)));
  });

function networkWorkload(name: string, batch: number, build: Build): BenchWorkload {
  const graph = (): Graph => forwardGraph(batch, build);
  return { name, batch, kind: "network", values, graph, forward: graph };
}

const quantizedWorkload = (name: string, build: Build): BenchWorkload => ({
  ...networkWorkload(`int8_${name}`, 1, build),
  compileOptions: { quantize: "int8" },
});

/** Forward, backward and one AdamW update of the mean squared error. */
const trainingWorkload = (name: string, batch: number, build: Build): BenchWorkload => ({
  name: `train_${name}`,
  batch,
  kind: "training",
  values,
  forward: () => forwardGraph(batch, build),
  graph: () => {
    const { inputs, forward, parameters } = build(batch);
    return fusedStepGraph({
      inputs,
      parameters,
      optimiser: { weightDecay: 0.01 },
      loss: (t, x) => {
        const y = forward(x);
        const target = t.state("target", { shape: y.shape });
        return { loss: y.sub(target).square().mean() };
      },
    });
  },
});

type KernelBuild = (t: Trace) => Tensor;

function kernelWorkload(name: string, build: KernelBuild, batch = 1): BenchWorkload {
  const graph = (): Graph => trace((t) => keep(t, "y", build(t)));
  return { name, batch, kind: "kernel", graph, forward: graph };
}

const weight = (t: Trace, name: string, shape: Shape): Tensor =>
  t.parameter({ name, shape, init: { kind: "zeros" } });

const convWorkload = (from: number, to: number, side: number): BenchWorkload =>
  kernelWorkload(`conv_${from}_${to}_${side}`, (t) => {
    const x = t.state("x", { shape: [1, side, side, from] });
    const y = ops.conv2d(x, weight(t, "w", [3, 3, from, to]), { padding: [1, 1, 1, 1] });
    return y.add(weight(t, "b", [to]));
  });

const normWorkload = (channels: number, side: number): BenchWorkload =>
  kernelWorkload(`gnsilu_${channels}_${side}`, (t) => {
    const x = t.state("x", { shape: [1, side, side, channels] });
    const [gamma, beta] = [weight(t, "gamma", [channels]), weight(t, "beta", [channels])];
    return ops.groupNorm(x, gamma, beta, { groups: 32, eps: 1e-6, activation: "silu" });
  });

const matmulWorkload = (M: number, N: number, K: number): BenchWorkload =>
  kernelWorkload(`matmul_${M}_${N}_${K}`, (t) =>
    t.state("x", { shape: [M, K] }).matmul(weight(t, "w", [K, N])),
  );

const codesWorkload = (N: number, K: number, D: number): BenchWorkload =>
  kernelWorkload(`codebook_${N}_${K}_${D}`, (t) =>
    ops.nearestCodes(t.state("z", { shape: [N, D] }), weight(t, "codes", [K, D]), {
      metric: "euclidean",
    }),
  );

/** A reverse step after the network, from logits to drawn tokens; most tokens are still masked. */
function stepWorkload(K: number, batch: number): BenchWorkload {
  const N = 1024;
  const schedule = maskReplaceSchedule({ codes: K });
  const level = { t: 40, s: 39 };
  const coefficients = [
    ...coefficientTable(
      schedule,
      Array.from({ length: batch }, () => level),
    ),
  ];
  const draw = (t: Trace): Tensor =>
    ops.maskReplaceStep(
      t.state("logits", { shape: [batch, N, K] }),
      t.state("xt", { shape: [batch, N], dtype: i32 }),
      t.constant(coefficients, [batch, 9]),
      t.constant(Array.from({ length: batch }, () => [1, 1, 1, 0]).flat(), [batch, 4]),
      ops.randomUniform(t.state("key", { shape: [batch, 4], dtype: i32 }), {
        shape: [batch, N],
        purpose: 1,
      }),
    ).tokens;
  const masked = (size: number): Int32Array =>
    Int32Array.from({ length: size }, (_, i) => ((i * 7) % 10 < 6 ? K : (i * 7919) % K));
  return {
    ...kernelWorkload(`mask_replace_${K}`, draw, batch),
    values: { xt: masked, key: whole(5) },
  };
}

export const benchWorkloads: readonly BenchWorkload[] = [
  ...[1, 4].map((batch) => networkWorkload("cifar_unet", batch, cifarUnet)),
  ...[1, 4].map((batch) => networkWorkload("adm64_unet", batch, adm64Unet)),
  networkWorkload("vqgan_f16_enc", 1, vqganEncoder),
  networkWorkload("vqgan_f16_dec", 1, vqganDecoder),
  ...[1, 4].map((batch) => networkWorkload("dit_s2", batch, ditNetwork("S/2"))),
  ...[1, 4].map((batch) => networkWorkload("dit_b2", batch, ditNetwork("B/2"))),
  ...[1, 4].map((batch) => networkWorkload("vqd_small", batch, vqdSmall)),
  quantizedWorkload("cifar_unet", cifarUnet),
  quantizedWorkload("dit_b2", ditNetwork("B/2")),
  trainingWorkload("cifar_unet", 4, cifarUnet),
  trainingWorkload("small64_unet", 4, small64Unet),
  trainingWorkload("dit_s2", 4, ditNetwork("S/2")),
  convWorkload(128, 128, 32),
  convWorkload(256, 256, 16),
  convWorkload(128, 128, 64),
  convWorkload(128, 128, 256),
  convWorkload(3, 128, 256),
  convWorkload(128, 3, 256),
  normWorkload(128, 32),
  normWorkload(128, 256),
  matmulWorkload(512, 512, 512),
  codesWorkload(4096, 16384, 256),
  codesWorkload(4096, 16384, 8),
  codesWorkload(65536, 8192, 4),
  stepWorkload(2886, 4),
];
