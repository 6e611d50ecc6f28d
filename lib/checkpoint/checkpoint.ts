// An open checkpoint of any format: names, shapes and element types in memory, values on disk until read.
import { DiffusionError, nearestName } from "../errors.js";
import { allocate, fault, readAt, type ByteSource } from "./byte-source.js";
import {
  isFloat,
  layouts,
  toFloats,
  type SafetensorsDtype,
  type StoredArray,
} from "./stored-dtype.js";

export interface TensorInfo {
  name: string;
  dtype: SafetensorsDtype;
  shape: readonly number[];
  elements: number;
  /** Of the values, without gaps. */
  bytes: number;
  /** First byte of the first value in its file. */
  offset: number;
}

/** A configuration of the original. */
export interface FoundConfig {
  /** File, or place in the checkpoint. */
  where: string;
  value: Readonly<Record<string, unknown>>;
}

/** A tensor and where its values are. */
export interface PlacedTensor {
  info: TensorInfo;
  source: ByteSource;
  /** In elements, one an axis; absent when the values are row-major without gaps. */
  strides?: readonly number[];
}

export type CheckpointFormat = "safetensors" | "sharded" | "torch zip" | "torch legacy";

export interface CheckpointParts {
  format: CheckpointFormat;
  tensors: ReadonlyMap<string, PlacedTensor>;
  metadata?: Readonly<Record<string, string>>;
  /** What was chosen or left out, for people. */
  notes?: readonly string[];
  /** Configurations that were found inside or beside the file, outermost first. */
  configs?: readonly FoundConfig[];
  close(): Promise<void>;
}

const maxNearestCandidates = 2000;
const maxNearestLength = 200; // the time of a comparison grows with the product of the lengths

/**
 * The most similar of the first 2,000 candidates of about the same length, for messages: a file may
 * hold any number of names of any length.
 */
export function nearestTensorName(name: string, candidates: Iterable<string>): string | undefined {
  if (name.length > maxNearestLength) return undefined;
  const slack = Math.max(2, name.length / 3); // nearestName takes nothing further away
  const similar: string[] = [];
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - name.length) <= slack) similar.push(candidate);
    if (similar.length === maxNearestCandidates) break;
  }
  return nearestName(name, similar);
}

/** An open checkpoint; see openCheckpoint. */
export class Checkpoint implements Disposable {
  readonly format: CheckpointFormat;
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of the file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly notes: readonly string[];
  readonly configs: readonly FoundConfig[];
  readonly #placed: ReadonlyMap<string, PlacedTensor>;
  readonly #close: () => Promise<void>;
  #isClosed = false;

  constructor(
    readonly path: string,
    { format, tensors, metadata = {}, notes = [], configs = [], close }: CheckpointParts,
  ) {
    this.format = format;
    this.metadata = metadata;
    this.notes = notes;
    this.configs = configs;
    this.tensors = new Map([...tensors].map(([name, { info }]) => [name, info]));
    this.#placed = tensors;
    this.#close = close;
  }

