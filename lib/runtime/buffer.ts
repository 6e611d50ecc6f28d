// Memory that the core owns: weights and training state that outlive a run.
import { DiffusionError, formatShape } from "../errors.js";
import { dtypeBytes, type DType } from "../ir/dtype.js";
import { sizeOf, type Shape } from "../ir/shape.js";
import {
  native,
  nativeSync,
  type FileValues,
  type NativeBuffer,
  type TypedArray,
} from "./native.js";

/** Values of a tensor: f32 Float32Array, f64 Float64Array, i32 Int32Array, u8 and bool Uint8Array, f16 and bf16 Uint16Array. */
export type TensorData = TypedArray;

type ArrayConstructor = { new (buffer: ArrayBuffer): TypedArray; new (length: number): TypedArray };

const arrays: Record<DType, ArrayConstructor> = {
  f32: Float32Array,
  f64: Float64Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  i32: Int32Array,
  u8: Uint8Array,
  bool: Uint8Array,
};

/** A typed array for a dtype: zeros of a length, or a view of bytes. */
export const arrayFor = (dtype: DType, source: number | ArrayBuffer): TypedArray =>
  typeof source === "number" ? new arrays[dtype](source) : new arrays[dtype](source);

/** Checks that values fit a dtype and shape. Throws "dtype" or "shape". */
export function expectData(where: string, data: TypedArray, dtype: DType, shape: Shape): void {
  if (!(data instanceof arrays[dtype])) {
    throw new DiffusionError(
      "dtype",
      `${where}: expected ${arrays[dtype].name} for ${dtype}${formatShape(shape)}, got ${(data as object | undefined)?.constructor.name ?? String(data)}`,
    );
  }
  if (data.length !== sizeOf(shape)) {
    throw new DiffusionError(
      "shape",
      `${where}: expected ${sizeOf(shape)} values for ${dtype}${formatShape(shape)}, got ${data.length}`,
    );
  }
}

const bytesOf = (data: TypedArray): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

export class Buffer implements Disposable {
  private constructor(
    readonly dtype: DType,
    readonly shape: Shape,
    /** For binding; the runtime's own business. */
    readonly handle: NativeBuffer,
  ) {}

  /** Zeros. Throws "memory" when there is not enough; `name` is what that error calls the buffer. */
  static alloc(dtype: DType, shape: Shape, name = ""): Buffer {
    return Buffer.#make(dtype, shape, name);
  }

  /**
   * Float values that stay in their file until a program is bound to them; what the core packs is given up again. They
   * cannot be written. Throws "checkpoint" when there is no readable file, as binding does when it ends too early.
   */
  static fromFile(source: FileValues, shape: Shape, name = ""): Buffer {
    return Buffer.#make("f32", shape, name, source);
  }

  static #make(dtype: DType, shape: Shape, name: string, source?: FileValues): Buffer {
    const addon = native();
    const bytes = sizeOf(shape) * dtypeBytes(dtype);
    const label = `${name} ${dtype}${formatShape(shape)}`.trim();
    const handle = nativeSync(() => new addon.NativeBuffer(bytes, label, source));
    return new Buffer(dtype, shape, handle);
  }

  /** A copy of the values. Throws "dtype" or "shape" when they do not fit, "memory" as `alloc`. */
  static fromArray(data: TypedArray, dtype: DType, shape: Shape, name = ""): Buffer {
    expectData("Buffer.fromArray", data, dtype, shape);
    const buffer = Buffer.alloc(dtype, shape, name);
    buffer.write(data);
    return buffer;
  }

  get byteLength(): number {
    return this.handle.byteLength;
  }

  /** A copy of the values. */
  read(): TypedArray {
    return arrayFor(
      this.dtype,
      nativeSync(() => this.handle.read()),
    );
  }

  write(data: TypedArray): void {
    expectData("Buffer.write", data, this.dtype, this.shape);
    nativeSync(() => this.handle.write(bytesOf(data)));
  }

  dispose(): void {
    this.handle.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
