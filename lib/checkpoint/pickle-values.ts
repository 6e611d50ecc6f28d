// What the unpickler makes: plain values, and inert descriptions of everything else. No value of these ever does anything.
import type { SafetensorsDtype } from "./stored-dtype.js";

/** A class or function that is named, and never looked up. */
export class PickleGlobal {
  constructor(
    readonly module: string,
    readonly name: string,
  ) {}

  get path(): string {
    return `${this.module}.${this.name}`;
  }
}

/** An object of a class that is not on the allow-list: what it was made from, and nothing more. */
export class PickleObject {
  state: PickleValue = null;
  readonly entries: [PickleValue, PickleValue][] = [];

  constructor(
    readonly type: string,
    readonly args: PickleValue,
  ) {}
}

/** Element type of a storage; "other" cannot be read (complex, quantised). */
export interface ElementType {
  dtype: SafetensorsDtype | "other";
  bytes: number;
  /** As the original calls it. */
  name: string;
}

/** A storage, by its key in the file, or its bytes. */
export class StorageRef {
  constructor(
    readonly key: string,
    readonly type: ElementType,
    /** Elements of the whole storage. */
    readonly count: number,
    readonly inline?: Uint8Array,
    /** Elements before the first of a view, and its length: legacy files store views of storages. */
    readonly view?: { offset: number; count: number },
  ) {}
}

/** A tensor on a storage; offset and strides in elements. */
export class TensorRef {
  constructor(
    readonly storage: StorageRef,
    readonly type: ElementType,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

/** torch.float32 and the like, or a numpy dtype. */
export class DtypeRef {
  isBigEndian = false;

  constructor(readonly type: ElementType) {}
}

/** A numpy array before and after its state is set. */
export class ArrayRef {
  tensor: TensorRef | undefined;
}

export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | PickleValue[]
  | Map<PickleValue, PickleValue>
  | Set<PickleValue>
  | PickleGlobal
  | PickleObject
  | StorageRef
  | TensorRef
  | DtypeRef
  | ArrayRef;

/** A value in a few words, for messages. */
export function describeValue(value: PickleValue | undefined): string {
  if (value === undefined) return "nothing";
  if (value === null) return "None";
  if (typeof value === "string") return `the text ${JSON.stringify(value.slice(0, 60))}`;
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean")
    return String(value).slice(0, 60);
  if (value instanceof PickleGlobal) return value.path.slice(0, 120);
  if (value instanceof PickleObject) return `an object of ${value.type.slice(0, 120)}`;
  if (value instanceof TensorRef || value instanceof ArrayRef) return "a tensor";
  if (value instanceof StorageRef) return "a storage";
  if (value instanceof DtypeRef) return value.type.name;
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (value instanceof Map) return `a dictionary of ${value.size}`;
  if (value instanceof Set) return `a set of ${value.size}`;
  return `a list of ${value.length}`;
}
