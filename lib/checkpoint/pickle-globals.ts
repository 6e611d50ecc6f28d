// The only names in a pickle that mean anything here: containers, tensors, storages, dtypes and numpy values, each with a
// pure function of ours. A name on the list of ways to run code is refused; any other becomes an inert object.
import { fault } from "./byte-source.js";
import {
  ArrayRef,
  describeValue,
  DtypeRef,
  PickleGlobal,
  PickleObject,
  StorageRef,
  TensorRef,
  type ElementType,
  type PickleValue,
} from "./pickle-values.js";
import type { SafetensorsDtype } from "./stored-dtype.js";

/** What a constructor may use. */
export interface PickleContext {
  readonly where: string;
  /** Counts values that are copied; throws when a pickle copies far more than it holds. */
  charge(count: number): void;
}

type Constructor = (args: readonly PickleValue[], context: PickleContext) => PickleValue;

const element = (
  name: string,
  dtype: SafetensorsDtype | "other",
  bytes: number,
): [string, ElementType] => [name, { name, dtype, bytes }];

const torchTypes = new Map<string, ElementType>([
  element("float32", "F32", 4),
  element("float64", "F64", 8),
  element("float16", "F16", 2),
  element("bfloat16", "BF16", 2),
  element("int64", "I64", 8),
  element("int32", "I32", 4),
  element("int16", "I16", 2),
  element("int8", "I8", 1),
  element("uint8", "U8", 1),
  element("uint16", "U16", 2),
  element("uint32", "U32", 4),
  element("uint64", "U64", 8),
  element("bool", "BOOL", 1),
  element("float8_e4m3fn", "F8_E4M3", 1),
  element("float8_e5m2", "F8_E5M2", 1),
  element("complex32", "other", 4),
  element("complex64", "other", 8),
  element("complex128", "other", 16),
]);

const storageTypes: Readonly<Record<string, string>> = {
  Float: "float32",
  Double: "float64",
  Half: "float16",
  BFloat16: "bfloat16",
  Long: "int64",
  Int: "int32",
  Short: "int16",
  Char: "int8",
  Byte: "uint8",
  Bool: "bool",
  ComplexFloat: "complex64",
  ComplexDouble: "complex128",
};

const quantised: Readonly<Record<string, number>> = {
  QInt8: 1,
  QUInt8: 1,
  QInt32: 4,
  QUInt4x2: 1,
  QUInt2x4: 1,
};

const untyped: ElementType = { name: "untyped bytes", dtype: "U8", bytes: 1 };

const numpyTypes: Readonly<Record<string, string>> = {
  f2: "float16",
  f4: "float32",
  f8: "float64",
  i1: "int8",
  i2: "int16",
  i4: "int32",
  i8: "int64",
  u1: "uint8",
  u2: "uint16",
  u4: "uint32",
  u8: "uint64",
  b1: "bool",
};

/** Element type of a storage class such as torch.FloatStorage; undefined for any other name. */
function storageType({ path }: PickleGlobal): ElementType | undefined {
  const name = /^torch\.(?:cuda\.|storage\.)?_?(\w+?)Storage$/.exec(path)?.[1];
  if (name === undefined) return undefined;
  if (name === "Untyped" || name === "UntypedStorage") return untyped;
  if (Object.hasOwn(quantised, name)) return { name, dtype: "other", bytes: quantised[name]! };
  return Object.hasOwn(storageTypes, name) ? torchTypes.get(storageTypes[name]!) : undefined;
}

const isCount = (value: PickleValue | undefined): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

const isCounts = (value: PickleValue | undefined): value is number[] =>
  Array.isArray(value) && value.every(isCount);

