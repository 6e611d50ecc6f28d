// Training of a VQGAN: reconstruction, codebook and commitment terms, dead-code replacement; adversarial and perceptual
// terms with the adaptive weight when asked for. Source: Esser et al. 2021, arXiv:2012.09841.
import { gradients } from "../autodiff/differentiate.js";
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
import {
  adaptiveWeight,
  discriminatorFactor,
  discriminatorLosses,
  generatorLoss,
  l1Loss,
  l2Loss,
  type DiscriminatorLossName,
} from "../processes/adversarial.js";
import type { Buffer } from "../runtime/buffer.js";
import { stopGradient } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { BatchStream } from "./batches.js";
import { splitFrozen, type FrozenSplit } from "./freeze.js";
import type { StepReport, Trainable } from "./loop.js";
import { TrainStep, type LossTerms, type OptimiserOptions, type Values } from "./train-step.js";

/** A perceptual distance of two image batches as a scalar. */
export type PerceptualLoss = (x: Tensor, y: Tensor) => Tensor;

export interface AutoencoderTrainerOptions {
  model: VqganConfig;
  dataset: ImageDataset;
  batchSize: number;
  /** Seed of initial weights, shuffling and restarts; default 0. */
  seed?: number;
  /** Weights and codebook to start from, by name; default: drawn by the seed. */
  initial?: Values;
  /** Weight of the mean absolute error; default 1. */
  l1?: number;
  /** Weight of the mean squared error; default 0. */
  l2?: number;
  /** Weight of the codebook loss; default 1. */
  codebookWeight?: number;
  optimiser?: OptimiserOptions;
  /** Restart codes used less than `threshold` of the mean every `every` steps (moving-average codebooks). 0 = never; default 100. */
  restartEvery?: number;
  augment?: LoaderOptions["augment"];
  /**
   * Parts that stay as they are, by the first words of their names, e.g. ["encoder", "quant_conv"]. "quantize" is the
   * codebook; it also stays when "encoder" and "quant_conv" do, so that every picture keeps its tokens. Default none.
   */
  freeze?: readonly string[];
  /** Off by default. */
  perceptual?: { loss: PerceptualLoss; weight: number };
  /** Off by default. */
  adversarial?: {
    discriminator?: PatchDiscriminatorConfig;
    loss?: DiscriminatorLossName;
    /** Steps before the adversarial terms begin. */
    start: number;
    weight?: number;
  };
}

const adamBetas = [0.5, 0.9] as const; // for adversarial training, as in taming-transformers

/** A VQGAN in training; give it to trainLoop. */
export class AutoencoderTrainer implements Trainable {
  readonly samplesPerStep: number;
  readonly #stream: BatchStream;

  private constructor(
    readonly model: Vqgan,
    readonly options: AutoencoderTrainerOptions,
    /** Parameters and states that stay as they are. */
    readonly frozen: readonly ParamSpec[],
    readonly generator: TrainStep,
    readonly discriminator: TrainStep | undefined,
  ) {
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
      ? patchDiscriminator(options.adversarial.discriminator ?? {}, new ParamScope("discriminator"))
      : undefined;
    const seed = options.seed ?? 0;
    const discriminator = critic && (await discriminatorStep(model, critic, options, seed));
    const split = splitModel(model, options.freeze);
    const generator = await generatorStep(
      { model, critic, split },
      options,
      discriminator?.buffers,
    );
    return new AutoencoderTrainer(model, options, split.frozen, generator, discriminator);
  }

  get #buffers(): Map<string, Buffer> {
    return new Map([
      ...this.generator.buffers,
      ...[...(this.discriminator?.buffers ?? [])].filter(
        ([name]) => !this.generator.buffers.has(name),
      ),
    ]);
  }

  get #configuration(): RunConfiguration {
    const { model, seed = 0, batchSize, optimiser = {}, freeze = [] } = this.options;
    return { model, seed, batchSize, optimiser, ...(freeze.length > 0 && { freeze }) };
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
    const inputs = used.map(({ images }) => ({
      images,
      ...(this.discriminator && { factor: Float32Array.of(factor) }),
    }));
    const { loss, gradNorm, outputs } = await this.generator.run(index, lr, inputs);
    const metrics: Record<string, number> = {
      reconstruction: Number(outputs["reconstruction"]![0]),
      codebook: Number(outputs["codebook"]![0]),
      psnr: 10 * Math.log10(4 / Number(outputs["mse"]![0])),
    };
    if (this.discriminator) {
      const seen = { ...inputs.at(-1)!, generated: outputs["generated"]! };
      metrics["discriminator"] = (await this.discriminator.run(index, lr, [seen])).loss;
    }
    this.#stream.used(used.at(-1)!);
    const warnings = this.#restartDeadCodes(index, {
      latents: outputs["compared"] as Float32Array,
      errors: outputs["errors"] as Float32Array,
    });
    return { loss, gradNorm, metrics, ...(warnings.length > 0 && { warnings }) };
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
    this.discriminator?.dispose();
  }
}

