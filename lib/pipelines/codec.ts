// A VQGAN ready to use: images to token ids and back, in batches of a few compiled sizes.
import { join } from "node:path";
import type { ComponentFile } from "./pipeline.js";
import { DiffusionError, formatShape } from "../errors.js";
import { toFloatImage, toByteImage, type ByteImage, type Image } from "../image/image-io.js";
import type { Graph } from "../ir/graph.js";
import { checkFields, shown } from "../models/check-config.js";
import { vqgan, type Vqgan, type VqganConfig } from "../models/vqgan.js";
import { SessionCache } from "../runtime/session-cache.js";
import { trace } from "../trace/trace.js";
import { given } from "../trainers/given.js";
import { codecRules } from "./generate-options.js";
import { openWeightBuffers, readBuffers, weightBuffers, type GivenWeights } from "./weight-buffers.js"; // prettier-ignore

export interface CodecOptions {
  /** Pictures in one run of the core; default 8. */
  batchSize?: number;
  signal?: AbortSignal;
  /** Told after each batch how many pictures are done. */
  onProgress?: (done: number, total: number) => void;
}

/** Runs pictures batch by batch. Throws "option" for wrong options. */
export async function inBatches(
  where: string,
  total: number,
  options: CodecOptions,
  run: (first: number, count: number) => Promise<void>,
): Promise<void> {
  checkFields(where, options, codecRules);
  const { batchSize = 8, onProgress } = options;
  for (let first = 0; first < total; first += batchSize) {
    const count = Math.min(batchSize, total - first);
    await run(first, count);
    onProgress?.(first + count, total);
  }
}

export class Codec {
  readonly model: Vqgan;
  /** Rows and columns of tokens of a picture. */
  readonly grid: readonly [number, number];
  readonly #sessions: SessionCache;

  constructor(
    readonly config: VqganConfig,
    weights: GivenWeights,
  ) {
    this.model = vqgan(config);
    const side = config.resolution / this.model.stride;
    if (!Number.isInteger(side)) {
      throw new DiffusionError(
        "option",
        `codec: expected a resolution divisible by the ${this.model.stride} pixels of a token, got ${config.resolution}`,
      );
    }
    this.grid = [side, side];
    const specs = [...this.model.parameters, ...this.model.states];
    this.#sessions = new SessionCache(weightBuffers(weights, specs));
  }

  /** Side of a picture in pixels. */
  get imageSize(): number {
    return this.config.resolution;
  }

  get tokensPerImage(): number {
    return this.grid[0] * this.grid[1];
  }

  /** Token ids (count * N) of pictures of the codec's size. Throws "shape" for another size. */
  async encode(images: readonly Image[], options: CodecOptions = {}): Promise<Int32Array> {
    const { resolution: size } = this.config;
    for (const { width, height, data } of images) {
      if (width !== size || height !== size)
        throw new DiffusionError(
          "shape",
          `encode: expected pictures of ${size} x ${size}, got ${width} x ${height}; decode them with { size: ${size} }`,
        );
      if (data.length !== size * size * 3)
        throw new DiffusionError(
          "shape",
          `encode: expected ${size * size * 3} values of ${size} x ${size} x 3, got ${data.length}`,
        );
    }
    const N = this.tokensPerImage;
    const tokens = new Int32Array(images.length * N);
    await inBatches("encode", images.length, options, async (first, count) => {
      const pixels = new Float32Array(count * size * size * 3);
      for (let i = 0; i < count; ++i)
        pixels.set(toFloatImage(images[first + i]!).data, i * size * size * 3);
      const graph = (): Graph => this.#encodeGraph(count);
      const inputs = { images: pixels };
      const result = await this.#sessions.run(
        `encode ${count}`,
        graph,
        inputs,
        given(options, "signal"),
      );
      tokens.set(result["tokens"] as Int32Array, first * N);
    });
    return tokens;
  }

  /** Pictures of token ids (count * N). Throws "shape" or "data" for a wrong number of tokens or an id out of range. */
  async decode(tokens: Int32Array, options: CodecOptions = {}): Promise<ByteImage[]> {
    if (!(tokens instanceof Int32Array))
      throw new DiffusionError("dtype", `decode: expected an Int32Array, got ${shown(tokens)}`);
    const N = this.tokensPerImage;
    const { codes } = this.config.quantizer;
    if (tokens.length === 0 || tokens.length % N !== 0) {
      throw new DiffusionError(
        "shape",
        `decode: expected a multiple of ${N} tokens (grid ${formatShape(this.grid)}), got ${tokens.length}`,
      );
    }
    const wrong = tokens.findIndex((id) => !(id >= 0 && id < codes));
    if (wrong >= 0)
      throw new DiffusionError(
        "data",
        `decode: expected token ids from 0 to ${codes - 1}, got ${tokens[wrong]} at ${wrong}`,
      );
    const { resolution: size } = this.config;
    const images: ByteImage[] = [];
    await inBatches("decode", tokens.length / N, options, async (first, count) => {
      const graph = (): Graph => this.#decodeGraph(count);
      const inputs = { tokens: tokens.slice(first * N, (first + count) * N) };
      const result = await this.#sessions.run(
        `decode ${count}`,
        graph,
        inputs,
        given(options, "signal"),
      );
      const pixels = result["images"] as Float32Array;
      for (let i = 0; i < count; ++i) {
        const data = pixels.slice(i * size * size * 3, (i + 1) * size * size * 3);
        images.push(toByteImage({ width: size, height: size, data }));
      }
    });
    return images;
  }

  /** Pictures through the tokenizer and back. */
  async reconstruct(images: readonly Image[], options: CodecOptions = {}): Promise<ByteImage[]> {
    const { onProgress, ...rest } = options;
    return this.decode(
      await this.encode(images, rest),
      onProgress ? { ...rest, onProgress } : rest,
    );
  }

  #encodeGraph(B: number): Graph {
    const { resolution: size } = this.config;
    return trace((t) =>
      t.output("tokens", this.model.tokenize(t.input("images", { shape: [B, size, size, 3] }))),
    );
  }

  #decodeGraph(B: number): Graph {
    return trace((t) => {
      const tokens = t.input("tokens", { shape: [B, this.tokensPerImage], dtype: "i32" });
      t.output("images", this.model.detokenize(tokens, this.grid));
    });
  }

  /** Weights and codebook by name. */
  weights(): Map<string, Float32Array> {
    return readBuffers(this.#sessions.buffers);
  }

  dispose(): void {
    this.#sessions.dispose();
  }
}

/** Loads the codec of a pipeline folder. Throws "checkpoint" when the weights do not fit the configuration. */
export async function loadCodec(folder: string, file: ComponentFile): Promise<Codec> {
  const config = file.config as unknown as VqganConfig;
  const { parameters, states } = vqgan(config);
  const path = join(folder, file.weights);
  return new Codec(config, await openWeightBuffers(path, [...parameters, ...states]));
}