/** The storage of a persistent id ("storage", class, key, location, elements[, view]). */
export function storageOf(
  id: PickleValue,
  known: Map<string, StorageRef>,
  where: string,
): StorageRef {
  const wrong = (got: PickleValue | undefined): Error =>
    fault(where, "a persistent id of a storage", describeValue(got));
  if (!Array.isArray(id) || id[0] !== "storage") throw wrong(id);
  const [, type, key, , count, view] = id;
  const elementType = type instanceof PickleGlobal ? storageType(type) : undefined;
  if (!elementType) throw wrong(type);
  if ((typeof key !== "string" && typeof key !== "number") || String(key).length > 200)
    throw wrong(key);
  if (!isCount(count)) throw wrong(count);
  const name = String(key);
  const before = known.get(name);
  if (before && (before.type.name !== elementType.name || before.count !== count))
    throw fault(
      where,
      `storage ${name} of ${before.count} ${before.type.name} everywhere`,
      `${count} ${elementType.name}`,
    );
  const storage = before ?? new StorageRef(name, elementType, count);
  known.set(name, storage);
  if (view === null || view === undefined) return storage;
  if (!Array.isArray(view) || !isCount(view[1]) || !isCount(view[2]) || view[1] + view[2] > count)
    throw fault(
      where,
      `a view within the ${count} elements of storage ${name}`,
      describeValue(view),
    );
  const part = { offset: view[1], count: view[2] };
  return new StorageRef(name, elementType, count, undefined, part);
}

const maxRank = 16;
const maxRepeated = 1 << 24;

/** Elements of a shape, or undefined beyond 2^53. */
function product(shape: readonly number[]): number | undefined {
  if (shape.includes(0)) return 0;
  let total = 1;
  for (const extent of shape) {
    total *= extent;
    if (!Number.isSafeInteger(total)) return undefined;
  }
  return total;
}

/** A tensor on a storage. Throws "checkpoint" when it reaches outside of it. */
function tensorOn(
  storage: PickleValue | undefined,
  layout: readonly (PickleValue | undefined)[],
  { where }: PickleContext,
  dtype?: ElementType,
): TensorRef {
  const [offset, shape, strides] = layout;
  if (!(storage instanceof StorageRef)) throw fault(where, "a storage", describeValue(storage));
  const at = `${where}: a tensor on storage ${storage.key}`;
  if (!isCount(offset)) throw fault(at, "an offset from 0", describeValue(offset));
  if (!isCounts(shape) || shape.length > maxRank)
    throw fault(at, `a shape of at most ${maxRank} sizes`, shownList(shape));
  if (!isCounts(strides) || strides.length !== shape.length)
    throw fault(at, `${shape.length} strides from 0`, shownList(strides));
  const type = dtype ?? storage.type;
  const room = Math.floor(
    ((storage.view?.count ?? storage.count) * storage.type.bytes) / type.bytes,
  );
  const elements = product(shape);
  if (elements === undefined) throw fault(at, "fewer than 2^53 values", shownList(shape));
  const last = shape.reduce((sum, extent, axis) => sum + (extent - 1) * strides[axis]!, offset);
  if (elements > 0 && !(last < room))
    throw fault(
      at,
      `values within its ${room} elements`,
      `shape ${shownList(shape)} with strides ${shownList(strides)} from ${offset}`,
    );
  if (elements > room && elements > maxRepeated)
    throw fault(
      at,
      `at most ${maxRepeated} repeated values`,
      `${elements} of a storage of ${room}`,
    );
  return new TensorRef(storage, type, offset, shape, strides);
}

const shownList = (value: PickleValue | undefined): string =>
  isCounts(value) ? `[${value.slice(0, 20).join(", ")}]` : describeValue(value);

/** With marks of a view whose values are others than the stored ones it cannot be read. */
function rebuildV2(
  [storage, ...rest]: readonly PickleValue[],
  context: PickleContext,
): PickleValue {
  const marks = rest[5] instanceof Map ? [...rest[5]].filter(([, isSet]) => isSet === true) : [];
  const type = storage instanceof StorageRef && marks.length > 0 ? storage.type : undefined;
  const name = type && `${marks.map(([mark]) => String(mark)).join(" ")} view of ${type.name}`;
  return tensorOn(storage, rest, context, type && { ...type, name: name!, dtype: "other" });
}

