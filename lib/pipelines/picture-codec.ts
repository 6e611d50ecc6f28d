// States of a denoiser to pictures and back: through a first stage, or as they are when they are pixels. Bytes are made in
// the core, so that large pictures do not hold up the event loop.
import { DiffusionError } from "../errors.js";
import { toFloatImage, type ByteImage, type Image } from "../image/image-io.js";
import type { FirstStage } from "../models/first-stage.js";
import type { SessionCache } from "../runtime/session-cache.js";
import { concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { trace } from "../trace/trace.js";
import { given } from "../trainers/given.js";
import { inBatches, type CodecOptions } from "./codec.js";

/** Shape of a state: height, width, channels. */
export type StateShape = readonly [height: number, width: number, channels: number];

type Stop = Pick<CodecOptions, "signal">;

/** Images (B, H, W, 3) in [-1, 1] to bytes, and how many values of each are no numbers. */
function bytesOf(images: Tensor): { bytes: Tensor; wrong: Tensor } {
  const B = images.shape[0]!;
  const isNumber = images.isFinite().cast("f32");
  return {
    bytes: images.add(1).mul(127.5).add(0.5).floor().clamp(0, 255).cast("u8"),
    wrong: isNumber
      .neg()
      .add(1)
      .reshape([B, images.size / B])
      .sum([1]),
  };
}

const grey = (images: Tensor): Tensor =>
  images.shape[3] === 1 ? concat([images, images, images], 3) : images;

/** Throws "shape" for a picture that is not of the size. */
export function checkPictureSize(
  where: string,
  { width, height, data }: Image,
  size: { width: number; height: number },
): void {
  const isSize = width === size.width && height === size.height;
  if (isSize && data.length === width * height * 3) return;
  const values = isSize ? ` with ${data.length} values` : "";
  throw new DiffusionError(
    "shape",
    `${where}: expected pictures of ${size.width} x ${size.height}, got ${width} x ${height}${values}; decode them with { size: ${size.width === size.height ? size.width : JSON.stringify(size)} }`,
  );
}

/** Pixels (B, H, W, channels) in [-1, 1]; a single channel is the mean of three. */
export function pixelsOf(images: readonly Image[], channels = 3): Float32Array {
  const [{ width, height }] = images as readonly [Image, ...Image[]];
  const size = width * height * channels;
  const out = new Float32Array(images.length * size);
  for (const [b, image] of images.entries()) {
    const { data } = toFloatImage(image);
    if (channels === 3) out.set(data, b * size);
    else
      for (let i = 0; i < size; ++i)
        out[b * size + i] = (data[3 * i]! + data[3 * i + 1]! + data[3 * i + 2]!) / 3;
  }
  return out;
}

export class PictureCodec {
  constructor(
    /** Undefined: states are pixels. */
    readonly stage: FirstStage | undefined,
    private readonly sessions: SessionCache,
  ) {}

  /** Pixels that a place of a state covers along each axis. */
  get stride(): number {
    return this.stage?.stride ?? 1;
  }

  /** Pictures of states (B, ...shape). Throws "numeric" for values that are no numbers. */
  async decode(states: Float32Array, shape: StateShape, stop: Stop = {}): Promise<ByteImage[]> {
    const batch = states.length / (shape[0] * shape[1] * shape[2]);
    const graph = () =>
      trace((t) => {
        const state = t.input("states", { shape: [batch, ...shape] });
        const { bytes, wrong } = bytesOf(grey(this.stage ? this.stage.decode(state) : state));
        t.output("bytes", bytes);
        t.output("wrong", wrong);
      });
    const key = `decode ${batch} ${shape.join()}`;
    const { bytes, wrong } = await this.sessions.run(key, graph, { states }, stop);
    const [height, width] = [shape[0] * this.stride, shape[1] * this.stride];
    const size = height * width * 3;
    return Array.from({ length: batch }, (_, b) => {
      if (wrong![b] !== 0)
        throw new DiffusionError(
          "numeric",
          `image: expected finite pixel values, got ${wrong![b]} others of ${size}; try more steps, less guidance or another sampler`,
        );
      return { width, height, data: (bytes as Uint8Array).slice(b * size, (b + 1) * size) };
    });
  }

  /** States (B, H / stride, W / stride, channels) of pictures of one size: the means of their latents. */
  async encode(images: readonly Image[], channels: number, stop: Stop = {}): Promise<Float32Array> {
    const { stage } = this;
    if (!stage) return pixelsOf(images, channels);
    const [{ width, height }] = images as readonly [Image, ...Image[]];
    const shape = [images.length, height, width, 3];
    const graph = () =>
      trace((t) => t.output("states", stage.encode(t.input("images", { shape }))));
    const inputs = { images: pixelsOf(images) };
    const { states } = await this.sessions.run(`encode ${shape.join()}`, graph, inputs, stop);
    return states as Float32Array;
  }

  /** Pictures of one size through a first stage and back. */
  async reconstruct(images: readonly Image[], options: CodecOptions = {}): Promise<ByteImage[]> {
    const stop = given(options, "signal");
    const done: ByteImage[] = [];
    await inBatches("reconstruct", images.length, options, async (first, count) => {
      const batch = images.slice(first, first + count);
      const { width, height } = batch[0]!;
      for (const image of batch) checkPictureSize("reconstruct", image, { width, height });
      const states = await this.encode(batch, 3, stop);
      const channels = this.stage?.channels ?? 3;
      const shape = [height / this.stride, width / this.stride, channels] as const;
      done.push(...(await this.decode(states, shape, stop)));
    });
    return done;
  }

  dispose(): void {
    this.sessions.dispose();
  }
}
