// A batch of states from noise by a denoiser: the compiled step for each set of settings, guidance in one batch with the
// network, and the sampler's loop.
import type { Graph } from "../ir/graph.js";
import { admEncoderUnet, type AdmEncoderUnetConfig } from "../models/adm-encoder-unet.js";
import type { Denoiser } from "../models/denoiser.js";
import { learnedVariance, parameterisationOf, type DiffusionProcess } from "../models/diffusion-process.js"; // prettier-ignore
import { ParamScope } from "../nn/module.js";
import type { Quantize } from "../runtime/program.js";
import type { SessionCache } from "../runtime/session-cache.js";
import { startDeviation } from "../processes/gaussian-levels.js";
import {
  hasBefore,
  isStochastic,
  sampleContinuous,
  type ContinuousPlan,
  type GradientMode,
  type NamedInputs,
  type RunEvaluation,
} from "../samplers/continuous.js";
import {
  continuousStepGraph,
  type Clamp,
  type Classifier,
  type ContinuousDenoiser,
  type ContinuousInput,
} from "../samplers/continuous-step.js";
import { keyTable } from "../samplers/discrete.js";
import {
  classifierFree,
  guidanceInputs,
  guidanceInterval,
  isGuided,
  labelLogProbability,
  withAndWithoutPair,
  type GuidanceScale,
} from "../samplers/guidance.js";
import { randomNormal } from "../trace/functions.js";
import { trace, type InputSpec, type Trace } from "../trace/trace.js";
import { samplingPlan, type DiffusionSampling } from "../trainers/diffusion-sampling.js";
import { fixedInputs, type FixedStep } from "./fixed-inputs.js";
import type { StateShape } from "./picture-codec.js";

/** What a batch is told. */
export interface BatchConditions {
  /** Inputs of the network beside state and time, for so many rows. */
  inputs: (rows: number) => Record<string, InputSpec>;
  /** Their values. */
  plain: NamedInputs;
  /** Their values with the empty condition of every sample after them; undefined: it has none. */
  guided?: NamedInputs;
  /** Paired images (B, ...shape) in [-1, 1]. */
  pair?: Float32Array;
  /** Classes (B) that a classifier leads to. */
  wanted?: Int32Array;
}

export interface DenoiseJob {
  denoiser: Denoiser;
  /** Its weights have names that begin with `classifierPlace`. */
  classifier?: AdmEncoderUnetConfig;
  process: DiffusionProcess;
  /** With the weights of the denoiser, and of the classifier. */
  sessions: SessionCache;
  sampling: DiffusionSampling;
  conditions: BatchConditions;
  batch: number;
  shape: StateShape;
  seed: number;
  /** Number of the first sample under the seed; the others follow. */
  firstSample: number;
  /** How the step is compiled; default floats. */
  quantize?: Quantize | undefined;
  signal?: AbortSignal;
}

export interface DenoiseStep {
  index: number;
  steps: number;
  /** (B, ...shape). */
  states: Float32Array;
  /** Clean states that the network saw last. */
  clean: Float32Array;
}

/** Where the weights of a classifier are beside those of the denoiser. */
export const classifierPlace = "classifier";

/** Number of the random stream of first states; those of the steps are 1 and 2. */
const kStartPurpose = 3;

const clampOf = ({ clamp = false }: DiffusionSampling): { clamp?: Clamp } =>
  clamp === false ? {} : { clamp: clamp === true ? [-1, 1] : { quantile: clamp } };

/** The network on as many rows as it is given. */
const networkOf =
  ({ denoiser, conditions }: DenoiseJob): ContinuousDenoiser =>
  (t: Trace, { x, times, pair }: ContinuousInput) => {
    const specs = Object.entries(conditions.inputs(x.shape[0]!));
    const told = Object.fromEntries(specs.map(([name, spec]) => [name, t.input(name, spec)]));
    return denoiser.forward({ x, times, ...(pair && { pair }), ...told });
  };

function guidedNetwork(job: DenoiseJob): ContinuousDenoiser {
  const { denoiser, process, conditions, sampling } = job;
  const { guidanceChannels: channels = denoiser.channels, guidanceRescale: rescale = 0 } = sampling;
  const subtract = process.kind === "gaussian" && process.formulation === 2;
  const network = networkOf(job);
  const both = conditions.pair ? withAndWithoutPair(network, { subtract }) : network;
  return classifierFree(both, { channels, rescale });
}

/** Where the gradient of a classifier acts: the mean of ancestral steps, the score of all others. */
const guideMode = ({
  sampler,
  classifierScale = 0,
}: DiffusionSampling): GradientMode | undefined =>
  classifierScale === 0 ? undefined : sampler === "ddpm" ? "mean" : "score";

