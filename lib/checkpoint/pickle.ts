// Python's pickle format, protocols 0 to 5 (CPython Lib/pickletools.py describes every code), read into plain data.
// A stack machine without the ability to call: names become descriptions, and only pickle-globals.ts gives some a meaning.
import { fault } from "./byte-source.js";
import {
  construct,
  globalOf,
  setArrayState,
  storageOf,
  type PickleContext,
} from "./pickle-globals.js";
import {
  ArrayRef,
  describeValue,
  DtypeRef,
  PickleGlobal,
  PickleObject,
  type PickleValue,
  type StorageRef,
} from "./pickle-values.js";

/** Codes beyond these are refused: real checkpoints have some hundred thousand. */
export const pickleLimits = {
  codes: 8_000_000,
  containers: 1_000_000,
  integerBytes: 1024,
} as const;

export interface Unpickled {
  value: PickleValue;
  /** Bytes up to and with the STOP code. */
  bytes: number;
  /** Every storage that it names, by key. */
  storages: ReadonlyMap<string, StorageRef>;
}

/** The bytes ended before the pickle did: there may be more in the file. */
export class PickleEnd extends Error {}

/** Reads one pickle. Throws "checkpoint" for anything unsound, PickleEnd when the bytes end too early. */
export const unpickle = (bytes: Uint8Array, where: string): Unpickled =>
  new Unpickler(bytes, where).run();

const latin1 = new TextDecoder("latin1");
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

class Unpickler implements PickleContext {
  readonly #view: DataView;
  #at = 0;
  #stack: PickleValue[] = [];
  /** Heights of the stack at each MARK. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickleValue>();
  readonly storages = new Map<string, StorageRef>();
  #containers = 0;
  #copied = 0;

  constructor(
    readonly bytes: Uint8Array,
    readonly where: string,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  run(): Unpickled {
    for (let codes = 0; codes < pickleLimits.codes; ++codes) {
      const code = this.bytes[this.take(1)]!;
      if (code === 0x2e) return { value: this.pop(), bytes: this.#at, storages: this.storages };
      const handler = handlers[code];
      if (!handler)
        throw this.wrong("a pickle code", `0x${code.toString(16)} at byte ${this.#at - 1}`);
      handler(this);
    }
    throw this.wrong(`at most ${pickleLimits.codes} pickle codes`, "more");
  }

  wrong(expected: string, got: string): Error {
    return fault(`${this.where}: pickle`, expected, got);
  }

  /** Position of the next `count` bytes, which are then passed. */
  take(count: number): number {
    const at = this.#at;
    if (at + count > this.bytes.length) throw new PickleEnd();
    this.#at = at + count;
    return at;
  }

  u8(): number {
    return this.bytes[this.take(1)]!;
  }

  u16(): number {
    return this.#view.getUint16(this.take(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.take(4), true);
  }

  i32(): number {
    return this.#view.getInt32(this.take(4), true);
  }

  /** A length of 8 bytes. */
  u64(): number {
    const value = this.#view.getBigUint64(this.take(8), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.wrong("a length", String(value));
    return Number(value);
  }

  f64(): number {
    return this.#view.getFloat64(this.take(8), false);
  }

  slice(length: number): Uint8Array {
    const at = this.take(length);
    return this.bytes.subarray(at, at + length);
  }

  text(length: number): string {
    return utf8.decode(this.slice(length));
  }

  byteText(length: number): string {
    return latin1.decode(this.slice(length));
  }

