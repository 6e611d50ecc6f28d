// VQ-Diffusion ready to use: prompts, styles, categories or classes in, pictures out; inpainting by known tokens;
// tokenizing. Source: Gu et al. 2021, arXiv:2111.14822.
import type { ByteImage, GenerationMetadata, Image } from "../image/image-io.js";
import type { TokenModel } from "../models/token-model.js";
import { maskReplaceSchedule, type MaskReplaceSchedule } from "../processes/schedules.js";
import type { Quantize } from "../runtime/program.js";
import { SessionCache } from "../runtime/session-cache.js";
import type { TextTokenizer } from "../text/tokenizer.js";
import { classAttribute, type ConditionReader } from "../trainers/condition-rows.js";
import { given } from "../trainers/given.js";
import { samplingRules, type SamplingSettings } from "../trainers/vq-diffusion-recipe.js";
import type { Codec, CodecOptions } from "./codec.js";
import { batchEvents, picturesOf, type GenerateEvent } from "./events.js";
import {
  checkGenerateOptions,
  knownRule,
  samplingOf,
  type GenerateOptions,
  type StreamOptions,
} from "./generate-options.js";
import { GeneratedImage } from "./generated-image.js";
import { conditionOf, jobsOf, promptWarnings, type Askable, type Job } from "./jobs.js";
import { knownTokens } from "./known-tokens.js";
import { metadataOf, optionsOf } from "./picture-settings.js";
import { sampleTokens, type TokenJob } from "./token-sampling.js";
import { checkSampling, type VqDiffusionSettings } from "./vq-diffusion-settings.js";
import { readBuffers, weightBuffers, type GivenWeights } from "./weight-buffers.js";

export interface VqDiffusionParts {
  codec: Codec;
  model: TokenModel;
  weights: GivenWeights;
  /** Of a text model. */
  tokenizer?: TextTokenizer;
  /** How the transformer is computed; default in floats. */
  quantize?: Quantize | undefined;
}

export class VqDiffusionPipeline implements Disposable {
  readonly kind = "vq-diffusion";
  readonly #codec: Codec;
  readonly #schedule: MaskReplaceSchedule;
  readonly #sessions: SessionCache;
  readonly #reader: ConditionReader;
  /** How the transformer is computed; undefined: in floats. */
  readonly quantize: Quantize | undefined;

  constructor(
    readonly name: string,
    readonly folder: string,
    readonly settings: VqDiffusionSettings,
    { codec, model, weights, tokenizer, quantize }: VqDiffusionParts,
  ) {
    this.#codec = codec;
    this.quantize = quantize;
    this.#schedule = maskReplaceSchedule({
      ...settings.process,
      codes: model.transformer.config.codes,
    });
    const counts = Object.fromEntries(
      Object.entries(settings.attributes).map(([key, names]) => [key, names.length]),
    );
    this.#reader = { model, tokenizer, counts };
    this.#sessions = new SessionCache(weightBuffers(weights, model.parameters));
  }

  /** Words of a text model; else undefined. */
  get tokenizer(): TextTokenizer | undefined {
    return this.#reader.tokenizer;
  }

  /** Side of a picture in pixels. */
  get imageSize(): number {
    return this.#codec.config.resolution;
  }

  /** Rows and columns of tokens. */
  get grid(): readonly [number, number] {
    return this.#codec.grid;
  }

  get styles(): readonly string[] {
    return this.settings.attributes["style"] ?? [];
  }

  get categories(): readonly string[] {
    return this.settings.attributes["category"] ?? [];
  }

  /** Classes of a class-conditional model. */
  get classes(): readonly string[] {
    return this.settings.attributes[classAttribute] ?? [];
  }

  /** Token ids of pictures, (count * N). */
  encode(images: readonly Image[], options?: CodecOptions): Promise<Int32Array> {
    return this.#codec.encode(images, options);
  }

  /** Pictures of token ids. */
  decode(tokens: Int32Array, options?: CodecOptions): Promise<ByteImage[]> {
    return this.#codec.decode(tokens, options);
  }

  /** Pictures through the tokenizer and back. */
  reconstruct(images: readonly Image[], options?: CodecOptions): Promise<ByteImage[]> {
    return this.#codec.reconstruct(images, options);
  }

  /** Makes pictures. Throws "option" for a wrong option, "aborted" when the signal stops it. */
  generate(options: GenerateOptions = {}): Promise<{ images: GeneratedImage[] }> {
    return picturesOf(this.stream(options), options);
  }

  /** As generate, yielding warnings, steps and previews on the way; the last event carries the pictures. */
  async *stream(options: StreamOptions = {}): AsyncGenerator<GenerateEvent> {
    checkGenerateOptions(options);
    const jobs = jobsOf(options, this.#askable);
    const sampling = samplingOf(options, this.settings.defaults);
    checkSampling("generate", sampling, this.#reader.model);
    for (const message of this.#warnings(jobs)) yield { type: "warning", message };
    const known = await knownTokens(this.#codec, options);
    const kept = known && { known: [...known] };
    const stop = given(options, "signal");
    yield* batchEvents(jobs, options, {
      steps: (batch: readonly Job[]) =>
        sampleTokens(this.#tokenJob(batch, options, sampling, known)),
      preview: ({ best }) => this.decode(best, stop),
      pictures: ({ tokens }) => this.decode(tokens, stop),
      finished: (picture, job) =>
        new GeneratedImage(picture, this.#metadata(job, options, { ...sampling, ...kept })),
    });
  }

  /** Makes a picture again from the settings it carries. */
  async regenerate(
    metadata: GenerationMetadata,
    options: { signal?: AbortSignal } = {},
  ): Promise<GeneratedImage> {
    const asked = optionsOf(metadata, { ...samplingRules, known: knownRule }, this.quantize);
    const { images } = await this.generate({ ...asked, ...options });
    return images[0]!;
  }

  get #askable(): Askable {
    return {
      readsText: this.#reader.model.condition.kind === "text",
      attributes: this.settings.attributes,
    };
  }

  #warnings(jobs: readonly Job[]): Iterable<string> {
    const { condition } = this.#reader.model;
    if (condition.kind !== "text" || !this.tokenizer) return [];
    return promptWarnings(jobs, this.tokenizer, condition.length);
  }

  #tokenJob(
    jobs: readonly Job[],
    { seed = 0, signal }: GenerateOptions,
    settings: SamplingSettings,
    known: Int32Array | undefined,
  ): TokenJob {
    return {
      reader: this.#reader,
      sessions: this.#sessions,
      schedule: this.#schedule,
      conditions: jobs.map((job) => conditionOf(job, this.#askable)),
      firstSample: jobs[0]!.sample,
      seed,
      settings,
      quantize: this.quantize,
      ...(known && { known }),
      ...(signal && { signal }),
    };
  }

  #metadata(job: Job, options: GenerateOptions, sampling: object): GenerationMetadata {
    return metadataOf({
      model: this.name,
      job,
      seed: options.seed ?? 0,
      sampling,
      attributes: this.settings.attributes,
      quantize: this.quantize,
    });
  }

  /** What savePipeline writes. */
  parts(): VqDiffusionParts & { weights: ReadonlyMap<string, Float32Array> } {
    const { model, tokenizer } = this.#reader;
    const weights = readBuffers(this.#sessions.buffers);
    return { codec: this.#codec, model, weights, ...(tokenizer && { tokenizer }) };
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Frees weights and compiled programs. */
  dispose(): void {
    this.#codec.dispose();
    this.#sessions.dispose();
  }
}
