// VQ-Diffusion ready to use: prompts, styles and categories in, pictures out; inpainting by known tokens; tokenizing.
// Source: Gu et al. 2021, arXiv:2111.14822.
import { join } from "node:path";
import { loadWeights, saveWeights } from "../checkpoint/weights.js";
import { checkOptions, DiffusionError, nearestName } from "../errors.js";
import type { ByteImage, GenerationMetadata, Image } from "../image/image-io.js";
import { textToToken, type TextToToken, type TextToTokenConfig } from "../models/text-to-token.js";
import { vqgan, type VqganConfig } from "../models/vqgan.js";
import {
  maskReplaceSchedule,
  type MaskReplaceOptions,
  type MaskReplaceSchedule,
} from "../processes/schedules.js";
import { Buffer } from "../runtime/buffer.js";
import { describeBackends } from "../runtime/device.js";
import { TextTokenizer } from "../text/tokenizer.js";
import { version } from "../version.js";
import { checkFields, optional, shown, text, whole } from "../models/check-config.js";
import { samplingRules } from "../trainers/recipe.js";
import { checkGenerateOptions, checkSampling, checkSettings } from "./check-generate.js";
import { loadCodec, type Codec, type CodecOptions } from "./codec.js";
import type { GenerateEvent } from "./events.js";
import { GeneratedImage } from "./generated-image.js";
import {
  checkingFile,
  pipelineFolder,
  readPipelineFile,
  writePipelineFile,
  type PipelineFile,
} from "./pipeline.js";
import { SessionCache } from "./session-cache.js";
import { sampleTokens, type SamplerName, type TokenJob } from "./token-sampling.js";

/** What a VQ-Diffusion pipeline keeps in pipeline.json beside its components. */
export interface VqDiffusionSettings {
  process: Omit<MaskReplaceOptions, "codes">;
  /** Names of the values of each attribute, e.g. { style: ["google", …] }. */
  attributes: Record<string, string[]>;
  defaults: Required<
    Pick<
      GenerateOptions,
      "steps" | "guidanceScale" | "truncation" | "temperature" | "topK" | "sampler"
    >
  >;
}

export interface GenerateOptions {
  /** What to show: one text, or one a picture. Without it the model chooses. */
  prompt?: string | readonly string[];
  /** Style by name: one, or one a picture. Default: the model chooses. */
  style?: string | readonly string[];
  /** Category by name: one, or one a picture. */
  category?: string | readonly string[];
  /** Pictures for each prompt; default 1. */
  count?: number;
  /** Default 0. The picture depends on (seed, its number) and not on the batch. */
  seed?: number;
  /** Number of the first picture under the seed; default 0. */
  firstSample?: number;
  /**
   * Levels of noise visited, not calls of the network. "exact" calls it once a level; "released" walks with the whole
   * stride nearest to timesteps / steps, so a few times more or less; "purity" skips levels that reveal no token, and
   * its plan (purityPlan, with perCall) may split a level over several calls.
   */
  steps?: number;
  /** Classifier-free guidance; 1 = off. */
  guidanceScale?: number;
  /** Keep classes while the mass before them is below this; 1 = off. */
  truncation?: number;
  /** Below 1 safer, above 1 wilder. */
  temperature?: number;
  /** Keep this many classes; 0 = off. */
  topK?: number;
  /** "exact": exact posterior at any stride; "released": the published fast form; "purity": surest tokens first. */
  sampler?: SamplerName;
  /** Picture to change where `mask` is 1. */
  image?: Image;
  /** One byte a pixel of `image`, 1 = make anew; a token is made anew when any of its pixels is. */
  mask?: Uint8Array;
  /** Pictures in one run of the network; default 8. */
  batchSize?: number;
  signal?: AbortSignal;
  onProgress?: (event: { step: number; steps: number }) => void;
  onWarning?: (message: string) => void;
}

export interface StreamOptions extends GenerateOptions {
  /** Steps between previews; default 0 = none. */
  previewEvery?: number;
}

/** One picture to make. */
interface Job {
  prompt: string;
  attributes: Record<string, number>;
  sample: number;
}

const oneOrEach = (value: string | readonly string[] | undefined, i: number): string | undefined =>
  value === undefined || typeof value === "string" ? value : value[i];

