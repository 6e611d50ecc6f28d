// What a pipeline has to know beyond the networks of a published checkpoint: the process that a denoiser was trained on, how
// its original code samples, the layer of a text encoder that counts. One entry a kind of network.
import type { AdmUnetConfig } from "./adm-unet.js";
import { isObject, limits, listOf, oneOf, real, whole } from "./check-config.js";
import { inside, known } from "./config-file.js";
import type { DdpmUnetConfig } from "./ddpm-unet.js";
import type { DiffuseVaeUnetConfig } from "./diffusevae-unet.js";
import type { DiffusionProcess } from "./diffusion-process.js";
import type { DitConfig } from "./dit.js";
import type { ConfigFile, Fact, FactValues, PipelineFacts, PublishedSampling, PublishedSettings } from "./family.js"; // prettier-ignore
import type { FitConfig } from "./fit.js";
import type { LatentDiffusionUnetConfig } from "./latent-diffusion-unet.js";
import { betaSchedules } from "../processes/gaussian-schedules.js";
import { pathNames } from "../processes/interpolant.js";

const timesteps: Fact = {
  what: "timesteps of the chain (diffusion_steps)",
  rule: whole(2, limits.timesteps),
};
const schedule: Fact = {
  what: `schedule of the chain: ${Object.keys(betaSchedules).join(", ")}`,
  rule: oneOf(...Object.keys(betaSchedules)),
};
const beta = (what: string): Fact => ({ what, rule: real(0, 1) });
const first = beta("first beta of the chain");
const last = beta("last beta of the chain");
const prediction: Fact = { what: "what it predicts: eps, x0 or v", rule: oneOf("eps", "x0", "v") };
const variance: Fact = {
  what: "variance of ancestral steps: fixedSmall, fixedLarge",
  rule: oneOf("fixedSmall", "fixedLarge", "learned", "learnedRange"),
};
const latentScale: Fact = {
  what: "factor of the latents, 1 / their deviation (scale_factor)",
  rule: real(1e-6, 1e6),
};
const size: Fact = {
  what: "height and width of the latents, e.g. [32,32]",
  rule: listOf(whole(1, limits.side), 2, 2),
};

const fixed = (fact: Fact, value: unknown): Fact => ({ ...fact, fixed: value });

const withoutRange = ["cosine", "rescaled-linear", "sigmoid"];

/** The chain and prediction that facts say. */
const gaussian = (facts: FactValues): DiffusionProcess => {
  const range = withoutRange.includes(String(facts["schedule"])) ? [] : ["first", "last"];
  const chain = ["timesteps", "schedule", ...range, "rescaleTimes"]
    .filter((name) => facts[name] !== undefined)
    .map((name) => [name, facts[name]]);
  const rest = ["prediction", "variance", "formulation"]
    .filter((name) => facts[name] !== undefined)
    .map((name) => [name, facts[name]]);
  return {
    kind: "gaussian",
    chain: Object.fromEntries(chain) as { timesteps: number },
    ...Object.fromEntries(rest),
  };
};

/** At most so many steps, of short chains all. */
const atMost = (steps: number, { timesteps = steps }: { timesteps?: unknown }): number =>
  Math.min(steps, timesteps as number);

/** Ancestral steps as openai/guided-diffusion takes them with timestep_respacing 250. */
const respaced = (facts: FactValues): PublishedSampling => ({
  ...{ sampler: "ddpm", steps: atMost(250, facts), spacing: "sections", guidanceScale: 1 },
});

/** Both samplers guide the first three of four channels: Peebles and Xie 2023; Ma et al. 2024. */
const guidedLatents = { guidanceScale: 4, guidanceChannels: 3 } as const;

/** Networks with learned variances are DiT's, those that throw them away SiT's; without any it has to be said. */
const processOf = ({ sigma = "learned" }: { sigma?: string }): FactValues => {
  if (sigma === "learned") return { process: "gaussian", variance: "learnedRange" };
  return sigma === "discarded" ? { process: "interpolant" } : {};
};

const transformerFacts = {
  process: {
    what: "gaussian (a chain of timesteps, as DiT) or interpolant (a path, as SiT)",
    rule: oneOf("gaussian", "interpolant"),
  },
  timesteps: fixed(timesteps, 1000),
  schedule: fixed(schedule, "linear"),
  variance: fixed(variance, "fixedLarge"),
  path: fixed({ what: "path of an interpolant", rule: oneOf(...pathNames) }, "linear"),
  prediction: {
    what: "what it predicts: velocity, score or eps of an interpolant, eps, x0 or v of a chain",
    rule: oneOf("velocity", "score", "eps", "x0", "v"),
    fixed: undefined,
  },
  latentScale: fixed(latentScale, 0.18215),
} as const satisfies Record<string, Fact>;

