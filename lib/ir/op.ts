// What an op is: its inputs, typed attributes, the inference of output specs, and traits. Passes read traits, never names.
import { DiffusionError, formatShape, nearestName } from "../errors.js";
import type { DType } from "./dtype.js";
import { isDType } from "./dtype.js";
import type { Attrs, Spec } from "./graph.js";

/**
 * pointwise: elementwise with broadcasting; movement: only moves elements; reduction: folds axes; random: draws from a
 * key; inPlaceOk: the output may take an input's memory; fused: the tracing layer has a decomposition;
 * source: no inputs and a spec of its own.
 */
export type Trait =
  "pointwise" | "movement" | "reduction" | "random" | "inPlaceOk" | "fused" | "source";

export interface OpDef {
  readonly name: string;
  readonly traits: ReadonlySet<Trait>;
  /** Names of the attributes it takes. */
  readonly attrNames: readonly string[];
  /** Output specs, or a DiffusionError that shows what was expected and what came. */
  readonly infer: (inputs: readonly Spec[], attrs: Attrs) => readonly Spec[];
}

/** How one attribute is checked. */
export interface AttrType<T> {
  readonly expected: string;
  readonly accepts: (value: unknown) => value is T;
}

const attrType = <T>(expected: string, accepts: (value: unknown) => boolean): AttrType<T> => ({
  expected,
  accepts: accepts as (value: unknown) => value is T,
});

const listOf = (value: unknown, accepts: (item: number) => boolean): boolean =>
  Array.isArray(value) && value.every((item) => typeof item === "number" && accepts(item));

export const realAttr = attrType<number>("a number", (v) => typeof v === "number");
export const integerAttr = attrType<number>("an integer", Number.isSafeInteger);
export const countAttr = attrType<number>(
  "an integer of at least 1",
  (v) => Number.isSafeInteger(v) && (v as number) >= 1,
);
export const flagAttr = attrType<boolean>("true or false", (v) => typeof v === "boolean");
export const textAttr = attrType<string>("a string", (v) => typeof v === "string");
export const dtypeAttr = attrType<DType>("a dtype", isDType);
export const realsAttr = attrType<readonly number[]>("a list of numbers", (v) =>
  listOf(v, () => true),
);
export const integersAttr = attrType<readonly number[]>("a list of integers", (v) =>
  listOf(v, Number.isSafeInteger),
);
export const shapeAttr = attrType<readonly number[]>("a shape of sizes of at least 1", (v) =>
  listOf(v, (n) => Number.isSafeInteger(n) && n >= 1),
);
export const pairAttr = attrType<readonly [number, number]>(
  "two integers of at least 1",
  (v) =>
    listOf(v, (n) => Number.isSafeInteger(n) && n >= 1) && (v as readonly number[]).length === 2,
);
export const paddingAttr = attrType<readonly [number, number, number, number]>(
  "four integers of at least 0: top, bottom, left, right",
  (v) =>
    listOf(v, (n) => Number.isSafeInteger(n) && n >= 0) && (v as readonly number[]).length === 4,
);
/** An attribute that may be left out. */
export const optionalAttr = <T>(type: AttrType<T>): AttrType<T | undefined> =>
  attrType(`${type.expected} or nothing`, (v) => v === undefined || type.accepts(v));
export const choiceAttr = <const C extends string>(...choices: readonly C[]): AttrType<C> =>
  attrType(`one of ${choices.map((c) => `"${c}"`).join(", ")}`, (v) => choices.includes(v as C));

type AttrTypes = Record<string, AttrType<unknown>>;
type AttrValues<A extends AttrTypes> = {
  readonly [K in keyof A]: A[K] extends AttrType<infer T> ? T : never;
};

interface OpRow<A extends AttrTypes> {
  name: string;
  traits?: readonly Trait[];
  /** Input names for messages; a trailing "?" marks an optional one and "..." one that repeats. */
  inputs: readonly string[];
  attrs?: A;
  infer: (inputs: readonly Spec[], attrs: AttrValues<A>) => readonly Spec[];
}