/** Values of a sparse tensor are the last tensor of its parts; in their place they stand for what cannot be read. */
function rebuildSparse([, parts]: readonly PickleValue[], { where }: PickleContext): PickleValue {
  const values = Array.isArray(parts) ? parts.filter((part) => part instanceof TensorRef).at(-1) : undefined; // prettier-ignore
  if (!values) throw fault(where, "the parts of a sparse tensor", describeValue(parts));
  const { storage, type, offset, shape, strides } = values;
  const sparse = { ...type, name: `sparse ${type.name}`, dtype: "other" } as const;
  return new TensorRef(storage, sparse, offset, shape, strides);
}

function rebuildV3(args: readonly PickleValue[], context: PickleContext): PickleValue {
  const dtype = args[6];
  if (!(dtype instanceof DtypeRef)) throw fault(context.where, "a dtype", describeValue(dtype));
  return tensorOn(args[0], args.slice(1, 4), context, dtype.type);
}

const first: Constructor = (args) => args[0] ?? null;

const listOf = (args: readonly PickleValue[], context: PickleContext): PickleValue[] => {
  const items = args[0] ?? [];
  const list = items instanceof Set ? [...items] : items;
  if (!Array.isArray(list)) throw fault(context.where, "a list", describeValue(items));
  context.charge(list.length);
  return [...list];
};

const dictionary: Constructor = (args, context) => {
  const from = args[0] ?? [];
  const result = new Map<PickleValue, PickleValue>();
  const pairs = from instanceof Map ? [...from] : listOf([from], context);
  context.charge(pairs.length);
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2)
      throw fault(context.where, "pairs of key and value", describeValue(pair));
    result.set(pair[0]!, pair[1]!);
  }
  return result;
};

const bytesOf = (value: PickleValue | undefined): Uint8Array | undefined => {
  if (typeof value === "string") return Buffer.from(value, "latin1");
  return value instanceof Uint8Array ? value : undefined;
};

/** Bytes as older protocols write them: the text of their codes. */
const encode: Constructor = (args, context) => {
  const [text, codec] = args;
  if (typeof text !== "string" || !/^(?:latin-?1|iso-?8859-?1)$/i.test(String(codec)))
    throw fault(
      context.where,
      "a text and latin1",
      `${describeValue(text)}, ${describeValue(codec)}`,
    );
  context.charge(text.length);
  return Uint8Array.from(Buffer.from(text, "latin1"));
};

/** An object by its class, as copyreg makes it. */
const ofClass: Constructor = ([type, ...args]) =>
  new PickleObject(type instanceof PickleGlobal ? type.path : "an unnamed class", args);

/** A member of an enumeration, as Python 3.11 writes it; of anything else it can run code. */
const member: Constructor = ([type, name], { where }) => {
  if (!(type instanceof PickleGlobal) || typeof name !== "string" || !/^(?!__)\w+$/.test(name))
    throw fault(
      where,
      "a member of a class",
      `getattr of ${describeValue(type)}, ${describeValue(name)}, which can run code`,
    );
  return new PickleObject(`${type.path}.${name}`, null);
};

const numpyDtype: Constructor = ([name]) => {
  const code = typeof name === "string" ? name.replace(/^[<|=]/, "") : "";
  const known = Object.hasOwn(numpyTypes, code) ? torchTypes.get(numpyTypes[code]!) : undefined;
  return new DtypeRef(known ?? { name: `numpy ${code.slice(0, 40)}`, dtype: "other", bytes: 1 });
};