/** DiT: IDDPM's chain of 1000 linear betas; SiT and FiTv2: straight paths, stochastic steps. */
function transformerSettings(facts: FactValues, isGuided: boolean): PublishedSettings {
  const guidance = isGuided ? guidedLatents : {};
  const scale = facts["latentScale"] as number;
  if (facts["process"] === "gaussian")
    return {
      process: gaussian(facts),
      defaults: { ...respaced(facts), ...guidance },
      latentScale: scale,
    };
  return {
    process: {
      kind: "interpolant",
      path: facts["path"] as "linear",
      ...(facts["prediction"] !== undefined && {
        prediction: facts["prediction"] as "velocity",
      }),
    },
    defaults: { ...respaced({}), sampler: "flow-sde", spacing: "even", ...guidance },
    latentScale: scale,
  };
}

export const ditPipeline: PipelineFacts = {
  facts: transformerFacts,
  decided: processOf,
  settings: (config, facts) =>
    transformerSettings(facts, (config as DitConfig).nullClass !== false),
};

export const fitPipeline: PipelineFacts = {
  facts: { ...transformerFacts, size },
  decided: (config) => {
    const { sigma = "none" } = config as FitConfig;
    return processOf({ sigma: sigma === "none" ? "discarded" : sigma });
  },
  settings: (config, facts) => ({
    ...transformerSettings(facts, (config as FitConfig).nullClass !== false),
    size: facts["size"] as [number, number],
  }),
};

export const admPipeline: PipelineFacts = {
  facts: {
    timesteps,
    schedule,
    prediction: fixed(prediction, "eps"),
    variance: fixed(variance, "fixedLarge"),
    rescaleTimes: {
      what: "whether the network is told times of 1000 steps (of other chains, as improved-diffusion)",
      rule: (value) => (typeof value === "boolean" ? undefined : "true or false"),
      fixed: true,
    },
  },
  decided: (config) => {
    const { imageChannels = 3, outChannels = imageChannels } = config as AdmUnetConfig;
    return outChannels === 2 * imageChannels ? { variance: "learnedRange" } : {};
  },
  settings: (_, facts) => ({
    process: gaussian(facts),
    defaults: { ...respaced(facts), clamp: true, rederive: true },
  }),
};

const whole1000 = { timesteps: fixed(timesteps, 1000) };
const linear = { first: fixed(first, 1e-4), last: fixed(last, 0.02) };

/** Every step of the chain, as Ho et al. 2020 sample. */
const everyStep = (facts: FactValues): PublishedSampling => ({
  ...{ sampler: "ddpm", steps: facts["timesteps"] as number, spacing: "truncated" },
  ...{ guidanceScale: 1, clamp: true },
});

const variances: Readonly<Record<string, string>> = {
  fixedlarge: "fixedLarge",
  fixedsmall: "fixedSmall",
};

/** Yaml of ermongroup/ddim. */
function readDdpm({ diffusion, model }: ConfigFile): Record<string, unknown> | undefined {
  if (!isObject(diffusion) || diffusion["num_diffusion_timesteps"] === undefined) return undefined;
  return known({
    timesteps: diffusion["num_diffusion_timesteps"],
    schedule: diffusion["beta_schedule"],
    first: diffusion["beta_start"],
    last: diffusion["beta_end"],
    variance: isObject(model) ? variances[String(model["var_type"])] : undefined,
  });
}

const diffusersSchedules: Readonly<Record<string, string>> = {
  linear: "linear",
  scaled_linear: "scaled-linear",
  squaredcos_cap_v2: "cosine",
};
const diffusersPredictions: Readonly<Record<string, string>> = {
  epsilon: "eps",
  sample: "x0",
  v_prediction: "v",
};
const diffusersVariances: Readonly<Record<string, string>> = {
  fixed_small: "fixedSmall",
  fixed_large: "fixedLarge",
  learned: "learned",
  learned_range: "learnedRange",
};