const imageInput = ({ batchSize, model }: AutoencoderTrainerOptions): readonly number[] => [
  batchSize, model.resolution, model.resolution, model.imageChannels ?? 3,
]; // prettier-ignore

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

interface GeneratorParts {
  model: Vqgan;
  critic: PatchDiscriminator | undefined;
  split: FrozenSplit;
}

function generatorStep(
  { model, critic, split: { trained, frozen } }: GeneratorParts,
  options: AutoencoderTrainerOptions,
  shared?: ReadonlyMap<string, Buffer>,
): Promise<TrainStep> {
  const learnsCodes = !frozen.includes(model.quantizer.codebook);
  const loss = (_: unknown, batch: Record<string, Tensor>): LossTerms =>
    autoencoderTerms({ model, critic, learnsCodes }, options, batch);
  return TrainStep.create(
    {
      inputs: { images: { shape: imageInput(options) }, ...(critic && { factor: { shape: [] } }) },
      loss,
      parameters: trained,
      extraState: stateShapes([...model.states, ...frozen]),
      optimiser: { ...(critic && { betas: adamBetas }), ...options.optimiser },
    },
    options.initial ?? initialValues([...model.parameters, ...model.states], options.seed ?? 0),
    shared,
  );
}

/** Reconstruction, codebook and, when asked for, adversarial terms of one batch. */
function autoencoderTerms(
  { model, critic, learnsCodes }: Omit<GeneratorParts, "split"> & { learnsCodes: boolean },
  options: AutoencoderTrainerOptions,
  batch: Record<string, Tensor>,
): LossTerms {
  const { l1 = 1, l2 = 0, codebookWeight = 1, perceptual } = options;
  const images = batch["images"]!;
  const latents = model.encode(images);
  const {
    quantised,
    indices,
    loss: codebook,
    compared,
    errors,
  } = model.quantizer.quantise(latents);
  const output = model.decode(quantised);
  const mse = l2Loss(images, output);
  let reconstruction = l1Loss(images, output).mul(l1).add(mse.mul(l2));
  if (perceptual)
    reconstruction = reconstruction.add(perceptual.loss(images, output).mul(perceptual.weight));
  let loss = reconstruction.add(codebook.mul(codebookWeight));
  if (critic)
    loss = loss.add(
      adversarialTerm(model, critic, options, { output, reconstruction, factor: batch["factor"]! }),
    );
  return {
    loss,
    outputs: {
      reconstruction,
      codebook,
      mse,
      compared,
      errors,
      ...(critic && { generated: output }),
    },
    ...(model.quantizer.averages &&
      learnsCodes && { updates: model.quantizer.updates(latents, indices) }),
  };
}

function adversarialTerm(
  model: Vqgan,
  critic: PatchDiscriminator,
  options: AutoencoderTrainerOptions,
  { output, reconstruction, factor }: { output: Tensor; reconstruction: Tensor; factor: Tensor },
): Tensor {
  const t = output.trace;
  const { logits } = critic.forward(output, { mode: "train", state: critic.state(t) });
  const adversarial = generatorLoss(logits);
  const last = t.parameter(model.parameters.find(({ name }) => name === model.lastLayer)!);
  const [fromReconstruction] = gradients(reconstruction, [last]);
  const [fromCritic] = gradients(adversarial, [last]);
  const weight = adaptiveWeight(fromReconstruction!, fromCritic!, {
    ...(options.adversarial?.weight !== undefined && {
      discriminatorWeight: options.adversarial.weight,
    }),
  });
  return adversarial.mul(weight).mul(factor);
}

/** The discriminator reads the generator's weights of before the step, as both losses of a step do in the reference. */
async function discriminatorStep(
  model: Vqgan,
  critic: PatchDiscriminator,
  options: AutoencoderTrainerOptions,
  seed: number,
): Promise<TrainStep> {
  const lossOf = discriminatorLosses[options.adversarial?.loss ?? "hinge"];
  return TrainStep.create(
    {
      inputs: {
        images: { shape: imageInput(options) },
        factor: { shape: [] },
        generated: { shape: imageInput(options) },
      },
      loss: (t, { images, generated, factor }) => {
        const real = critic.forward(images!, { mode: "train", state: critic.state(t) });
        const fake = critic.forward(stopGradient(generated!), { mode: "train", state: real.state });
        return { loss: lossOf(real.logits, fake.logits).mul(factor!), updates: fake.state };
      },
      parameters: critic.parameters,
      extraState: stateShapes(critic.states),
      optimiser: { betas: adamBetas, ...options.optimiser, accumulate: 1, emaDecay: 0 },
    },
    initialValues([...critic.parameters, ...critic.states], seed),
  );
}
