// A continuous diffusion model ready to use: classes, prompts or nothing in, pictures out, by any sampler. Latent diffusion,
// DiT, SiT, ADM, DDPM, DiffuseVAE (a VAE's picture refined) and DiVAE (a tokenizer's codes decoded) are the same loop.
import { DiffusionError } from "../errors.js";
import type { ByteImage, GenerationMetadata, Image } from "../image/image-io.js";
import { shown } from "../models/check-config.js";
import type { Quantize } from "../runtime/program.js";
import { SessionCache } from "../runtime/session-cache.js";
import { classAttribute } from "../trainers/condition-rows.js";
import { checkDiffusionSampling, type DiffusionSampling } from "../trainers/diffusion-sampling.js";
import { given } from "../trainers/given.js";
import { batchConditions, checkClasses, type ConditionParts } from "./batch-conditions.js";
import { classifierPlace, denoise, type DenoiseStep } from "./denoising.js";
import type { DiffusionContents, DiffusionPart, DiffusionParts } from "./diffusion-folder.js";
import {
  carriedRules,
  checkDiffusionOptions,
  diffusionSamplingOf,
  stateSize,
  type DiffusionGenerateOptions,
  type DiffusionStreamOptions,
  type PictureSize,
} from "./diffusion-options.js";
import {
  checkPossible,
  classCount,
  type DiffusionNetworks,
  type DiffusionSettings,
} from "./diffusion-settings.js";
import { batchEvents, picturesOf, type GenerateEvent } from "./events.js";
import { GeneratedImage } from "./generated-image.js";
import { at, jobsOf, promptWarnings, type Askable, type Job } from "./jobs.js";
import { checkPictureSize, PictureCodec, type StateShape } from "./picture-codec.js";
import { metadataOf, optionsOf } from "./picture-settings.js";
import { readBuffers } from "./weight-buffers.js";

/** A call, checked. */
interface Ask {
  options: DiffusionStreamOptions;
  sampling: DiffusionSampling;
  shape: StateShape;
  isGuided: boolean;
}

const fault = (expected: string, got: string): DiffusionError =>
  new DiffusionError("option", `generate: expected ${expected}, got ${got}`);

export class DiffusionPipeline implements Disposable {
  readonly kind = "diffusion";
  readonly #networks: DiffusionNetworks;
  readonly #sessions: Partial<Record<DiffusionPart, SessionCache>>;
  readonly #codec: PictureCodec;
  readonly #askable: Askable;