  /** The rest of the line, without its end. */
  line(): string {
    const end = this.bytes.indexOf(10, this.#at);
    if (end < 0) throw new PickleEnd();
    const at = this.take(end + 1 - this.#at);
    return latin1.decode(this.bytes.subarray(at, end)).replace(/\r$/, "");
  }

  /** A whole number of a line; L at the end as Python 2 wrote. */
  lineInteger(line = this.line()): number | bigint {
    const text = line.replace(/L$/, "");
    if (!/^[+-]?\d{1,400}$/.test(text)) throw this.wrong("a whole number", text.slice(0, 40));
    const value = Number(text);
    return Number.isSafeInteger(value) ? value : BigInt(text.replace("+", ""));
  }

  /** Little-endian two's complement of `length` bytes. */
  integer(length: number): number | bigint {
    if (length < 0 || length > pickleLimits.integerBytes)
      throw this.wrong(`integers of at most ${pickleLimits.integerBytes} bytes`, String(length));
    const bytes = this.slice(length);
    if (length === 0) return 0;
    const hex = Buffer.from(bytes).reverse().toString("hex");
    const value = BigInt.asIntN(length * 8, BigInt(`0x${hex}`));
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  push(value: PickleValue): void {
    if (typeof value === "object" && value !== null && ++this.#containers > pickleLimits.containers)
      throw this.wrong(`at most ${pickleLimits.containers} objects`, "more");
    this.#stack.push(value);
  }

  /** Pushes a value that is there already. */
  pushAgain(value: PickleValue): void {
    this.#stack.push(value);
  }

  pop(): PickleValue {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0))
      throw this.wrong("a value on the stack", "none; the pickle is damaged");
    return this.#stack.pop()!;
  }

  top(): PickleValue {
    const value = this.pop();
    this.#stack.push(value);
    return value;
  }

  mark(): void {
    this.#marks.push(this.#stack.length);
  }

  popMark(): PickleValue[] {
    const height = this.#marks.pop();
    if (height === undefined)
      throw this.wrong("a mark on the stack", "none; the pickle is damaged");
    return this.#stack.splice(height);
  }

  /** POP: a value, or a mark when that is on top. */
  drop(): void {
    if (this.#marks.at(-1) === this.#stack.length) this.#marks.pop();
    else this.pop();
  }

  get memoSize(): number {
    return this.#memo.size;
  }

  remember(index: number): void {
    this.#memo.set(index, this.top());
  }

  recall(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) throw this.wrong("a remembered value", `none with number ${index}`);
    this.#stack.push(value);
  }

  charge(count: number): void {
    this.#copied += count;
    if (this.#copied > pickleLimits.codes + 8 * this.bytes.length)
      throw this.wrong("a pickle that copies no more than it holds", "copies of copies (a bomb)");
  }

  /** The class on the stack, made with arguments. */
  make(target: PickleValue, args: PickleValue): void {
    if (!(target instanceof PickleGlobal))
      throw this.wrong("a class or function by name", describeValue(target));
    if (!Array.isArray(args)) throw this.wrong("a tuple of arguments", describeValue(args));
    this.push(construct(target, args, this));
  }

  setItems(target: PickleValue, items: readonly PickleValue[]): void {
    if (items.length % 2 !== 0)
      throw this.wrong("pairs of key and value", `${items.length} values`);
    if (!(target instanceof Map) && !(target instanceof PickleObject))
      throw this.wrong("a dictionary to fill", describeValue(target));
    for (let i = 0; i < items.length; i += 2) {
      if (target instanceof Map) target.set(items[i]!, items[i + 1]!);
      else target.entries.push([items[i]!, items[i + 1]!]);
    }
  }

  append(target: PickleValue, items: readonly PickleValue[]): void {
    if (Array.isArray(target)) for (const item of items) target.push(item);
    else if (target instanceof Set) for (const item of items) target.add(item);
    else if (target instanceof PickleObject)
      for (const item of items) target.entries.push([null, item]);
    else throw this.wrong("a list to fill", describeValue(target));
  }

  /** BUILD: state of an object; of a container it is left out (OrderedDict's _metadata). */
  setState(target: PickleValue, state: PickleValue): void {
    if (target instanceof PickleObject) target.state = state;
    else if (target instanceof ArrayRef) setArrayState(target, state, this);
    else if (target instanceof DtypeRef)
      target.isBigEndian = Array.isArray(state) && state[1] === ">";
    else if (typeof target !== "object" || target === null)
      throw this.wrong("an object that has a state", describeValue(target));
  }
}

type Handler = (vm: Unpickler) => void;

const extension: Handler = (vm) => {
  throw vm.wrong("names in the pickle", "a number of an extension registry");
};

const outOfBand: Handler = (vm) => {
  throw vm.wrong("all data in the file", "a buffer that was kept outside");
};

function pushGlobal(vm: Unpickler, module: PickleValue, name: PickleValue): void {
  if (typeof module !== "string" || typeof name !== "string")
    throw vm.wrong("a module and a name", `${describeValue(module)}, ${describeValue(name)}`);
  vm.push(globalOf(module, name, `${vm.where}: pickle`));
}

/** A quoted text of protocol 0. */
function quoted(vm: Unpickler): string {
  const text = /^(['"])(.*)\1$/s.exec(vm.line())?.[2];
  if (text === undefined) throw vm.wrong("a quoted text", "another line");
  return text.replace(/\\(x[\da-fA-F]{2}|.)/g, (_, code: string) => escapeOf(code));
}

const escapes: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", 0: "\0" };

const escapeOf = (code: string): string =>
  code.length === 3 ? String.fromCharCode(parseInt(code.slice(1), 16)) : (escapes[code] ?? code);

const rawUnicode = (line: string): string =>
  line.replace(/\\u([\da-fA-F]{4})|\\U([\da-fA-F]{8})/g, (whole, short?: string, long?: string) => {
    const code = parseInt(short ?? long!, 16);
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });

function lineFloat(vm: Unpickler): number {
  const text = vm.line();
  const value = /^-?inf$/.test(text) ? Number(`${text}inity`.replace("i", "I")) : Number(text);
  if (text.trim() === "" || (Number.isNaN(value) && text !== "nan"))
    throw vm.wrong("a number", text.slice(0, 40));
  return value;
}

/** INT: 00 and 01 are the truth values of protocol 0. */
function lineInt(vm: Unpickler): void {
  const line = vm.line();
  vm.push(line === "00" || line === "01" ? line === "01" : vm.lineInteger(line));
}

function memoIndex(vm: Unpickler): number {
  const index = vm.lineInteger();
  if (typeof index !== "number" || index < 0) throw vm.wrong("a memo number", String(index));
  return index;
}

/** A storage; or, of whole modules before torch 1.6, ("module", class, source file, source), which is the class. */
function persistent(vm: Unpickler, id: PickleValue): void {
  if (Array.isArray(id) && id[0] === "module" && id[1] instanceof PickleGlobal) vm.push(id[1]);
  else vm.push(storageOf(id, vm.storages, `${vm.where}: pickle`));
}

const tuple =
  (size: number): Handler =>
  (vm) => {
    const items = Array.from({ length: size }, () => vm.pop()).reverse();
    vm.push(items);
  };

const frame: Handler = (vm) => void vm.u64();

/** NEWOBJ and REDUCE are the same here: a name and a tuple. */
const make: Handler = (vm) => {
  const args = vm.pop();
  vm.make(vm.pop(), args);
};

const pairs = (vm: Unpickler): Map<PickleValue, PickleValue> => {
  const items = vm.popMark();
  const map = new Map<PickleValue, PickleValue>();
  vm.setItems(map, items);
  return map;
};

const protocolOf: Handler = (vm) => {
  const version = vm.u8();
  if (version > 5) throw vm.wrong("pickle protocol 0 to 5", String(version));
};

const table: readonly (readonly [number | string, Handler])[] = [
  ["(", (vm) => vm.mark()],
  ["0", (vm) => vm.drop()],
  ["1", (vm) => void vm.popMark()],
  ["2", (vm) => vm.pushAgain(vm.top())],
  ["F", (vm) => vm.push(lineFloat(vm))],
  ["G", (vm) => vm.push(vm.f64())],
  ["I", lineInt],
  ["L", (vm) => vm.push(vm.lineInteger())],
  ["J", (vm) => vm.push(vm.i32())],
  ["K", (vm) => vm.push(vm.u8())],
  ["M", (vm) => vm.push(vm.u16())],
  [0x8a, (vm) => vm.push(vm.integer(vm.u8()))],
  [0x8b, (vm) => vm.push(vm.integer(vm.i32()))],
  ["N", (vm) => vm.push(null)],
  [0x88, (vm) => vm.push(true)],
  [0x89, (vm) => vm.push(false)],
  ["S", (vm) => vm.push(quoted(vm))],
  ["T", (vm) => vm.push(vm.byteText(vm.u32()))],
  ["U", (vm) => vm.push(vm.byteText(vm.u8()))],
  ["V", (vm) => vm.push(rawUnicode(vm.line()))],
  ["X", (vm) => vm.push(vm.text(vm.u32()))],
  [0x8c, (vm) => vm.push(vm.text(vm.u8()))],
  [0x8d, (vm) => vm.push(vm.text(vm.u64()))],
  ["B", (vm) => vm.push(vm.slice(vm.u32()))],
  ["C", (vm) => vm.push(vm.slice(vm.u8()))],
  [0x8e, (vm) => vm.push(vm.slice(vm.u64()))],
  [0x96, (vm) => vm.push(vm.slice(vm.u64()))],
  ["P", (vm) => persistent(vm, vm.line())],
  ["Q", (vm) => persistent(vm, vm.pop())],
  ["R", make],
  [0x81, make],
  [
    0x92,
    (vm) => {
      const named = vm.pop();
      if (!(named instanceof Map)) throw vm.wrong("named arguments", describeValue(named));
      make(vm);
    },
  ],
  [
    "b",
    (vm) => {
      const state = vm.pop();
      vm.setState(vm.top(), state);
    },
  ],
  ["c", (vm) => pushGlobal(vm, vm.line(), vm.line())],
  [
    0x93,
    (vm) => {
      const name = vm.pop();
      pushGlobal(vm, vm.pop(), name);
    },
  ],
  [
    "i",
    (vm) => {
      pushGlobal(vm, vm.line(), vm.line());
      const type = vm.pop();
      vm.make(type, vm.popMark());
    },
  ],
  [
    "o",
    (vm) => {
      const [type, ...args] = vm.popMark();
      vm.make(type ?? null, args);
    },
  ],
  [
    "a",
    (vm) => {
      const item = vm.pop();
      vm.append(vm.top(), [item]);
    },
  ],
  [
    "e",
    (vm) => {
      const items = vm.popMark();
      vm.append(vm.top(), items);
    },
  ],
  [
    0x90,
    (vm) => {
      const items = vm.popMark();
      vm.append(vm.top(), items);
    },
  ],
  [
    "s",
    (vm) => {
      const value = vm.pop();
      const key = vm.pop();
      vm.setItems(vm.top(), [key, value]);
    },
  ],
  [
    "u",
    (vm) => {
      const items = vm.popMark();
      vm.setItems(vm.top(), items);
    },
  ],
  ["d", (vm) => vm.push(pairs(vm))],
  ["l", (vm) => vm.push(vm.popMark())],
  ["t", (vm) => vm.push(vm.popMark())],
  [")", tuple(0)],
  [0x85, tuple(1)],
  [0x86, tuple(2)],
  [0x87, tuple(3)],
  ["]", (vm) => vm.push([])],
  ["}", (vm) => vm.push(new Map())],
  [0x8f, (vm) => vm.push(new Set())],
  [0x91, (vm) => vm.push(new Set(vm.popMark()))],
  ["g", (vm) => vm.recall(memoIndex(vm))],
  ["h", (vm) => vm.recall(vm.u8())],
  ["j", (vm) => vm.recall(vm.u32())],
  ["p", (vm) => vm.remember(memoIndex(vm))],
  ["q", (vm) => vm.remember(vm.u8())],
  ["r", (vm) => vm.remember(vm.u32())],
  [0x94, (vm) => vm.remember(vm.memoSize)],
  [0x80, protocolOf],
  [0x95, frame],
  [0x82, extension],
  [0x83, extension],
  [0x84, extension],
  [0x97, outOfBand],
  [0x98, outOfBand],
];

const handlers: readonly (Handler | undefined)[] = (() => {
  const list = new Array<Handler | undefined>(256).fill(undefined);
  for (const [code, handler] of table)
    list[typeof code === "number" ? code : code.charCodeAt(0)] = handler;
  return list;
})();
