// Training of a VQGAN, with nearest, averaged or Gumbel codes: what its step reads, dead-code replacement and the schedule
// of temperatures. The losses stand in autoencoder-loss.ts. Source: Esser et al. 2021, arXiv:2012.09841; Jang et al. 2016,
// arXiv:1611.01144.
import type { RunConfiguration } from "../checkpoint/training-state.js";
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { checkFields, real, whole, type Rule } from "../models/check-config.js";
import type { PatchDiscriminator } from "../models/patch-discriminator.js";
import { vqgan, type Vqgan, type VqganConfig } from "../models/vqgan.js";
import type { TensorData } from "../runtime/buffer.js";
import { keyTable } from "../samplers/discrete.js";
import type { Tensor } from "../trace/tensor.js";
import {
  AdversarialTrainer,
  adversarialSteps,
  generatorOptions,
  discriminatorOptions,
  type AdversarialSteps,
  type AdversarialTrainerOptions,
  type AutoencoderStep,
  type StepSettings,
} from "./adversarial-trainer.js";
import { autoencoderTerms, type AutoencoderLossOptions } from "./autoencoder-loss.js";
import { splitFrozen, type FrozenSplit } from "./freeze.js";
import { given } from "./given.js";
import { restartDeadCodes } from "./restart-codes.js";
import { foreignTokens } from "./token-mix.js";
import type { StepOutputs, TrainStepOptions } from "./train-step.js";

/** Half a cosine between two temperatures; the last one stays. The release: 0.9 to 1e-6 in 1,000,001 steps. */
export interface TemperatureSchedule {
  from: number;
  to: number;
  steps: number;
}

/** Temperature of step `index`, from 0. */
export const temperatureAt = ({ from, to, steps }: TemperatureSchedule, index: number): number =>
  to + 0.5 * (from - to) * (1 + Math.cos(Math.PI * Math.min(1, index / steps)));

export interface AutoencoderTrainerOptions
  extends AdversarialTrainerOptions, Pick<AutoencoderLossOptions, "l1" | "l2" | "codebookWeight"> {
  model: VqganConfig;
  /** Restart codes used less than `threshold` of the mean every `every` steps (moving-average codebooks). 0 = never; default 100. */
  restartEvery?: number;
  /**
   * Parts that stay as they are, by the first words of their names, e.g. ["encoder", "quant_conv"]. "quantize" is the
   * codebook; it also stays when "encoder" and "quant_conv" do, so that every picture keeps its tokens. Default none.
   */
  freeze?: readonly string[];
  /** Share of the pictures that get a rectangle of tokens of another one, for local tokens; default 0. Wants batches of 2 or more. */
  tokenMix?: number;
  /** Of Gumbel codes; default: the quantizer's temperature throughout. */
  temperature?: TemperatureSchedule;
}

type Settings = StepSettings<AutoencoderTrainerOptions>;

/** A VQGAN in training; give it to trainLoop. */
export class AutoencoderTrainer extends AdversarialTrainer<AutoencoderTrainerOptions> {
  declare readonly model: Vqgan;
  /** Parameters and states that stay as they are. */
  readonly frozen: readonly ParamSpec[];
  protected readonly reported = ["reconstruction", "codebook"];

  private constructor(
    options: AutoencoderTrainerOptions,
    model: Vqgan,
    parts: { steps: AdversarialSteps; frozen: readonly ParamSpec[] },
  ) {
    super(options, model, parts.steps);
    this.frozen = parts.frozen;
  }

  static async create(options: AutoencoderTrainerOptions): Promise<AutoencoderTrainer> {
    const model = vqgan(options.model);
    checkTemperature("train: temperature", options);
    const split = splitModel(model, options.freeze);
    const steps = await adversarialSteps(options, (critic) =>
      vqganStep(model, options, { split, ...(critic && { critic }) }),
    );
    return new AutoencoderTrainer(options, model, { steps, frozen: split.frozen });
  }

  protected override get decisions(): RunConfiguration {
    return { ...super.decisions, ...given(this.options, "temperature") };
  }

