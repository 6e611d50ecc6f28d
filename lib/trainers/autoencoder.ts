// Training of a VQGAN: the steps of generator and discriminator, dead-code replacement, saving and resuming. The losses
// stand in autoencoder-loss.ts. Source: Esser et al. 2021, arXiv:2012.09841.
import {
  loadTrainingState,
  saveTrainingState,
  type RunConfiguration,
} from "../checkpoint/training-state.js";
import type { ImageDataset } from "../data/dataset.js";
import type { Batch, LoaderOptions } from "../data/loader.js";
import type { ParamSpec } from "../ir/param.js";
import {
  patchDiscriminator,
  type PatchDiscriminator,
  type PatchDiscriminatorConfig,
} from "../models/patch-discriminator.js";
import { replaceDeadCodes } from "../models/vector-quantizer.js";
import { vqgan, type Vqgan, type VqganConfig } from "../models/vqgan.js";
import { initialValues } from "../nn/init.js";
import { ParamScope } from "../nn/module.js";
import { uniformStream } from "../nn/random.js";
import { discriminatorFactor, type DiscriminatorLossName } from "../processes/adversarial.js";
import { Buffer } from "../runtime/buffer.js";
import {
  autoencoderTerms,
  discriminatorTerms,
  type AutoencoderLossOptions,
} from "./autoencoder-loss.js";
import { BatchStream } from "./batches.js";
import { initialiseCritic } from "./critic-start.js";
import { splitFrozen, type FrozenSplit } from "./freeze.js";
import type { StepReport, Trainable } from "./loop.js";
import type { PerceptualTerm } from "./perceptual-term.js";
import { foreignTokens } from "./token-mix.js";
import {
  TrainStep,
  type OptimiserOptions,
  type TrainStepOptions,
  type Values,
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

export interface AutoencoderTrainerOptions extends Pick<
  AutoencoderLossOptions,
  "l1" | "l2" | "codebookWeight" | "perceptual"
> {
  model: VqganConfig;
  dataset: ImageDataset;
  batchSize: number;
  /** Seed of initial weights, shuffling and restarts; default 0. */
  seed?: number;
  /** Weights and codebook to start from, by name; default: drawn by the seed. */
  initial?: Values;
  optimiser?: OptimiserOptions;
  /** Restart codes used less than `threshold` of the mean every `every` steps (moving-average codebooks). 0 = never; default 100. */
  restartEvery?: number;
  augment?: LoaderOptions["augment"];
  /**
   * Parts that stay as they are, by the first words of their names, e.g. ["encoder", "quant_conv"]. "quantize" is the
   * codebook; it also stays when "encoder" and "quant_conv" do, so that every picture keeps its tokens. Default none.
   */
  freeze?: readonly string[];
  /** Share of the pictures that get a rectangle of tokens of another one, for local tokens; default 0. Wants batches of 2 or more. */
  tokenMix?: number;
  /** Less memory for more time, same results; default false. */
  rematerialise?: boolean;
  /** Instruction set, or "ref"; default the best that the machine has. */
  isa?: string;
  /** Off by default. */
  adversarial?: AdversarialOptions;
}

const adamBetas = [0.5, 0.9] as const; // for adversarial training, as in taming-transformers

/** A VQGAN in training; give it to trainLoop. */
export class AutoencoderTrainer implements Trainable {
  readonly model: Vqgan;
  readonly options: AutoencoderTrainerOptions;
  /** Parameters and states that stay as they are. */
  readonly frozen: readonly ParamSpec[];
  readonly samplesPerStep: number;
  readonly #fixed: ReadonlyMap<string, Buffer>;
  readonly #stream: BatchStream;

  private constructor(
    parts: {
      model: Vqgan;
      options: AutoencoderTrainerOptions;
      frozen: readonly ParamSpec[];
      fixed: ReadonlyMap<string, Buffer>;
    },
    readonly generator: TrainStep,
    readonly discriminator: { critic: PatchDiscriminator; step: TrainStep } | undefined,
  ) {
    const { model, options, frozen, fixed } = parts;
    this.model = model;
    this.options = options;
    this.frozen = frozen;
    this.#fixed = fixed;
    this.samplesPerStep = options.batchSize * (options.optimiser?.accumulate ?? 1);
    this.#stream = new BatchStream(options.dataset, {
      batchSize: options.batchSize,
      seed: options.seed ?? 0,
      ...(options.augment && { augment: options.augment }),
    });
  }

  static async create(options: AutoencoderTrainerOptions): Promise<AutoencoderTrainer> {
    const model = vqgan(options.model);
    const critic = options.adversarial
      ? patchDiscriminator(options.adversarial.discriminator, new ParamScope("discriminator"))
      : undefined;
    const values = (specs: readonly ParamSpec[]): Values => initialValues(specs, options.seed ?? 0);
    const split = splitModel(model, options.freeze);
    const fixed = fixedBuffers(options.perceptual);
    const discriminator =
      critic &&
      (await TrainStep.create(
        discriminatorStepOptions(model, critic, options),
        values([...critic.parameters, ...critic.states]),
      ));
    const generator = await TrainStep.create(
      generatorStepOptions(model, options, { split, ...(critic && { critic }) }),
      options.initial ?? values([...model.parameters, ...model.states]),
      new Map([...(discriminator?.buffers ?? []), ...fixed]),
    );
    const game = critic && discriminator && { critic, step: discriminator };
    return new AutoencoderTrainer({ model, options, frozen: split.frozen, fixed }, generator, game);
  }

  get #buffers(): Map<string, Buffer> {
    return new Map([
      ...this.generator.buffers,
      ...[...(this.discriminator?.step.buffers ?? [])].filter(
        ([name]) => !this.generator.buffers.has(name),
      ),
    ]);
  }

  get #configuration(): RunConfiguration {
    const { model, seed = 0, batchSize, optimiser = {}, freeze = [] } = this.options;
    const { adversarial, perceptual } = this.options;
    return {
      model,
      seed,
      batchSize,
      optimiser,
      ...(freeze.length > 0 && { freeze }),
      ...(adversarial && { adversarial }),
      ...(perceptual && { perceptual: { weight: perceptual.weight } }),
    };
  }

  async prefetch(): Promise<Batch[]> {
    const batches: Batch[] = [];
    for (let i = 0; i < (this.options.optimiser?.accumulate ?? 1); ++i)
      batches.push(await this.#stream.next());
    return batches;
  }

  async step(index: number, lr: number, batches: unknown): Promise<StepReport> {
    const used = batches as Batch[];
    const factor = this.options.adversarial
      ? discriminatorFactor(index, this.options.adversarial.start)
      : 0;
    const inputs = used.map(({ images }, i) => ({
      images,
      ...(this.#mixes && { foreign: this.#foreign(`${index}.${i}`) }),
      ...(this.discriminator && { factor: Float32Array.of(factor) }),
    }));
    if (index === 0) await this.#initialiseCritic(inputs[0]!);
    const { loss, gradNorm, outputs } = await this.generator.run(index, lr, inputs);
    const metrics: Record<string, number> = {
      reconstruction: Number(outputs["reconstruction"]![0]),
      codebook: Number(outputs["codebook"]![0]),
      psnr: 10 * Math.log10(4 / Number(outputs["mse"]![0])),
    };
    if (this.discriminator) {
      const seen = { ...inputs.at(-1)!, generated: outputs["generated"]! };
      metrics["discriminator"] = (await this.discriminator.step.run(index, lr, [seen])).loss;
    }
    this.#stream.used(used.at(-1)!);
    const warnings = this.#restartDeadCodes(index, {
      latents: outputs["compared"] as Float32Array,
      errors: outputs["errors"] as Float32Array,
    });
    return { loss, gradNorm, metrics, ...(warnings.length > 0 && { warnings }) };
  }

  async #initialiseCritic(batch: Record<string, Float32Array>): Promise<void> {
    if (this.discriminator?.critic.config.norm !== "act") return;
    const buffers = new Map([...this.generator.buffers, ...this.discriminator.step.buffers]);
    await initialiseCritic(this.model, this.discriminator.critic, buffers, batch["images"]!);
  }

  get #mixes(): boolean {
    return (this.options.tokenMix ?? 0) > 0;
  }

  #foreign(stream: string): Float32Array {
    const { tokenMix = 0, seed = 0, batchSize } = this.options;
    const shape = foreignShape(this.model, batchSize);
    return foreignTokens(tokenMix, shape, { seed, stream: `tokenMix.${stream}` });
  }

  /** Gives codes that the averages call unused to latents of this batch; in the first step of new weights all. */
  #restartDeadCodes(
    index: number,
    batch: { latents: Float32Array; errors: Float32Array },
  ): string[] {
    const every = this.options.restartEvery ?? 100;
    const { codebook, averages } = this.model.quantizer;
    const isFirst = index === 0 && !this.options.initial;
    if (!averages || every === 0 || (!isFirst && (index + 1) % every !== 0)) return [];
    if (this.frozen.includes(codebook)) return [];
    const read = (spec: ParamSpec): Float32Array =>
      this.generator.buffers.get(spec.name)!.read() as Float32Array;
    const draws = uniformStream(
      this.options.seed ?? 0,
      `restart.${index}`,
      4 * this.model.quantizer.config.codes,
    );
    let next = 0;
    const {
      codebook: rows,
      counts,
      replaced,
    } = replaceDeadCodes(read(codebook), read(averages.counts), batch, {
      random: () => draws[next++ % draws.length]!,
      ...(isFirst && { threshold: Infinity }),
    });
    if (replaced.length === 0) return [];
    const D = this.model.quantizer.config.width;
    this.generator.buffers.get(codebook.name)!.write(rows);
    this.generator.buffers.get(averages.counts.name)!.write(counts);
    this.generator.buffers
      .get(averages.sums.name)!
      .write(rows.map((v, i) => v * counts[Math.floor(i / D)]!));
    return isFirst ? [] : [`restarted ${replaced.length} unused codes`];
  }

  async save(path: string, done: number): Promise<void> {
    const { cursor } = this.#stream;
    await saveTrainingState(path, this.#buffers, this.#configuration, { done, cursor });
  }

  async restore(path: string): Promise<number> {
    const { done, cursor } = await loadTrainingState(path, this.#buffers, {
      configuration: this.#configuration,
    });
    this.#stream.seek(cursor);
    return done;
  }

  /** Current weights and codebook by name; the averaged weights when they are kept. */
  weights(): Map<string, Float32Array> {
    const { buffers } = this.generator;
    const specs = [...this.model.parameters, ...this.model.states];
    return new Map(
      specs.map(({ name }) => [
        name,
        (buffers.get(`ema.${name}`) ?? buffers.get(name)!).read() as Float32Array,
      ]),
    );
  }

  dispose(): void {
    this.generator.dispose();
    this.discriminator?.step.dispose();
    this.#fixed.forEach((buffer) => buffer.dispose());
  }
}