export class VqDiffusionPipeline implements Disposable {
  readonly #codec: Codec;
  readonly #model: TextToToken;
  readonly #schedule: MaskReplaceSchedule;
  readonly #sessions: SessionCache;

  constructor(
    readonly name: string,
    readonly folder: string,
    readonly settings: VqDiffusionSettings,
    parts: {
      codec: Codec;
      model: TextToToken;
      weights: ReadonlyMap<string, Float32Array>;
      tokenizer: TextTokenizer;
    },
  ) {
    this.#codec = parts.codec;
    this.#model = parts.model;
    this.tokenizer = parts.tokenizer;
    this.#schedule = maskReplaceSchedule({
      ...settings.process,
      codes: parts.model.config.transformer.codes,
    });
    this.#sessions = new SessionCache(
      new Map(
        parts.model.parameters.map(({ name: key, shape }) => [
          key,
          Buffer.fromArray(parts.weights.get(key)!, "f32", shape, key),
        ]),
      ),
    );
  }

  readonly tokenizer: TextTokenizer;

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

  /** Token ids of pictures, (count * N). */
  encode(images: readonly Image[], options?: CodecOptions): Promise<Int32Array> {
    return this.#codec.encode(images, options);
  }

  /** Pictures of token ids. */
  decode(tokens: Int32Array, options?: CodecOptions): Promise<ByteImage[]> {
    return this.#codec.decode(tokens, options);
  }

  /** Pictures through the tokenizer and back. */
  async reconstruct(images: readonly Image[], options: CodecOptions = {}): Promise<ByteImage[]> {
    const { onProgress, ...rest } = options;
    return this.decode(
      await this.encode(images, rest),
      onProgress ? { ...rest, onProgress } : rest,
    );
  }

  /** Makes pictures. Throws "option" for a wrong option, "aborted" when the signal stops it. */
  async generate(options: GenerateOptions = {}): Promise<{ images: GeneratedImage[] }> {
    for await (const event of this.stream(options)) {
      if (event.type === "step") options.onProgress?.(event);
      else if (event.type === "warning") options.onWarning?.(event.message);
      else if (event.type === "done") return { images: event.images };
    }
    throw new DiffusionError("internal", "generate: expected a last event, got none");
  }

  /** As generate, yielding warnings, steps and previews on the way; the last event carries the pictures. */
  async *stream(options: StreamOptions = {}): AsyncGenerator<GenerateEvent> {
    checkGenerateOptions(options);
    const jobs = this.#jobs(options);
    const settings = this.#samplingSettings(options);
    for (const message of this.#warnings(jobs)) yield { type: "warning", message };
    const known = await this.#knownTokens(options);
    const { batchSize = 8, previewEvery = 0 } = options;
    const stop = options.signal ? { signal: options.signal } : {};
    const images: GeneratedImage[] = [];
    const batches = Math.ceil(jobs.length / batchSize);
    for (let b = 0; b < batches; ++b) {
      const batch = jobs.slice(b * batchSize, (b + 1) * batchSize);
      let tokens: Int32Array = new Int32Array(0);
      let last = performance.now();
      for await (const step of sampleTokens(this.#tokenJob(batch, options, settings, known))) {
        const now = performance.now();
        yield {
          type: "step",
          step: b * step.steps + step.index + 1,
          steps: batches * step.steps,
          ms: now - last,
        };
        last = now;
        tokens = step.tokens;
        if (
          previewEvery > 0 &&
          (step.index + 1) % previewEvery === 0 &&
          step.index + 1 < step.steps
        ) {
          yield {
            type: "preview",
            step: step.index + 1,
            images: await this.decode(step.best, stop),
          };
        }
      }
      const pictures = await this.decode(tokens, stop);
      pictures.forEach((picture, i) =>
        images.push(new GeneratedImage(picture, this.#metadata(batch[i]!, options, settings))),
      );
    }
    yield { type: "done", images };
  }

  /** Makes a picture again from the settings it carries. */
  async regenerate(
    metadata: GenerationMetadata,
    options: { signal?: AbortSignal } = {},
  ): Promise<GeneratedImage> {
    checkMetadata(metadata);
    const { prompt = "", seed = 0, settings = {} } = metadata;
    const { sample = 0, style, category, inpainted, ...rest } = settings;
    if (inpainted) {
      throw new DiffusionError(
        "data",
        "regenerate: expected a picture made from a prompt alone, got an inpainted one; its source picture is not stored",
      );
    }
    const { images } = await this.generate({
      ...(rest as GenerateOptions),
      prompt,
      seed,
      firstSample: sample as number,
      ...(style !== undefined && { style: style as string }),
      ...(category !== undefined && { category: category as string }),
      ...options,
    });
    return images[0]!;
  }

  #jobs(options: GenerateOptions): Job[] {
    const { prompt = "", count = 1, firstSample = 0, style, category } = options;
    const prompts = typeof prompt === "string" ? [prompt] : prompt;
    for (const [name, value] of Object.entries({ style, category })) {
      if (value !== undefined && !this.settings.attributes[name])
        throw new DiffusionError(
          "option",
          `generate: expected no ${name}, which this model does not know, got ${shown(value)}`,
        );
      if (value === undefined || typeof value === "string" || value.length === prompts.length)
        continue;
      throw new DiffusionError(
        "option",
        `generate: expected one ${name} or one for each of ${prompts.length} prompts, got ${value.length}`,
      );
    }
    return prompts.flatMap((text, i) => {
      const attributes = { style: oneOrEach(style, i), category: oneOrEach(category, i) };
      const values = Object.fromEntries(
        Object.keys(this.settings.attributes).map((name) => [
          name,
          this.#attributeValue(name, attributes[name as "style"]),
        ]),
      );
      return Array.from({ length: count }, (_, j) => ({
        prompt: text,
        attributes: values,
        sample: firstSample + i * count + j,
      }));
    });
  }

  /** Index of an attribute's value; the count of values means "not said". */
  #attributeValue(attribute: string, value: string | undefined): number {
    const names = this.settings.attributes[attribute]!;
    if (value === undefined) return names.length;
    const found = names.indexOf(value);
    if (found >= 0) return found;
    const near = nearestName(value, names);
    throw new DiffusionError(
      "option",
      `generate: expected ${attribute} to be one of ${names.join(", ")}, got "${value}"${near ? `; did you mean "${near}"?` : ""}`,
    );
  }

  #samplingSettings(options: GenerateOptions): VqDiffusionSettings["defaults"] {
    const { defaults } = this.settings;
    const settings = Object.fromEntries(
      Object.entries(defaults).map(([name, value]) => [
        name,
        options[name as keyof typeof defaults] ?? value,
      ]),
    ) as VqDiffusionSettings["defaults"];
    checkSampling("generate", settings, {
      timesteps: this.#schedule.timesteps,
      codes: this.#model.config.transformer.codes,
    });
    return settings;
  }

  *#warnings(jobs: readonly Job[]): Generator<string> {
    for (const prompt of new Set(jobs.map((job) => job.prompt))) {
      const { unknown, truncated } = this.tokenizer.encode(prompt, {
        length: this.#model.config.condition.text.length,
      });
      for (const { word, nearest } of unknown) {
        yield `"${word}" in "${prompt}" is not a word of this model${nearest ? `; the nearest is "${nearest}"` : ""}`;
      }
      if (truncated) yield `"${prompt}" is longer than this model reads; its end is left out`;
    }
  }

  /** Tokens to keep (-1 = make anew) from a picture and its mask. */
  async #knownTokens({ image, mask, signal }: GenerateOptions): Promise<Int32Array | undefined> {
    if (!image && !mask) return undefined;
    if (!image || !mask)
      throw new DiffusionError(
        "option",
        `generate: expected image and mask together, got only ${image ? "image" : "mask"}`,
      );
    const size = this.imageSize;
    if (mask.length !== size * size) {
      throw new DiffusionError(
        "shape",
        `generate: expected a mask of ${size} x ${size} = ${size * size} bytes, got ${mask.length}`,
      );
    }
    const tokens = await this.encode([image], signal ? { signal } : {});
    const [rows, columns] = this.grid;
    const cell = size / rows;
    for (let y = 0; y < size; ++y) {
      for (let x = 0; x < size; ++x) {
        if (mask[y * size + x]) tokens[Math.floor(y / cell) * columns + Math.floor(x / cell)] = -1;
      }
    }
    return tokens;
  }

  #tokenJob(
    jobs: readonly Job[],
    { seed = 0, signal }: GenerateOptions,
    settings: VqDiffusionSettings["defaults"],
    known: Int32Array | undefined,
  ): TokenJob {
    return {
      model: this.#model,
      sessions: this.#sessions,
      schedule: this.#schedule,
      prompts: this.tokenizer.encodeBatch(
        jobs.map(({ prompt }) => prompt),
        { length: this.#model.config.condition.text.length },
      ).ids,
      isNull: Float32Array.from(jobs, ({ prompt, attributes }) =>
        this.#saysNothing(prompt, attributes) ? 1 : 0,
      ),
      attributes: Object.fromEntries(
        Object.keys(this.settings.attributes).map((name) => [
          name,
          Int32Array.from(jobs, (job) => job.attributes[name]!),
        ]),
      ),
      samples: jobs.map(({ sample }) => sample),
      seed,
      settings,
      ...(known && { known }),
      ...(signal && { signal }),
    };
  }

  #saysNothing(prompt: string, attributes: Record<string, number>): boolean {
    const unsaid = Object.entries(attributes).every(
      ([name, value]) => value === this.settings.attributes[name]!.length,
    );
    return prompt.trim() === "" && unsaid;
  }

  #metadata(
    job: Job,
    options: GenerateOptions,
    settings: VqDiffusionSettings["defaults"],
  ): GenerationMetadata {
    const names = Object.entries(job.attributes)
      .map(([name, value]): [string, string | undefined] => [
        name,
        this.settings.attributes[name]![value],
      ])
      .filter(([, value]) => value !== undefined);
    return {
      model: this.name,
      code: version,
      prompt: job.prompt,
      seed: options.seed ?? 0,
      settings: {
        ...settings,
        sample: job.sample,
        ...Object.fromEntries(names),
        ...(options.image && { inpainted: true }),
      },
    };
  }

  /** Writes the pipeline to a folder: weights as f16, vocabulary, and pipeline.json last. */
  async save(folder: string, training?: Record<string, unknown>): Promise<void> {
    await saveVqDiffusion(folder, {
      name: this.name,
      settings: this.settings,
      codec: { config: this.#codec.config, weights: this.#codec.weights() },
      model: { config: this.#model.config, weights: weightsOf(this.#sessions.buffers) },
      tokenizer: this.tokenizer,
      ...(training && { training }),
    });
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

/** Metadata comes from a PNG of a stranger. Throws "data". */
function checkMetadata({ prompt, seed, settings = {} }: GenerationMetadata): void {
  try {
    checkFields("settings", settings, {
      ...Object.fromEntries(
        Object.entries(samplingRules).map(([name, rule]) => [name, optional(rule)]),
      ),
      sample: optional(whole(0, 2 ** 31 - 1)),
      style: optional(text(256)),
      category: optional(text(256)),
      inpainted: () => undefined,
    });
    checkFields(
      "metadata",
      { prompt, seed },
      {
        prompt: optional(text(4096)),
        seed: optional(whole(0, Number.MAX_SAFE_INTEGER)),
      },
    );
  } catch (cause) {
    throw new DiffusionError("data", `regenerate: ${(cause as Error).message}`, { cause });
  }
}

const weightsOf = (buffers: ReadonlyMap<string, Buffer>): Map<string, Float32Array> =>
  new Map([...buffers].map(([name, buffer]) => [name, buffer.read() as Float32Array]));

export interface VqDiffusionParts {
  name: string;
  settings: VqDiffusionSettings;
  codec: { config: VqganConfig; weights: ReadonlyMap<string, Float32Array> };
  model: { config: TextToTokenConfig; weights: ReadonlyMap<string, Float32Array> };
  tokenizer: TextTokenizer;
  training?: Record<string, unknown>;
}

const files = {
  codec: "codec.safetensors",
  model: "model.safetensors",
  tokenizer: "tokenizer.json",
} as const;

/** Writes a pipeline folder from its parts. */
export async function saveVqDiffusion(folder: string, parts: VqDiffusionParts): Promise<void> {
  const codec = vqgan(parts.codec.config);
  const model = textToToken(parts.model.config);
  const file: Omit<PipelineFile, "format" | "formatVersion" | "code"> = {
    kind: "vq-diffusion",
    name: parts.name,
    components: {
      codec: { model: "vqgan", config: { ...parts.codec.config }, weights: files.codec },
      model: { model: "text-to-token", config: { ...parts.model.config }, weights: files.model },
    },
    settings: { ...parts.settings },
    ...(parts.training && { training: parts.training }),
  };
  await writePipelineFile(folder, file, async () => {
    await saveWeights(
      join(folder, files.codec),
      [...codec.parameters, ...codec.states],
      parts.codec.weights,
    );
    await saveWeights(join(folder, files.model), model.parameters, parts.model.weights);
    await parts.tokenizer.save(join(folder, files.tokenizer));
  });
}

const describeComponents = ({ components }: PipelineFile): string =>
  Object.entries(components)
    .slice(0, 8)
    .map(([name, { model }]) => `${name} (${model})`)
    .join(", ") || "no components";

/** Writes a pipeline to a folder that loadPipeline reads: weights as f16, vocabulary, and pipeline.json last. */
export const savePipeline = (pipeline: VqDiffusionPipeline, folder: string): Promise<void> =>
  pipeline.save(folder);

export interface LoadOptions {
  /** Where it runs: "auto" (default) is the best that this version and machine offer. */
  device?: "auto" | "cpu";
}

/** Throws "device" for a device that cannot be used, with the reason. */
function checkDevice(device: unknown): void {
  if (device === "auto") return;
  const { backends } = describeBackends();
  const asked = backends.find(({ name }) => name === device);
  if (asked?.usable) return;
  const usable = backends.filter((backend) => backend.usable).map(({ name }) => name);
  throw new DiffusionError(
    "device",
    `loadPipeline: expected device ${["auto", ...usable].map(shown).join(" or ")}, got ${shown(device)}${asked ? `; ${asked.name}: ${asked.reason}` : ""}`,
  );
}

/**
 * Loads a pipeline from a folder, or by the name of one in the package. Throws "checkpoint" when something is wrong,
 * "device" for a device that cannot be used.
 */
export async function loadPipeline(
  folderOrName: string,
  options: LoadOptions = {},
): Promise<VqDiffusionPipeline> {
  checkOptions("loadPipeline", options, ["device"]);
  checkDevice(options.device ?? "auto");
  const folder = await pipelineFolder(folderOrName);
  const file = await readPipelineFile(folder);
  const { codec: codecFile, model: modelFile } = file.components;
  if (
    file.kind !== "vq-diffusion" ||
    codecFile?.model !== "vqgan" ||
    modelFile?.model !== "text-to-token"
  ) {
    throw new DiffusionError(
      "checkpoint",
      `${folder}: expected a pipeline of kind vq-diffusion with components codec (vqgan) and model (text-to-token), got kind "${file.kind}" with ${describeComponents(file)}`,
    );
  }
  const path = join(folder, "pipeline.json");
  const codecConfig = codecFile.config as unknown as VqganConfig;
  const modelConfig = modelFile.config as unknown as TextToTokenConfig;
  const settings = file.settings as unknown as VqDiffusionSettings;
  const model = checkingFile(path, () => {
    const parts = { shape: vqgan(codecConfig), model: textToToken(modelConfig) };
    const side = codecConfig.resolution / parts.shape.stride;
    checkSettings(settings, {
      codec: { codes: codecConfig.quantizer.codes, grid: [side, side] },
      model: modelConfig,
    });
    return parts.model;
  });
  const weights = await loadWeights(join(folder, modelFile.weights), model.parameters);
  const tokenizer = await TextTokenizer.load(join(folder, files.tokenizer));
  const { vocabulary, padToken = 0 } = modelConfig.condition.text;
  if (tokenizer.vocabularySize !== vocabulary || tokenizer.padId !== padToken) {
    throw new DiffusionError(
      "checkpoint",
      `${join(folder, files.tokenizer)}: expected ${vocabulary} tokens with padding ${padToken} as the model has, got ${tokenizer.vocabularySize} with padding ${tokenizer.padId}`,
    );
  }
  const codec = await loadCodec(folder, codecFile);
  return new VqDiffusionPipeline(file.name, folder, settings, { codec, model, weights, tokenizer });
}