function guideOf({ classifier, sampling, batch }: DenoiseJob): { guide?: Classifier } {
  const mode = guideMode(sampling);
  if (!classifier || !mode) return {};
  const network = admEncoderUnet(classifier, new ParamScope().child(classifierPlace));
  return {
    guide: {
      mode,
      logProbability: (t, input) =>
        labelLogProbability(
          network.forward(input),
          t.input("wanted", { shape: [batch], dtype: "i32" }),
        ),
    },
  };
}

function stepGraph(job: DenoiseJob, plan: ContinuousPlan, guided: boolean): Graph {
  const { batch, shape, process, conditions, sampling } = job;
  const variance = learnedVariance(process);
  return continuousStepGraph({
    ...{ batch, shape, plan, ...clampOf(sampling) },
    denoise: guided ? guidedNetwork(job) : networkOf(job),
    hasPair: conditions.pair !== undefined,
    epsilon: sampling.rederive ? "rederived" : "kept",
    ...(variance && { variance }),
    ...guideOf(job),
  });
}

/** What decides the graph of a step. */
function stepKey({ batch, shape, sampling }: DenoiseJob, plan: ContinuousPlan, guided: boolean): string {
  const { clamp = false, rederive = false, guidanceChannels, guidanceRescale } = sampling;
  const ofPlan = [plan.slots, hasBefore(plan), isStochastic(plan)];
  const ofGuidance = guided ? [guidanceChannels, guidanceRescale] : [];
  const ofClassifier = guideMode(sampling);
  return JSON.stringify(["step", batch, shape, ...ofPlan, clamp, rederive, guided, ...ofGuidance, ofClassifier]);
} // prettier-ignore

/** The step with what the batch is told. */
function stepRunner(job: DenoiseJob, plan: ContinuousPlan, guided: boolean): FixedStep {
  const { sessions, conditions, batch, shape, quantize } = job;
  const told = (guided && conditions.guided) || conditions.plain;
  const key = `told ${batch} ${shape.join()} ${guided}`;
  const runner = fixedInputs(sessions, key, told, quantize && { quantize });
  return runner(stepKey(job, plan, guided), () => stepGraph(job, plan, guided));
}

/** First states: b y + deviation temperature n, drawn in the core. */
async function firstStates(job: DenoiseJob, { first }: ContinuousPlan): Promise<Float32Array> {
  const { batch, shape, sampling, sessions, seed, firstSample, signal } = job;
  const { pair } = job.conditions;
  const scale = startDeviation(first) * (sampling.temperature ?? 1);
  const rows = [batch, ...shape];
  const graph = (): Graph =>
    trace((t) => {
      const key = t.input("key", { shape: [batch, 4], dtype: "i32" });
      const noise = randomNormal(key, { shape: rows, purpose: kStartPurpose });
      const drawn = noise.mul(t.input("scale", { shape: [1] }));
      const shift = pair && t.input("pair", { shape: rows }).mul(t.input("b", { shape: [1] }));
      t.output("x", shift ? drawn.add(shift) : drawn);
    });
  const key = `start ${rows.join()} ${pair !== undefined}`;
  const inputs = {
    key: keyTable(seed, firstSample, 0, batch),
    scale: Float32Array.of(scale),
    ...(pair && { pair, b: Float32Array.of(first.b) }),
  };
  const { x } = await sessions.run(key, graph, inputs, signal ? { signal } : {});
  return x as Float32Array;
}

/** Guidance of each evaluation. */
function scaleOf({ guidanceScale, guidanceInterval: inside }: DiffusionSampling): GuidanceScale {
  return inside ? guidanceInterval(guidanceScale, { from: inside[0], to: inside[1] }) : guidanceScale; // prettier-ignore
}

/** Runs the sampler; the last step holds the samples. */
export async function* denoise(job: DenoiseJob): AsyncGenerator<DenoiseStep> {
  const { process, sampling, conditions, batch, shape, seed, firstSample, signal } = job;
  const plan = samplingPlan(process, sampling);
  const scales = [scaleOf(sampling)];
  const guidance = guidanceInputs(scales, batch);
  const [plain, guided] = [false, true].map((isGuided) => stepRunner(job, plan, isGuided));
  const run: RunEvaluation = async (inputs, { evaluation, ...stop }) =>
    (isGuided(scales, evaluation) ? guided! : plain!)(inputs, stop);
  const { pair } = conditions;
  const mode = job.classifier && guideMode(sampling);
  const wanted = mode && conditions.wanted ? { wanted: conditions.wanted } : {};
  const loop = sampleContinuous(run, {
    plan,
    ...(mode && { gradient: mode, gradientScale: sampling.classifierScale ?? 0 }),
    parameterisation: parameterisationOf(process),
    ...{ batch, shape, seed, firstSample, ...(pair && { pair }), ...(signal && { signal }) },
    start: await firstStates(job, plan),
    inputs: (evaluation) =>
      isGuided(scales, evaluation) ? { ...guidance(evaluation), ...wanted } : wanted,
  });
  for await (const { index, steps, state } of loop)
    yield { index, steps, states: state.x as Float32Array, clean: state.x0 as Float32Array };
}