const imageInput = ({ batchSize, model }: StepSettings): readonly number[] => [
  batchSize, model.resolution, model.resolution, model.imageChannels ?? 3,
]; // prettier-ignore

/** Weights that a perceptual loss reads; they are no part of the training state. */
const fixedBuffers = (term: PerceptualTerm | undefined): Map<string, Buffer> =>
  new Map(
    term?.fixed?.specs.map(({ name, shape }) => [
      name,
      Buffer.fromArray(term.fixed!.values.get(name)!, "f32", shape, name),
    ]),
  );

const codePath = ["encoder.", "quant_conv."];

/** What is trained; a codebook whose latents do not change stays with them. */
function splitModel(model: Vqgan, freeze: readonly string[] = []): FrozenSplit {
  const chosen = splitFrozen(model, freeze);
  const movesLatents = chosen.trained.some(({ name }) =>
    codePath.some((part) => name.startsWith(part)),
  );
  return movesLatents ? chosen : splitFrozen(model, [...freeze, "quantize"]);
}

const stateShapes = (specs: readonly ParamSpec[]): Record<string, { shape: readonly number[] }> =>
  Object.fromEntries(specs.map(({ name, shape }) => [name, { shape }]));

const foreignShape = (model: Vqgan, batchSize: number): readonly [number, number, number] => {
  const side = model.config.resolution / model.stride;
  return [batchSize, side, side];
};