/** scheduler_config.json of huggingface/diffusers, with its defaults. */
function readScheduler(file: ConfigFile): Record<string, unknown> | undefined {
  const { num_train_timesteps, beta_schedule = "linear", beta_start = 1e-4, beta_end = 0.02 } = file; // prettier-ignore
  if (num_train_timesteps === undefined) return undefined;
  const name = diffusersSchedules[String(beta_schedule)];
  const range = name === "cosine" ? {} : { first: beta_start, last: beta_end };
  return known({
    ...{ timesteps: num_train_timesteps, schedule: name, ...range },
    prediction: diffusersPredictions[String(file["prediction_type"] ?? "epsilon")],
    variance: diffusersVariances[String(file["variance_type"] ?? "fixed_small")],
  });
}

export const ddpmPipeline: PipelineFacts = {
  facts: {
    ...whole1000,
    ...linear,
    schedule: fixed(schedule, "linear"),
    variance: fixed(variance, "fixedLarge"),
  },
  decided: (config) => {
    const { imageChannels = 3, outChannels = imageChannels } = config as DdpmUnetConfig;
    return outChannels === 2 * imageChannels ? { variance: "learnedRange" } : {};
  },
  readConfig: (file) => readDdpm(file) ?? readScheduler(file),
  settings: (_, facts) => ({ process: gaussian(facts), defaults: everyStep(facts) }),
};

export const diffuseVaePipeline: PipelineFacts = {
  facts: {
    ...whole1000,
    ...linear,
    schedule: fixed(schedule, "linear-float32"),
    variance: fixed(variance, "fixedLarge"),
    formulation: {
      what: "1: the VAE's picture is an input only; 2: it shifts the chain (type form1 or form2)",
      rule: (value) => (value === 1 || value === 2 ? undefined : "1 or 2"),
    },
  },
  decided: (config) =>
    (config as DiffuseVaeUnetConfig).conditional === false ? { formulation: 1 } : {},
  settings: (_, facts) => ({ process: gaussian(facts), defaults: everyStep(facts) }),
};

/** The reference's names: its "linear" is linear in sqrt(beta). */
const compVisSchedules: Readonly<Record<string, string>> = {
  linear: "scaled-linear",
  sqrt_linear: "linear",
  cosine: "cosine",
};

/** A project's yaml: model.params of ddpm.py, with its defaults. */
function readCompVis(file: ConfigFile): Record<string, unknown> | undefined {
  const params = inside(file, "model", "params");
  if (!isObject(params) || !isObject(params["unet_config"])) return undefined;
  return {
    timesteps: params["timesteps"] ?? 1000,
    schedule: compVisSchedules[String(params["beta_schedule"] ?? "linear")],
    first: params["linear_start"] ?? 1e-4,
    last: params["linear_end"] ?? 2e-2,
    prediction: params["parameterization"] ?? "eps",
    latentScale: params["scale_factor"] ?? 1,
  };
}

/** config.json of an AutoencoderKL of huggingface/diffusers. */
const readScale = ({ _class_name: name, scaling_factor }: ConfigFile) =>
  name === "AutoencoderKL" ? { latentScale: scaling_factor ?? 0.18215 } : undefined;

export const latentDiffusionPipeline: PipelineFacts = {
  facts: { timesteps, schedule, first, last, prediction, latentScale },
  readConfig: (file) => readCompVis(file) ?? readScheduler(file) ?? readScale(file),
  settings: (config, facts) => ({
    process: gaussian({ ...facts, variance: "fixedSmall" }),
    defaults: {
      ...{
        sampler: "ddim",
        steps: Math.min(50, (facts["timesteps"] as number) >> 1),
        spacing: "compvis",
      },
      guidanceScale: (config as LatentDiffusionUnetConfig).transformer ? 5 : 1,
    },
    latentScale: facts["latentScale"] as number,
  }),
};

export const divaePipeline: PipelineFacts = {
  facts: { timesteps: fixed(timesteps, 1000), schedule, prediction },
  settings: (_, facts) => ({
    process: gaussian({ ...facts, variance: "fixedSmall" }),
    defaults: {
      sampler: "ddim",
      steps: atMost(25, facts),
      spacing: "trailing",
      guidanceScale: 1,
      clamp: true,
    },
  }),
};

/** Yaml of Stable Diffusion 2. */
function readTextLayer(file: ConfigFile): Record<string, unknown> | undefined {
  const at = inside(file, "model", "params", "cond_stage_config", "params", "layer");
  return at === undefined ? undefined : { textLayer: at };
}

export const openClipPipeline: PipelineFacts = {
  facts: {
    textLayer: {
      what: "layer whose words count: last, or penultimate (Stable Diffusion 2)",
      rule: oneOf("last", "penultimate"),
    },
  },
  readConfig: readTextLayer,
};