  protected values(step: number, part: number): Record<string, TensorData> {
    const { tokenMix = 0, seed = 0, batchSize, temperature, model } = this.options;
    const stream = `tokenMix.${step}.${part}`;
    const shape = foreignShape(this.model, batchSize);
    return {
      ...(tokenMix > 0 && { foreign: foreignTokens(tokenMix, shape, { seed, stream }) }),
      ...(this.model.gumbel && {
        key: keyTable(seed, part * batchSize, step, batchSize),
        temperature: Float32Array.of(
          temperature ? temperatureAt(temperature, step) : (gumbelTemperature(model) ?? 1),
        ),
      }),
    };
  }

  protected reconstruct(images: Tensor): Tensor {
    return this.model.decode(this.model.quantizer.quantise(this.model.encode(images)).quantised);
  }

  protected override afterStep(step: number, outputs: StepOutputs["outputs"]): string[] {
    const { codebook, averages } = this.model.quantizer;
    if (!averages || this.frozen.includes(codebook)) return [];
    const { seed = 0, restartEvery: every = 100, initial } = this.options;
    const batch = {
      latents: outputs["compared"] as Float32Array,
      errors: outputs["errors"] as Float32Array,
    };
    const options = { seed, step, every, isNew: !initial };
    return restartDeadCodes({ codebook, averages }, this.generator.buffers, batch, options);
  }
}

const gumbelTemperature = ({ quantizer }: VqganConfig): number | undefined =>
  "temperature" in quantizer ? quantizer.temperature : undefined;

const temperatureRules: Readonly<Record<keyof TemperatureSchedule, Rule>> = {
  from: real(1e-9, 1e6),
  to: real(1e-9, 1e6),
  steps: whole(1, 1e9),
};

/** Throws "option" for a schedule that is none, or that the quantizer has no use for. */
export function checkTemperature(
  where: string,
  { model, temperature }: Pick<AutoencoderTrainerOptions, "model" | "temperature">,
): void {
  if (!temperature) return;
  checkFields(where, temperature, temperatureRules);
  if (!("kind" in model.quantizer))
    throw new DiffusionError(
      "option",
      `${where}: expected a quantizer of kind "gumbel", got one of nearest codes`,
    );
}

const codePath = ["encoder.", "quant_conv."];

/** What is trained; a codebook whose latents do not change stays with them. */
function splitModel(model: Vqgan, freeze: readonly string[] = []): FrozenSplit {
  const chosen = splitFrozen(model, freeze);
  const movesLatents = chosen.trained.some(({ name }) =>
    codePath.some((part) => name.startsWith(part)),
  );
  return movesLatents ? chosen : splitFrozen(model, [...freeze, "quantize"]);
}

const foreignShape = (model: Vqgan, batchSize: number): readonly [number, number, number] => {
  const side = model.config.resolution / model.stride;
  return [batchSize, side, side];
};

/** Where pictures take tokens of another one, and what Gumbel codes are drawn with. */
const ownInputs = (
  model: Vqgan,
  { tokenMix, batchSize }: Settings,
): TrainStepOptions["inputs"] => ({
  ...(tokenMix && { foreign: { shape: foreignShape(model, batchSize) } }),
  ...(model.gumbel && {
    key: { shape: [batchSize, 4], dtype: "i32" as const },
    temperature: { shape: [] },
  }),
});

interface GeneratorParts {
  critic?: PatchDiscriminator;
  /** What is trained; default by `options.freeze`. */
  split?: FrozenSplit;
}

function vqganStep(
  model: Vqgan,
  options: Settings,
  { critic, split = splitModel(model, options.freeze) }: GeneratorParts,
): AutoencoderStep {
  const loss: AutoencoderLossOptions = {
    learnsCodes: !split.frozen.includes(model.quantizer.codebook),
    ...given(options, "l1", "l2", "codebookWeight", "perceptual"),
    ...(critic && { critic: { model: critic, ...given(options.adversarial!, "weight") } }),
  };
  return {
    inputs: ownInputs(model, options),
    loss: (batch) => autoencoderTerms(model, batch, loss),
    trained: split.trained,
    kept: [...model.states, ...split.frozen],
  };
}

/** The step of the autoencoder. */
export const generatorStepOptions = (
  model: Vqgan,
  options: Settings,
  parts: GeneratorParts = {},
): TrainStepOptions => generatorOptions(options, vqganStep(model, options, parts));

/** The step of its discriminator. */
export const discriminatorStepOptions = (
  model: Vqgan,
  critic: PatchDiscriminator,
  options: Settings,
): TrainStepOptions => discriminatorOptions(options, critic, ownInputs(model, options));
