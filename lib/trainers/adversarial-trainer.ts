// Training of an autoencoder, with or without a game against a discriminator: both steps, the first values of ActNorm and
// the fixed weights of a perceptual term. What a kind of autoencoder adds stands in a subclass. Source: Esser et al. 2021,
// arXiv:2012.09841, section 3.1.
import type { RunConfiguration } from "../checkpoint/training-state.js";
import type { Batch } from "../data/loader.js";
import type { ParamSpec } from "../ir/param.js";
import {
  patchDiscriminator,
  type PatchDiscriminator,
  type PatchDiscriminatorConfig,
} from "../models/patch-discriminator.js";
import { initialValues } from "../nn/init.js";
import { ParamScope } from "../nn/module.js";
import { discriminatorFactor, type DiscriminatorLossName } from "../processes/adversarial.js";
import { Buffer, type TensorData } from "../runtime/buffer.js";
import type { Tensor } from "../trace/tensor.js";
import { discriminatorTerms, type AutoencoderBatch } from "./autoencoder-loss.js";
import { initialiseCritic } from "./critic-start.js";
import { given } from "./given.js";
import type { StepReport } from "./loop.js";
import type { PerceptualTerm } from "./perceptual-term.js";
import type { TaskTrainerOptions } from "./task-trainer.js";
import { TrainingRun } from "./training-run.js";
import {
  TrainStep,
  type LossTerms,
  type StepOutputs,
  type TrainStepOptions,
} from "./train-step.js";

/** The game against a discriminator. */
export interface AdversarialOptions {
  discriminator?: PatchDiscriminatorConfig;
  /** Default "hinge". */
  loss?: DiscriminatorLossName;
  /** Steps before the adversarial terms begin. */
  start: number;
  /** Factor of the adaptive weight; default 0.8. */
  weight?: number;
}

export interface AdversarialTrainerOptions extends Omit<TaskTrainerOptions, "task"> {
  /** Pictures have this side and these channels. */
  model: { resolution: number; imageChannels?: number };
  /** Off by default. */
  adversarial?: AdversarialOptions;
  /** Off by default. */
  perceptual?: PerceptualTerm;
}

/** What a step needs to know of a training. */
export type StepSettings<Options extends AdversarialTrainerOptions> = Omit<Options, "dataset">;

const adamBetas = [0.5, 0.9] as const; // for adversarial training, as in taming-transformers

export const imageShape = ({
  batchSize,
  model,
}: StepSettings<AdversarialTrainerOptions>): readonly number[] => [
  batchSize, model.resolution, model.resolution, model.imageChannels ?? 3,
]; // prettier-ignore

/** The model that a run trains. */
export interface TrainedModel {
  /** Plain data that decides it. */
  config: unknown;
  parameters: readonly ParamSpec[];
  states?: readonly ParamSpec[];
}

/** Shapes of states and frozen parameters, as a step wants them. */
const stateShapes = (specs: readonly ParamSpec[]): Record<string, { shape: readonly number[] }> =>
  Object.fromEntries(specs.map(({ name, shape }) => [name, { shape }]));

type StepInputs = TrainStepOptions["inputs"];

/** What a kind of autoencoder brings to its step. */
export interface AutoencoderStep {
  /** Inputs beyond pictures and the factor of the game. */
  inputs: StepInputs;
  loss: (batch: AutoencoderBatch) => LossTerms;
  trained: readonly ParamSpec[];
  /** States and frozen parameters. */
  kept: readonly ParamSpec[];
}

const inputSpecs = (
  settings: StepSettings<AdversarialTrainerOptions>,
  own: StepInputs,
): StepInputs => ({
  images: { shape: imageShape(settings) },
  ...own,
  ...(settings.adversarial && { factor: { shape: [] } }),
});

/** The step of an autoencoder. */
export function generatorOptions(
  settings: StepSettings<AdversarialTrainerOptions>,
  { inputs, loss, trained, kept }: AutoencoderStep,
): TrainStepOptions {
  return {
    inputs: inputSpecs(settings, inputs),
    loss: (_, batch) => loss(batch),
    parameters: trained,
    extraState: stateShapes(kept),
    optimiser: { ...(settings.adversarial && { betas: adamBetas }), ...settings.optimiser },
    ...given(settings, "rematerialise", "isa"),
  };
}

/** The step of the discriminator; it reads what the generator gave before its own update of the same step. */
export function discriminatorOptions(
  settings: StepSettings<AdversarialTrainerOptions>,
  critic: PatchDiscriminator,
  own: StepInputs,
): TrainStepOptions {
  return {
    inputs: { ...inputSpecs(settings, own), generated: { shape: imageShape(settings) } },
    loss: (_, batch) => discriminatorTerms(critic, batch, settings.adversarial?.loss),
    parameters: critic.parameters,
    extraState: stateShapes(critic.states),
    optimiser: { betas: adamBetas, ...settings.optimiser, accumulate: 1, emaDecay: 0 },
    ...given(settings, "rematerialise", "isa"),
  };
}