  constructor(
    readonly name: string,
    readonly folder: string,
    readonly settings: DiffusionSettings,
    private readonly opened: DiffusionParts,
  ) {
    const { networks, weights } = opened;
    this.#networks = networks;
    const { classifier = new Map<string, never>(), ...others } = weights;
    const placed = [...classifier].map(([key, buffer]) => [`${classifierPlace}.${key}`, buffer] as const); // prettier-ignore
    this.#sessions = Object.fromEntries(
      Object.entries(others).map(([part, buffers]) => [
        part,
        new SessionCache(part === "denoiser" ? new Map([...buffers, ...placed]) : buffers),
      ]),
    );
    const ofPictures = networks.firstStage ? this.#sessions.firstStage! : this.#sessions.denoiser!;
    this.#codec = new PictureCodec(networks.firstStage, ofPictures);
    this.#askable = {
      readsText: networks.textEncoder !== undefined,
      attributes: this.classes.length > 0 ? { [classAttribute]: this.classes } : {},
    };
  }

  /** How the denoiser is computed; undefined: in floats. */
  get quantize(): Quantize | undefined {
    return this.opened.quantize;
  }

  /** Width and height of a picture in pixels. */
  get imageSize(): PictureSize {
    const [height, width] = this.settings.size;
    return { width: width * this.#codec.stride, height: height * this.#codec.stride };
  }

  /** Names of the classes of a class-conditional model, or their numbers. */
  get classes(): readonly string[] {
    const count = classCount(this.#networks);
    return this.settings.classes ?? Array.from({ length: count }, (_, i) => String(i));
  }

  /** Makes pictures. Throws "option" for a wrong option, "aborted" when the signal stops it. */
  generate(options: DiffusionGenerateOptions = {}): Promise<{ images: GeneratedImage[] }> {
    return picturesOf(this.stream(options), options);
  }

  /** As generate, yielding warnings, steps and previews on the way; the last event carries the pictures. */
  async *stream(options: DiffusionStreamOptions = {}): AsyncGenerator<GenerateEvent> {
    const ask = this.#ask(options);
    const { image } = options;
    const jobs = jobsOf(options, this.#askable, { image });
    checkClasses(this.#networks, jobs, Boolean(ask.sampling.classifierScale));
    const images = this.#sources(jobs, ask);
    for (const message of this.#warnings(jobs)) yield { type: "warning", message };
    const stop = given(options, "signal");
    const numbered = jobs.map((job, i) => ({ ...job, place: i }));
    yield* batchEvents(numbered, options, {
      steps: (batch: readonly (Job & { place: number })[]) => {
        const own = images?.slice(batch[0]!.place, batch[0]!.place + batch.length);
        return this.#steps(batch, ask, own);
      },
      preview: ({ clean }) => this.#codec.decode(clean, ask.shape, stop),
      pictures: ({ states }) => this.#codec.decode(states, ask.shape, stop),
      finished: (picture, job) => new GeneratedImage(picture, this.#metadata(job, ask)),
    });
  }

  /** Makes a picture again from the settings it carries. */
  async regenerate(
    metadata: GenerationMetadata,
    options: { signal?: AbortSignal } = {},
  ): Promise<GeneratedImage> {
    const { images } = await this.generate({
      ...optionsOf(metadata, carriedRules, this.quantize),
      ...options,
    });
    return images[0]!;
  }

  /**
   * Pictures through the first stage and back; through the VAE and its refiner, or the tokenizer and its decoder, of a
   * model that has them. Throws "option" for a model without any.
   */
  async reconstruct(
    images: readonly Image[],
    options: DiffusionGenerateOptions = {},
  ): Promise<ByteImage[]> {
    checkDiffusionOptions(options);
    const { vae, denoiser, firstStage } = this.#networks;
    if (vae || denoiser.tokenizer)
      return (await this.generate({ ...options, image: images })).images;
    if (!firstStage)
      throw new DiffusionError(
        "option",
        `reconstruct: expected a model with a first stage, got ${this.name} without; its states are pixels`,
      );
    return this.#codec.reconstruct(images, given(options, "batchSize", "signal"));
  }

  /** Checks a call. Throws "option". */
  #ask(options: DiffusionStreamOptions): Ask {
    checkDiffusionOptions(options);
    const { denoiser, textEncoder } = this.#networks;
    const sampling = diffusionSamplingOf(options, this.settings.defaults);
    checkDiffusionSampling("generate", sampling, this.settings.process);
    checkPossible("generate", sampling, this.#networks);
    if (options.negativePrompt !== undefined && !textEncoder)
      throw fault("no negativePrompt, which this model does not know", shown(options.negativePrompt)); // prettier-ignore
    const { stride: pixels } = this.#codec;
    const network = { size: this.settings.size, pixels, stride: denoiser.stride };
    return { options, sampling, isGuided: sampling.guidanceScale !== 1, shape: [...stateSize(options, network), denoiser.channels] }; // prettier-ignore
  }

  /** The picture that each job is made from. Throws "option" or "shape". */
  #sources(jobs: readonly Job[], { options, shape }: Ask): readonly Image[] | undefined {
    const { denoiser, vae } = this.#networks;
    const reads = denoiser.pair === true || denoiser.tokenizer !== undefined;
    const { image } = options;
    if (!image) {
      if (!reads || vae) return undefined;
      throw fault("an image, which this model starts from", "none");
    }
    if (!reads) throw fault("no image, which this model does not read", "one");
    const images = jobs.map(({ subject }) => at(image, subject)!);
    const { width, height } = vae
      ? { width: vae.config.resolution, height: vae.config.resolution }
      : denoiser.tokenizer
        ? { width: shape[1], height: shape[0] }
        : images[0]!;
    for (const one of images) checkPictureSize("generate", one, { width, height });
    return images;
  }

  async *#steps(
    jobs: readonly Job[],
    { options, sampling, shape, isGuided }: Ask,
    images: readonly Image[] | undefined,
  ): AsyncGenerator<DenoiseStep> {
    const { seed = 0 } = options;
    const common = { shape, seed, ...given(options, "signal") };
    const parts: ConditionParts = {
      networks: this.#networks,
      settings: this.settings,
      sessions: this.#sessions,
      ...given(this.opened, "tokenizer"),
    };
    const conditions = await batchConditions(parts, {
      ...{ jobs, isGuided, ...common, ...(images && { images }) },
      ...given(options, "negativePrompt"),
    });
    const { denoiser, classifier } = this.#networks;
    yield* denoise({
      denoiser,
      ...(classifier && { classifier: classifier.config }),
      process: this.settings.process,
      sessions: this.#sessions.denoiser!,
      ...{ sampling, conditions, quantize: this.quantize, ...common },
      batch: jobs.length,
      firstSample: jobs[0]!.sample,
    });
  }

  #warnings(jobs: readonly Job[]): Iterable<string> {
    const { textEncoder } = this.#networks;
    const { tokenizer } = this.opened;
    return textEncoder && tokenizer ? promptWarnings(jobs, tokenizer, textEncoder.config.length) : [];
  } // prettier-ignore

  #metadata(job: Job, { options, sampling }: Ask): GenerationMetadata {
    const { seed = 0, image } = options;
    const carried = given(options, "negativePrompt", "size");
    return metadataOf({
      ...{ model: this.name, job, seed, sampling: { ...sampling, ...carried } },
      attributes: this.#askable.attributes,
      quantize: this.quantize,
      isDerived: image !== undefined,
    });
  }

  /** What savePipeline writes. */
  parts(): DiffusionContents["parts"] {
    const { configs, weights } = this.opened;
    const read = Object.entries(configs).map(([part, network]) => {
      return [part, { ...network, weights: readBuffers(weights[part as DiffusionPart]!) }];
    });
    return Object.fromEntries(read) as DiffusionContents["parts"];
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Frees weights and compiled programs. */
  dispose(): void {
    for (const sessions of Object.values(this.#sessions)) sessions.dispose();
  }
}
