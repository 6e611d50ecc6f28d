// Graph -> versioned bytes, little endian: the whole contract with native/ir/decode.cc.
import type { DType } from "./dtype.js";
import { dtypes } from "./dtype.js";
import type { Attr, Attrs, Graph, Node, Role } from "./graph.js";
import { sortedAttrs } from "./print.js";

export const formatVersion = 1;

const magic = "SMLG";
const roleCodes: Record<Role, number> = { input: 0, weight: 1, state: 2 };
const dtypeCode = (dtype: DType): number => dtypes.indexOf(dtype);

/** Bytes that grow by doubling. */
class ByteWriter {
  private bytes = new Uint8Array(2 ** 17);
  private readonly texts = new Map<string, Uint8Array>();
  private readonly encoder = new TextEncoder();
  private view = new DataView(this.bytes.buffer);
  private length = 0;

  u8(value: number): void {
    const at = this.take(1);
    this.view.setUint8(at, value);
  }

  u32(value: number): void {
    const at = this.take(4);
    this.view.setUint32(at, value, true);
  }

  i64(value: number): void {
    const at = this.take(8);
    this.view.setUint32(at, value >>> 0, true);
    this.view.setInt32(at + 4, Math.floor(value / 2 ** 32), true);
  }

  f64(value: number): void {
    const at = this.take(8);
    this.view.setFloat64(at, value, true);
  }

  text(value: string): void {
    let text = this.texts.get(value);
    if (!text) this.texts.set(value, (text = this.sized(value)));
    const at = this.take(text.length);
    this.bytes.set(text, at);
  }

  /** Length and UTF-8. Most texts are names of operations and attributes, again and again. */
  private sized(value: string): Uint8Array {
    const utf8 = this.encoder.encode(value);
    const text = new Uint8Array(4 + utf8.length);
    new DataView(text.buffer).setUint32(0, utf8.length, true);
    text.set(utf8, 4);
    return text;
  }

  /** Their number and each. */
  ids(values: readonly number[]): void {
    let at = this.take(4 + 4 * values.length);
    this.view.setUint32(at, values.length, true);
    for (const value of values) this.view.setUint32((at += 4), value, true);
  }

  finish(): Uint8Array {
    return this.bytes.slice(0, this.length);
  }

  /** Offset of `count` fresh bytes. May replace `bytes` and `view`, so it comes before their use. */
  private take(count: number): number {
    const start = this.length;
    this.length += count;
    if (this.length > this.bytes.length) this.grow();
    return start;
  }

  private grow(): void {
    const larger = new Uint8Array(Math.max(2 * this.bytes.length, this.length));
    larger.set(this.bytes);
    this.bytes = larger;
    this.view = new DataView(larger.buffer);
  }
}

/** The bytes that `compile` takes. Equal graphs give equal bytes. */
export function encode(graph: Graph): Uint8Array {
  const out = new ByteWriter();
  for (const letter of magic) out.u8(letter.charCodeAt(0));
  out.u32(formatVersion);
  out.u32(graph.values.length);
  for (const { dtype, shape } of graph.values) {
    out.u8(dtypeCode(dtype));
    out.u8(shape.length);
    shape.forEach((n) => out.i64(n));
  }
  out.u32(graph.nodes.length);
  for (const node of graph.nodes) writeNode(out, node);
  writeInterface(out, graph);
  return out.finish();
}

function writeNode(out: ByteWriter, { op, scope, inputs, outputs, attrs }: Node): void {
  out.text(op);
  out.text(scope);
  out.ids(inputs);
  out.ids(outputs);
  writeAttrs(out, attrs);
}

function writeAttrs(out: ByteWriter, attrs: Attrs): void {
  const sorted = sortedAttrs(attrs);
  out.u32(sorted.length);
  for (const [key, value] of sorted) {
    out.text(key);
    writeAttr(out, value);
  }
}

function writeAttr(out: ByteWriter, value: Attr): void {
  if (typeof value === "number") {
    out.u8(0);
    out.f64(value);
  } else if (typeof value === "string") {
    out.u8(1);
    out.text(value);
  } else if (typeof value === "boolean") {
    out.u8(2);
    out.u8(value ? 1 : 0);
  } else {
    out.u8(3);
    out.u32(value.length);
    for (const item of value) out.f64(item);
  }
}

function writeInterface(out: ByteWriter, { inputs, outputs }: Graph): void {
  out.u32(inputs.length);
  for (const { name, value, role } of inputs) {
    out.text(name);
    out.u32(value);
    out.u8(roleCodes[role]);
  }
  out.u32(outputs.length);
  for (const { name, value, updates } of outputs) {
    out.text(name);
    out.u32(value);
    out.u8(updates === undefined ? 0 : 1);
    if (updates !== undefined) out.text(updates);
  }
}