const numpyScalar: Constructor = ([dtype, value]) => {
  const bytes = bytesOf(value);
  const inert = new PickleObject("numpy.scalar", null);
  if (!(dtype instanceof DtypeRef) || dtype.isBigEndian || bytes?.length !== dtype.type.bytes)
    return inert;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  switch (dtype.type.dtype) {
    case "F32":
      return view.getFloat32(0, true);
    case "F64":
      return view.getFloat64(0, true);
    case "I64":
      return Number(view.getBigInt64(0, true));
    case "I32":
      return view.getInt32(0, true);
    case "I16":
      return view.getInt16(0, true);
    case "U8":
      return bytes[0]!;
    case "BOOL":
      return bytes[0] !== 0;
    case "BF16":
    case "F16":
    case "F8_E4M3":
    case "F8_E5M2":
    case "I8":
    case "U16":
    case "U32":
    case "U64":
    case "other":
      return inert;
  }
};

/** Gives a numpy array its state (version, shape, dtype, is column-major, bytes); object arrays stay empty. */
export function setArrayState(array: ArrayRef, state: PickleValue, context: PickleContext): void {
  const [, shape, dtype, isColumnMajor, data] = Array.isArray(state) ? state : [];
  const bytes = bytesOf(data);
  if (!(dtype instanceof DtypeRef) || dtype.isBigEndian || !bytes) return;
  if (!isCounts(shape) || shape.length > maxRank)
    throw fault(context.where, "the shape of an array", shownList(shape));
  if (product(shape) !== bytes.length / dtype.type.bytes)
    throw fault(
      context.where,
      `${bytes.length} bytes of a numpy array`,
      `shape ${shownList(shape)} of ${dtype.type.name}`,
    );
  const order = isColumnMajor === true ? [...shape.keys()] : [...shape.keys()].reverse();
  const strides = shape.map(() => 1);
  let step = 1;
  for (const axis of order) {
    strides[axis] = step;
    step *= Math.max(1, shape[axis]!);
  }
  const count = bytes.length / dtype.type.bytes;
  const storage = new StorageRef("of a numpy array", dtype.type, count, bytes);
  array.tensor = tensorOn(storage, [0, shape, strides], context);
}

const maxNested = 4;

/** _rebuild_from_type_v2(function, class, arguments, state): subclasses of tensors. */
const rebuildFromType: Constructor = (args, context) => {
  let [target, , inner] = args;
  for (let depth = 0; depth < maxNested; ++depth) {
    if (!(target instanceof PickleGlobal) || !Array.isArray(inner)) break;
    if (!target.path.endsWith("._rebuild_from_type_v2")) return construct(target, inner, context);
    [target, , inner] = inner;
  }
  throw fault(context.where, "a function and its arguments", describeValue(target));
};

const namedIn = (
  modules: readonly string[],
  entries: Readonly<Record<string, Constructor>>,
): [string, Constructor][] =>
  modules.flatMap((module) =>
    Object.entries(entries).map(([name, make]): [string, Constructor] => [
      `${module}.${name}`,
      make,
    ]),
  );

const constructors = new Map<string, Constructor>([
  ...namedIn(["torch._utils"], {
    _rebuild_tensor: ([storage, ...layout], context) => tensorOn(storage, layout, context),
    _rebuild_tensor_v2: rebuildV2,
    _rebuild_qtensor: ([storage, ...layout], context) => tensorOn(storage, layout, context),
    _rebuild_tensor_v3: rebuildV3,
    _rebuild_sparse_tensor: rebuildSparse,
    _rebuild_parameter: first,
    _rebuild_parameter_with_state: first,
  }),
  ...namedIn(["torch._tensor"], { _rebuild_from_type_v2: rebuildFromType }),
  ...namedIn(["torch"], { Size: listOf }),
  ...namedIn(["torch.jit._pickle"], {
    build_intlist: first,
    build_doublelist: first,
    build_boollist: first,
    build_tensorlist: first,
    restore_type_tag: first,
  }),
  ...namedIn(["collections"], {
    OrderedDict: dictionary,
    Counter: dictionary,
    defaultdict: (args, context) => dictionary(args.slice(1), context),
    deque: listOf,
  }),
  ...namedIn(["builtins", "__builtin__"], {
    set: (args, context) => new Set(listOf(args, context)),
    frozenset: (args, context) => new Set(listOf(args, context)),
    list: listOf,
    tuple: listOf,
    dict: dictionary,
    getattr: member,
  }),
  ...namedIn(["_codecs"], { encode }),
  ...namedIn(["copyreg", "copy_reg"], { _reconstructor: ofClass, __newobj__: ofClass }),
  ...namedIn(["numpy"], { dtype: numpyDtype }),
  ...namedIn(["numpy.core.multiarray", "numpy._core.multiarray"], {
    scalar: numpyScalar,
    _reconstruct: () => new ArrayRef(),
  }),
]);

