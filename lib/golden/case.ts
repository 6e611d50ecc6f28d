// A golden case on disk: what a reference implementation was asked, and what it answered.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { readSafetensors } from "../checkpoint/safetensors.js";
import type { StoredArray } from "../checkpoint/safetensors.js";
import { halvesToFloats } from "../checkpoint/half.js";
import { checkChoice, DiffusionError } from "../errors.js";

/** Values with their shape, as floats or as i32. */
export interface Values {
  shape: readonly number[];
  data: Float32Array | Float64Array | Int32Array;
}

export type Config = Record<string, unknown>;

export interface IoEntry extends Values {
  role: string;
  /** Largest absolute difference that passes; undefined: must be equal. */
  atol: number | undefined;
}

export interface GoldenCase {
  name: string;
  kind: string;
  config: Config;
  rtol: number;
  io: ReadonlyMap<string, IoEntry>;
  /** State dict with the foreign names and layouts. */
  weights: ReadonlyMap<string, Values>;
  /** Other files of the case by the name that it gives them, such as a vocabulary. */
  texts: ReadonlyMap<string, string>;
}

/** Small case header, before any tensor is read. */
export interface CaseHeader {
  name: string;
  kind: string;
  folder: string;
}

interface CaseFile {
  kind: string;
  config: Config;
  tolerance: { rtol: number };
  files?: Record<string, string>;
  io: Record<
    string,
    { role: string; dtype: string; shape: number[]; atol?: number; compare?: string }
  >;
}

const caseFile = async (folder: string): Promise<CaseFile> =>
  JSON.parse(await readFile(join(folder, "case.json"), "utf8")) as CaseFile;

const isHalf = (dtype: string): boolean => dtype === "F16";

/** Integers as i32, halves as floats. */
function plain(data: StoredArray, dtype: string): Values["data"] {
  if (data instanceof Float32Array || data instanceof Float64Array || data instanceof Int32Array)
    return data;
  if (isHalf(dtype)) return halvesToFloats(data as Uint16Array);
  return Int32Array.from(data as ArrayLike<number | bigint>, Number);
}

async function readTensors(path: string): Promise<Map<string, Values>> {
  const { tensors } = await readSafetensors(path);
  return new Map(
    [...tensors].map(([name, { dtype, shape, data }]) => [
      name,
      { shape, data: plain(data, dtype) },
    ]),
  );
}

/** A folder without a case is none; a case that cannot be read must not pass unseen. */
const withoutCase =
  (path: string) =>
  (cause: unknown): undefined => {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return;
    throw new DiffusionError(
      "data",
      `parity: expected a readable case.json in ${path}, got ${(cause as Error).message}`,
      { cause },
    );
  };

/** The cases below a folder, by name. */
export async function listCases(folder: string): Promise<CaseHeader[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause: unknown) => {
    throw new DiffusionError("data", `parity: expected a folder of golden cases, got ${folder}`, {
      cause,
    });
  });
  const names = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  const headers = await Promise.all(
    names.map(async (name) => {
      const path = join(folder, name);
      const file = await caseFile(path).catch(withoutCase(path));
      return file && { name, kind: file.kind, folder: path };
    }),
  );
  return headers
    .filter((header): header is CaseHeader => header !== undefined)
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** What a case lists besides its tensors. */
async function readTexts(
  folder: string,
  files: Readonly<Record<string, string>>,
): Promise<Map<string, string>> {
  const others = Object.entries(files).filter(([, file]) => !file.endsWith(".safetensors"));
  const texts = others.map(async ([name, file]): Promise<[string, string]> => [
    name,
    await readFile(join(folder, file), "utf8"),
  ]);
  return new Map(await Promise.all(texts));
}

/** Reads everything of a case. */
export async function readCase({ name, folder }: CaseHeader): Promise<GoldenCase> {
  const { kind, config, tolerance, io, files = {} } = await caseFile(folder);
  const texts = await readTexts(folder, files);
  const tensors = await readTensors(join(folder, "io.safetensors"));
  const hasWeights = (await readdir(folder)).includes("weights.safetensors");
  const weights = hasWeights
    ? await readTensors(join(folder, "weights.safetensors"))
    : new Map<string, Values>();
  const entries = Object.entries(io).map(([key, { role, atol }]): [string, IoEntry] => {
    const values = tensors.get(key);
    if (!values)
      throw new DiffusionError("data", `parity: expected tensor ${key} in case ${name}, got none`);
    return [key, { ...values, role, atol }];
  });
  return { name, kind, config, rtol: tolerance.rtol, io: new Map(entries), weights, texts };
}

/** Float64 numbers as a vector. */
export const vector = (values: ArrayLike<number>): Values => ({
  shape: [values.length],
  data: Float64Array.from(values),
});

/** Whole numbers as a vector. */
export const integers = (values: ArrayLike<number>): Values => ({
  shape: [values.length],
  data: Int32Array.from(values),
});

/** Numbers as a table of so many rows. */
export const tableOf = (data: Float32Array, rows: number): Values => ({
  shape: [rows, data.length / rows],
  data,
});

/** A value of a table by the reference's word. Throws "option". */
export function byWord<Value>(what: string, word: string, table: Readonly<Record<string, Value>>) {
  return table[checkChoice("parity", what, word, Object.keys(table))]!;
}

/** Those of some values that a case has. */
export const valuesGiven = (golden: GoldenCase, ...names: string[]): Record<string, Values> =>
  Object.fromEntries(
    names.filter((name) => golden.io.has(name)).map((name) => [name, ioValues(golden, name)]),
  );

/** A value of io by name. */
export function ioValues(golden: GoldenCase, name: string): IoEntry {
  const entry = golden.io.get(name);
  if (!entry)
    throw new DiffusionError("data", `parity: expected ${name} in case ${golden.name}, got none`);
  return entry;
}