  /** The same open checkpoint with other notes and configurations; closing either closes both. */
  with(parts: Pick<CheckpointParts, "notes" | "configs">): Checkpoint {
    const { path, format, metadata } = this;
    const close = (): Promise<void> => this.close();
    return new Checkpoint(path, { format, metadata, tensors: this.#placed, close, ...parts });
  }

  get names(): string[] {
    return [...this.tensors.keys()];
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /** What a tensor is. Throws "checkpoint" with the nearest name when there is none. */
  info(name: string): TensorInfo {
    return this.placed(name).info;
  }

  /** Where a tensor lies. Throws like info. */
  placed(name: string): PlacedTensor {
    const placed = this.#placed.get(name);
    if (placed) return placed;
    const nearest = nearestTensorName(name, this.tensors.keys());
    throw fault(
      this.path,
      `a tensor "${name}"`,
      `none of that name among ${this.tensors.size}${nearest ? `; did you mean "${nearest}"?` : ""}`,
    );
  }

  /** The stored values of one tensor, row-major; F16 and BF16 come as their bits in a Uint16Array. */
  async read(name: string): Promise<StoredArray> {
    const placed = this.#readable(name);
    const { dtype, bytes, offset } = placed.info;
    if (!placed.strides) return layouts[dtype].make(await readAt(placed.source, offset, bytes));
    const values = layouts[dtype].make(allocate(this.path, bytes));
    await readStrided(placed, values, (stored) => stored);
    return values;
  }

  /**
   * One tensor as float32, into `out` when given; F16, BF16 and F64 are converted. Throws
   * "checkpoint" for whole numbers and "shape" for an `out` of another length.
   */
  async readF32(name: string, out?: Float32Array<ArrayBuffer>): Promise<Float32Array<ArrayBuffer>> {
    const placed = this.#readable(name);
    const { dtype, elements, offset } = placed.info;
    if (!isFloat(dtype)) throw fault(this.path, `floats in "${name}"`, dtype);
    if (out && out.length !== elements)
      throw new DiffusionError(
        "shape",
        `${this.path}: expected room for the ${elements} values of "${name}", got ${out.length}`,
      );
    const values = out ?? new Float32Array(allocate(this.path, elements * 4));
    if (dtype === "F32" && !placed.strides) {
      const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      await placed.source.readInto(bytes, offset);
      return values;
    }
    await readStrided(placed, values, (stored) => toFloats(dtype, stored));
    return values;
  }

  #readable(name: string): PlacedTensor {
    if (this.#isClosed) throw fault(this.path, "an open file", "a closed one");
    return this.placed(name);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#close();
  }

  /** Closes in the background; nothing is written, so there is nothing to wait for. */
  [Symbol.dispose](): void {
    void this.close().catch(() => undefined);
  }
}

/** Axes in the order of storage, longest stride first, each with its step in the row-major result. */
interface Axis {
  extent: number;
  stride: number;
  step: number;
}

function axesOf({ info, strides }: PlacedTensor): Axis[] {
  if (!strides) return [{ extent: info.elements, stride: 1, step: 1 }];
  let step = 1;
  const axes: Axis[] = [];
  for (let axis = info.shape.length - 1; axis >= 0; --axis) {
    const extent = info.shape[axis]!;
    if (extent !== 1) axes.push({ extent, stride: strides[axis]!, step });
    step *= extent;
  }
  return axes.sort((a, b) => b.stride - a.stride);
}

const pieceBytes = 1 << 23;

/** Elements from the first to the last of a box of axes. */
const spanOf = (axes: readonly Axis[]): number =>
  axes.reduce((span, { extent, stride }) => span + (extent - 1) * stride, 1);

/**
 * Reads in pieces of at most 8 MB, in the order of storage, and puts every value where it belongs.
 */
async function readStrided(
  placed: PlacedTensor,
  out: StoredArray,
  convert: (stored: StoredArray) => StoredArray,
): Promise<void> {
  const { info, source } = placed;
  if (info.elements === 0) return;
  const { bytes: width, make } = layouts[info.dtype];
  const limit = pieceBytes / width;
  const visit = async (axes: readonly Axis[], from: number, to: number): Promise<void> => {
    const [first, ...rest] = axes;
    const restSpan = spanOf(rest);
    const fits =
      !first || first.stride === 0 ? 1 : Math.floor((limit - restSpan) / first.stride) + 1;
    if (first && restSpan > limit) {
      for (let i = 0; i < first.extent; ++i)
        await visit(rest, from + i * first.stride, to + i * first.step);
      return;
    }
    const extent = first?.extent ?? 1;
    const block = first?.stride === 0 ? extent : Math.max(1, fits);
    for (let i = 0; i < extent; i += block) {
      const count = Math.min(block, extent - i);
      const box = first ? [{ ...first, extent: count }, ...rest] : [];
      const start = from + i * (first?.stride ?? 0);
      const stored = make(await readAt(source, info.offset + start * width, spanOf(box) * width));
      scatter(convert(stored), out, box, to + i * (first?.step ?? 0));
    }
  };
  await visit(axesOf(placed), 0, 0);
}

/** Copies a box of values to their places from `base`. */
function scatter(values: StoredArray, out: StoredArray, axes: readonly Axis[], base: number): void {
  if (axes.every(({ stride, step }) => stride === 1 && step === 1)) {
    (out as Uint8Array).set(values as Uint8Array, base); // same element type on both sides
    return;
  }
  const place = axes.map(() => 0);
  const total = axes.reduce((product, { extent }) => product * extent, 1);
  let from = 0;
  let to = base;
  for (let i = 0; i < total; ++i) {
    out[to] = values[from]!;
    for (let axis = axes.length - 1; axis >= 0; --axis) {
      const { extent, stride, step } = axes[axis]!;
      from += stride;
      to += step;
      if (++place[axis]! < extent) break;
      place[axis] = 0;
      from -= stride * extent;
      to -= step * extent;
    }
  }
}