type StepInputs = TrainStepOptions["inputs"];

/** Pictures, where they take tokens of another one, and whether the game has begun. */
const inputSpecs = (model: Vqgan, options: StepSettings): StepInputs => ({
  images: { shape: imageInput(options) },
  ...(options.tokenMix && { foreign: { shape: foreignShape(model, options.batchSize) } }),
  ...(options.adversarial && { factor: { shape: [] } }),
});

interface GeneratorParts {
  critic?: PatchDiscriminator;
  /** What is trained; default by `options.freeze`. */
  split?: FrozenSplit;
}

/** What a step needs to know of a training. */
export type StepSettings = Omit<AutoencoderTrainerOptions, "dataset">;

/** The step of the autoencoder. */
export function generatorStepOptions(
  model: Vqgan,
  options: StepSettings,
  { critic, split = splitModel(model, options.freeze) }: GeneratorParts = {},
): TrainStepOptions {
  const { l1, l2, codebookWeight, perceptual, adversarial } = options;
  const weight = adversarial?.weight;
  const loss: AutoencoderLossOptions = {
    learnsCodes: !split.frozen.includes(model.quantizer.codebook),
    ...(l1 !== undefined && { l1 }),
    ...(l2 !== undefined && { l2 }),
    ...(codebookWeight !== undefined && { codebookWeight }),
    ...(perceptual && { perceptual }),
    ...(critic && { critic: { model: critic, ...(weight !== undefined && { weight }) } }),
  };
  return {
    inputs: inputSpecs(model, options),
    loss: (_, batch) => autoencoderTerms(model, batch, loss),
    parameters: split.trained,
    extraState: stateShapes([...model.states, ...split.frozen]),
    optimiser: { ...(critic && { betas: adamBetas }), ...options.optimiser },
    ...placementOf(options),
  };
}

/** How a step is compiled. */
const placementOf = ({
  rematerialise,
  isa,
}: StepSettings): Pick<TrainStepOptions, "rematerialise" | "isa"> => ({
  ...(rematerialise !== undefined && { rematerialise }),
  ...(isa !== undefined && { isa }),
});

/** The step of the discriminator; it reads what the generator gave before its own update of the same step. */
export function discriminatorStepOptions(
  model: Vqgan,
  critic: PatchDiscriminator,
  options: StepSettings,
): TrainStepOptions {
  return {
    inputs: { ...inputSpecs(model, options), generated: { shape: imageInput(options) } },
    loss: (_, batch) => discriminatorTerms(critic, batch, options.adversarial?.loss),
    parameters: critic.parameters,
    extraState: stateShapes(critic.states),
    optimiser: { betas: adamBetas, ...options.optimiser, accumulate: 1, emaDecay: 0 },
    ...placementOf(options),
  };
}