/** The discriminator of a training, if it has one. */
export const criticOf = ({
  adversarial,
}: Pick<AdversarialTrainerOptions, "adversarial">): PatchDiscriminator | undefined =>
  adversarial && patchDiscriminator(adversarial.discriminator, new ParamScope("discriminator"));

/** Weights that a perceptual loss reads; they are no part of the training state. */
const fixedBuffers = (term: PerceptualTerm | undefined): Map<string, Buffer> =>
  new Map(
    term?.fixed?.specs.map(({ name, shape }) => [
      name,
      Buffer.fromArray(term.fixed!.values.get(name)!, "f32", shape, name),
    ]),
  );

/** Compiled steps and the buffers that both share. */
export interface AdversarialSteps {
  generator: TrainStep;
  discriminator: { critic: PatchDiscriminator; step: TrainStep } | undefined;
  fixed: ReadonlyMap<string, Buffer>;
}

/** Compiles the steps; `step` is told the discriminator. */
export async function adversarialSteps(
  options: AdversarialTrainerOptions,
  step: (critic: PatchDiscriminator | undefined) => AutoencoderStep,
): Promise<AdversarialSteps> {
  const { seed = 0, initial } = options;
  const critic = criticOf(options);
  const own = step(critic);
  const fixed = fixedBuffers(options.perceptual);
  const discriminator = critic && {
    critic,
    step: await TrainStep.create(
      discriminatorOptions(options, critic, own.inputs),
      initialValues([...critic.parameters, ...critic.states], seed),
    ),
  };
  const generator = await TrainStep.create(
    generatorOptions(options, own),
    initial ?? initialValues([...own.trained, ...own.kept], seed),
    new Map([...(discriminator?.step.buffers ?? []), ...fixed]),
  );
  return { generator, discriminator, fixed };
}

export abstract class AdversarialTrainer<
  Options extends AdversarialTrainerOptions,
> extends TrainingRun<Options> {
  readonly generator: TrainStep;
  readonly discriminator: AdversarialSteps["discriminator"];
  readonly #fixed: ReadonlyMap<string, Buffer>;

  protected constructor(
    options: Options,
    readonly model: TrainedModel,
    steps: AdversarialSteps,
  ) {
    super(options, { ...model, configuration: { model: model.config } });
    this.generator = steps.generator;
    this.discriminator = steps.discriminator;
    this.#fixed = steps.fixed;
  }

  /** Values of the step's own inputs. */
  protected abstract values(step: number, part: number): Record<string, TensorData>;

  /** Names of the scalar outputs to report. */
  protected abstract readonly reported: readonly string[];

  /** Pictures -> what the decoder makes of them, for the first values of the discriminator. */
  protected abstract reconstruct(images: Tensor): Tensor;

  /** What is to be done with the outputs of a step; returns warnings. */
  protected afterStep?(step: number, outputs: StepOutputs["outputs"]): string[];

  protected get buffers(): ReadonlyMap<string, Buffer> {
    return new Map([...(this.discriminator?.step.buffers ?? []), ...this.generator.buffers]);
  }

  protected override get decisions(): RunConfiguration {
    const { perceptual } = this.options;
    return {
      ...given(this.options, "adversarial"),
      ...(perceptual && { perceptual: { weight: perceptual.weight } }),
    };
  }

  prefetch(): Promise<Batch[]> {
    return this.stream.take(this.parts);
  }

  async step(index: number, lr: number, batches: unknown): Promise<StepReport> {
    const used = batches as Batch[];
    const { adversarial } = this.options;
    const factor = adversarial && Float32Array.of(discriminatorFactor(index, adversarial.start));
    const inputs = used.map(({ images }, part) => ({
      images,
      ...this.values(index, part),
      ...(factor && { factor }),
    }));
    if (index === 0) await this.#initialiseCritic(used[0]!.images);
    const { loss, gradNorm, outputs } = await this.generator.run(index, lr, inputs);
    const scalar = (name: string): number => Number(outputs[name]![0]);
    const metrics: Record<string, number> = {
      ...Object.fromEntries(this.reported.map((name) => [name, scalar(name)])),
      psnr: 10 * Math.log10(4 / scalar("mse")),
    };
    if (this.discriminator) {
      const seen = { ...inputs.at(-1)!, generated: outputs["generated"]! };
      metrics["discriminator"] = (await this.discriminator.step.run(index, lr, [seen])).loss;
    }
    this.stream.used(used.at(-1)!);
    const warnings = this.afterStep?.(index, outputs) ?? [];
    return { loss, gradNorm, metrics, ...(warnings.length > 0 && { warnings }) };
  }

  async #initialiseCritic(images: Float32Array): Promise<void> {
    if (this.discriminator?.critic.config.norm !== "act") return;
    const { critic, step } = this.discriminator;
    await initialiseCritic(critic, {
      buffers: new Map([...this.buffers, ...step.buffers]),
      images,
      shape: imageShape(this.options),
      reconstruct: (pictures) => this.reconstruct(pictures),
    });
  }

  dispose(): void {
    this.generator.dispose();
    this.discriminator?.step.dispose();
    this.#fixed.forEach((buffer) => buffer.dispose());
  }
}