/** Built-in names that are data. */
const plainBuiltins = new Set([
  ...[
    "set",
    "frozenset",
    "list",
    "tuple",
    "dict",
    "int",
    "long",
    "float",
    "bool",
    "str",
    "unicode",
  ],
  ...["bytes", "bytearray", "complex", "object", "slice", "range", "xrange", "Ellipsis"],
  "getattr", // see member
]);

/**
 * Modules through which a pickle could run code or reach outside if it were executed. Nothing here
 * executes one: the list is for saying what a file is up to.
 */
const codeModules = new RegExp(
  `^(?:${[
    "os posix nt pty subprocess sys shutil socket ssl importlib imp runpy pkgutil ctypes _ctypes cffi",
    "pickle _pickle cPickle marshal shelve dill cloudpickle joblib code codeop codecs commands popen2",
    "webbrowser urllib urllib2 http httplib requests ftplib smtplib telnetlib xmlrpc asyncio",
    "multiprocessing threading _thread thread signal tempfile pip setuptools distutils inspect gc",
    "bdb pdb cProfile profile timeit trace doctest pydoc platform linecache fileinput glob io _io",
    "operator _operator sqlite3 venv ensurepip zipimport atexit faulthandler resource mmap",
    "torch\\.hub torch\\.serialization(?!\\._get_layout$) torch\\.load torch\\.jit\\.load torch\\.utils\\.cpp_extension",
    "torch\\.utils\\.model_zoo torch\\.storage\\._load_from_bytes torch\\._dynamo torch\\._inductor",
    "torch\\.package torch\\.distributed\\.rpc numpy\\.load numpy\\.testing numpy\\.f2py numpy\\.distutils",
    "functools\\.reduce types\\.FunctionType types\\.CodeType types\\.LambdaType",
  ]
    .join(" ")
    .split(" ")
    .join("|")})(?:\\.|$)`,
);

/** A name that occurs in a pickle. Throws "checkpoint" for a way to run code. */
export function globalOf(module: string, name: string, where: string): PickleValue {
  const global = new PickleGlobal(module, name);
  const isBuiltin = module === "builtins" || module === "__builtin__";
  const runsCode = isBuiltin
    ? !plainBuiltins.has(name)
    : codeModules.test(global.path) ||
      (/(?:^|\.)__\w+__(?:\.|$)/.test(name) && !constructors.has(global.path));
  if (runsCode)
    throw fault(
      where,
      "data",
      `${JSON.stringify(global.path.slice(0, 120))}, which can run code; it was not executed, do not open this file elsewhere`,
    );
  const dtype = module === "torch" ? torchTypes.get(name) : undefined;
  return dtype ? new DtypeRef(dtype) : global;
}

/** An object of a class, or the result of a function: ours when it is on the list, else inert. */
export function construct(
  { path }: PickleGlobal,
  args: readonly PickleValue[],
  context: PickleContext,
): PickleValue {
  const make = constructors.get(path);
  return make ? make(args, context) : new PickleObject(path, args as PickleValue[]);
}