/** A row of the op table: wraps `infer` with the checks of input count and attributes. */
export function defineOp<A extends AttrTypes = Record<never, never>>(row: OpRow<A>): OpDef {
  const types: AttrTypes = row.attrs ?? {};
  return {
    name: row.name,
    traits: new Set(row.traits),
    attrNames: Object.keys(types),
    infer(inputs, attrs) {
      checkInputCount(row.name, row.inputs, inputs.length);
      checkAttrs(row.name, types, attrs);
      return row.infer(inputs, attrs as AttrValues<A>);
    },
  };
}

function checkInputCount(op: string, names: readonly string[], count: number): void {
  const least = names.filter((name) => !name.endsWith("?")).length;
  const most = names.some((name) => name.endsWith("...")) ? Infinity : names.length;
  if (count >= least && count <= most) return;
  const shown = names.join(", ").replaceAll("?", " (optional)");
  throw new DiffusionError("internal", `${op}: expected inputs ${shown}, got ${count} inputs`);
}

function checkAttrs(op: string, types: AttrTypes, attrs: Attrs): void {
  for (const key of Object.keys(attrs)) {
    if (key in types) continue;
    const near = nearestName(key, Object.keys(types));
    const hint = near ? `; did you mean "${near}"?` : "";
    const known = Object.keys(types).join(", ") || "none";
    throw new DiffusionError("option", `${op}: expected attributes ${known}, got "${key}"${hint}`);
  }
  for (const [key, type] of Object.entries(types)) {
    const value = attrs[key];
    if (type.accepts(value)) continue;
    throw new DiffusionError(
      "option",
      `${op}: expected ${key} to be ${type.expected}, got ${show(value)}`,
    );
  }
}

const show = (value: unknown): string =>
  Array.isArray(value)
    ? formatShape(value.slice(0, 16) as number[])
    : (JSON.stringify(value) ?? "nothing");

/** A spec as messages and printed graphs show it: `f32[2,3]`. */
export const formatSpec = ({ dtype, shape }: Spec): string => `${dtype}[${shape.join(",")}]`;

export const formatSpecs = (specs: readonly Spec[]): string => specs.map(formatSpec).join(", ");

/** A mistake in shapes: `<op>: expected <what>, got <specs>`. */
export const shapeError = (
  op: string,
  expected: string,
  got: readonly Spec[] | string,
): DiffusionError =>
  new DiffusionError(
    "shape",
    `${op}: expected ${expected}, got ${typeof got === "string" ? got : formatSpecs(got)}`,
  );

/** Throws unless every spec has one of `allowed` types. */
export function requireTypes(op: string, allowed: readonly DType[], specs: readonly Spec[]): void {
  if (specs.every(({ dtype }) => allowed.includes(dtype))) return;
  const hint = "; cast it first";
  throw new DiffusionError(
    "dtype",
    `${op}: expected ${allowed.join(" or ")}, got ${formatSpecs(specs)}${hint}`,
  );
}

/** Throws unless all specs have the same type. */
export function requireSameType(op: string, specs: readonly Spec[]): void {
  if (specs.every(({ dtype }) => dtype === specs[0]?.dtype)) return;
  throw new DiffusionError(
    "dtype",
    `${op}: expected equal dtypes, got ${formatSpecs(specs)}; cast one of them`,
  );
}

/** Throws unless the spec is i32. */
export function requireIndices(op: string, what: string, spec: Spec): void {
  if (spec.dtype === "i32") return;
  throw new DiffusionError(
    "dtype",
    `${op}: expected ${what} i32, got ${formatSpec(spec)}; cast it to i32`,
  );
}

/** Throws unless the tensor has exactly (or, with `orMore`, at least) `rank` axes. */
export function requireRank(
  op: string,
  what: string,
  rank: number,
  spec: Spec,
  orMore = false,
): void {
  if (orMore ? spec.shape.length >= rank : spec.shape.length === rank) return;
  throw shapeError(op, `${what} with ${orMore ? "at least " : ""}${rank} axes`, [spec]);
}
