// Training of a KL autoencoder, the first stage of latent diffusion: what its step reads and its learned log variance. The
// losses stand in autoencoder-loss.ts. Source: Rombach et al. 2021, arXiv:2112.10752, appendix G.
import type { RunConfiguration } from "../checkpoint/training-state.js";
import type { ParamSpec } from "../ir/param.js";
import {
  autoencoderKl,
  type AutoencoderKl,
  type AutoencoderKlConfig,
} from "../models/autoencoder-kl.js";
import type { PatchDiscriminator } from "../models/patch-discriminator.js";
import { initialValues } from "../nn/init.js";
import { ParamScope } from "../nn/module.js";
import type { TensorData } from "../runtime/buffer.js";
import { keyTable } from "../samplers/discrete.js";
import type { Tensor } from "../trace/tensor.js";
import {
  AdversarialTrainer,
  adversarialSteps,
  generatorOptions,
  type AdversarialSteps,
  type AdversarialTrainerOptions,
  type AutoencoderStep,
  type StepSettings,
} from "./adversarial-trainer.js";
import { autoencoderKlTerms, type AutoencoderKlLossOptions } from "./autoencoder-loss.js";
import { splitFrozen } from "./freeze.js";
import { given } from "./given.js";
import type { TrainStepOptions } from "./train-step.js";

export interface AutoencoderKlTrainerOptions
  extends AdversarialTrainerOptions, Pick<AutoencoderKlLossOptions, "klWeight"> {
  model: AutoencoderKlConfig;
  /** First value of the logarithm of the variance of pixels; default 0. */
  logVariance?: number;
  /** Default true. The released code never gave it to the optimiser: false trains as the releases were. */
  learnsLogVariance?: boolean;
}

type Settings = StepSettings<AutoencoderKlTrainerOptions>;

/** A KL autoencoder in training; give it to trainLoop. */
export class AutoencoderKlTrainer extends AdversarialTrainer<AutoencoderKlTrainerOptions> {
  declare readonly model: TrainedKl;
  protected readonly reported = ["reconstruction", "kl", "logVariance"];

  private constructor(
    options: AutoencoderKlTrainerOptions,
    model: TrainedKl,
    steps: AdversarialSteps,
  ) {
    super(options, model, steps);
  }

  static async create(options: AutoencoderKlTrainerOptions): Promise<AutoencoderKlTrainer> {
    const model = autoencoderKl(options.model);
    const start = initialValues([logVarianceOf(options)], 0);
    const initial = options.initial && new Map([...start, ...options.initial]);
    const steps = await adversarialSteps({ ...options, ...(initial && { initial }) }, (critic) =>
      klStep(model, options, critic),
    );
    return new AutoencoderKlTrainer(options, { ...model, states: [] }, steps);
  }

  protected override get decisions(): RunConfiguration {
    const { klWeight = 1e-6, logVariance = 0, learnsLogVariance = true } = this.options;
    return { ...super.decisions, loss: { klWeight, logVariance, learnsLogVariance } };
  }

  protected values(step: number, part: number): Record<string, TensorData> {
    const { seed = 0, batchSize } = this.options;
    return { key: keyTable(seed, part * batchSize, step, batchSize) };
  }

  protected reconstruct(images: Tensor): Tensor {
    return this.model.decode(this.model.encode(images).mean);
  }
}

type TrainedKl = AutoencoderKl & { states: readonly ParamSpec[] };

/** By the name that the reference gives it. */
const logVarianceOf = ({ logVariance: value = 0 }: Settings): ParamSpec =>
  new ParamScope("loss").param("logvar", [], { kind: "constant", value });

function klStep(
  model: AutoencoderKl,
  options: Settings,
  critic: PatchDiscriminator | undefined,
): AutoencoderStep {
  const { batchSize, freeze = [] } = options;
  const logVariance = logVarianceOf(options);
  const split = splitFrozen(model, freeze);
  const learns = options.learnsLogVariance ?? true;
  const loss: AutoencoderKlLossOptions = {
    ...given(options, "klWeight", "perceptual"),
    ...(critic && { critic: { model: critic, ...given(options.adversarial!, "weight") } }),
  };
  return {
    inputs: { key: { shape: [batchSize, 4], dtype: "i32" } },
    loss: (batch) => autoencoderKlTerms(model, logVariance, batch, loss),
    trained: [...split.trained, ...(learns ? [logVariance] : [])],
    kept: [...split.frozen, ...(learns ? [] : [logVariance])],
  };
}

/** The step of the autoencoder. */
export const klGeneratorStepOptions = (
  model: AutoencoderKl,
  options: Settings,
  critic?: PatchDiscriminator,
): TrainStepOptions => generatorOptions(options, klStep(model, options, critic));
