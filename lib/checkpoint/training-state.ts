// The state of a training run in one file: every buffer as a tensor, everything else as JSON in the metadata. One file,
// written atomically, is one consistent point in time. It is checked completely before a buffer is written.
import { DiffusionError, formatShape } from "../errors.js";
import { sameShape } from "../ir/shape.js";
import type { Buffer } from "../runtime/buffer.js";
import { version } from "../version.js";
import type { Checkpoint } from "./checkpoint.js";
import { openSafetensors, writeSafetensors } from "./safetensors.js";

const metadataKey = "smalti.training";

/** What decides a run, as plain data: a run with another one cannot go on from this state. */
export type RunConfiguration = Readonly<Record<string, unknown>>;

/** How far a run is. */
export interface TrainingProgress {
  /** Steps done. */
  done: number;
  /** Where the stream of batches goes on. */
  cursor: { epoch: number; position: number };
  /** Lists of numbers that a trainer keeps outside of buffers, by name. */
  lists?: Readonly<Record<string, readonly number[]>>;
}

/** What a state must fit. */
export interface ExpectedState {
  configuration: RunConfiguration;
  /** Lengths of the lists by name. */
  lists?: Readonly<Record<string, number>>;
}

/** Writes all buffers and where the run stands to `path`. */
export async function saveTrainingState(
  path: string,
  buffers: ReadonlyMap<string, Buffer>,
  configuration: RunConfiguration,
  progress: TrainingProgress,
): Promise<void> {
  const tensors = [...buffers].map(([name, buffer]) => ({
    name,
    dtype: "f32" as const,
    shape: buffer.shape,
    data: buffer.read() as Float32Array,
  }));
  await writeSafetensors(path, tensors, {
    [metadataKey]: JSON.stringify({ code: version, ...progress, configuration }),
  });
}

/**
 * Restores what saveTrainingState wrote into the same buffers. Throws "checkpoint", before any buffer
 * changes, when the file is broken or of another configuration.
 */
export async function loadTrainingState(
  path: string,
  buffers: ReadonlyMap<string, Buffer>,
  expected: ExpectedState,
): Promise<TrainingProgress> {
  using file = await openSafetensors(path);
  const state = parseState(file);
  const progress = checkProgress(path, state, expected.lists ?? {});
  checkConfiguration(path, state, expected.configuration);
  checkTensors(file, buffers);
  for (const [name, buffer] of buffers) buffer.write(await file.readF32(name));
  return progress;
}

const fault = (expected: string, got: string, whatToDo = ""): DiffusionError =>
  new DiffusionError(
    "checkpoint",
    `resume: expected ${expected}, got ${got}${whatToDo && `; ${whatToDo}`}`,
  );

const sameRun = "use the configuration of the interrupted run";
const shown = (value: unknown): string => (JSON.stringify(value) ?? "none").slice(0, 80);

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function parseState({ path, metadata }: Checkpoint): Record<string, unknown> {
  const text = metadata[metadataKey];
  if (text === undefined)
    throw fault(
      `a training state in ${path}`,
      "a file without one",
      "was it written by smalti train?",
    );
  let state: unknown;
  try {
    state = JSON.parse(text);
  } catch (cause) {
    throw fault(`JSON under ${metadataKey} in ${path}`, (cause as Error).message);
  }
  if (!isObject(state)) throw fault(`an object under ${metadataKey} in ${path}`, shown(state));
  return state;
}

function checkProgress(
  path: string,
  { done, cursor, importance, lists = importance }: Record<string, unknown>, // the older name of lists
  lengths: Readonly<Record<string, number>>,
): TrainingProgress {
  const whole = (name: string, value: unknown): number => {
    if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
    throw fault(`${name} in ${path} to be a whole number of at least 0`, shown(value));
  };
  const place = isObject(cursor) ? cursor : {};
  const stored = isObject(lists) ? lists : {};
  return {
    done: whole("done", done),
    cursor: {
      epoch: whole("cursor.epoch", place["epoch"]),
      position: whole("cursor.position", place["position"]),
    },
    lists: Object.fromEntries(
      Object.entries(lengths).map(([name, length]) => {
        const values = stored[name];
        if (!Array.isArray(values) || values.length !== length || !values.every(Number.isFinite))
          throw fault(`lists.${name} in ${path} to be ${length} numbers`, shown(values));
        return [name, values as number[]];
      }),
    ),
  };
}

/** Older states hold only the configuration of the model, so only that is compared. */
function checkConfiguration(
  path: string,
  { model, configuration }: Record<string, unknown>,
  current: RunConfiguration,
): void {
  const plain = JSON.parse(JSON.stringify(current)) as RunConfiguration; // as the file would hold it
  const stored = configuration === undefined ? { ...plain, model } : configuration;
  const difference = firstDifference(stored, plain, "configuration");
  if (difference)
    throw fault(
      `${difference.name} ${shown(difference.stored)} as in ${path}`,
      shown(difference.current),
      sameRun,
    );
}

interface Difference {
  name: string;
  stored: unknown;
  current: unknown;
}

/** The first place where two pieces of plain data differ; the order of keys does not matter. */
function firstDifference(stored: unknown, current: unknown, name: string): Difference | undefined {
  const isPair = [stored, current].every((value) => typeof value === "object" && value !== null);
  if (!isPair || Array.isArray(stored) !== Array.isArray(current))
    return stored === current ? undefined : { name, stored, current };
  const [a, b] = [stored, current] as [Record<string, unknown>, Record<string, unknown>];
  for (const key of new Set([...Object.keys(b), ...Object.keys(a)])) {
    const difference = firstDifference(a[key], b[key], `${name}.${key}`);
    if (difference) return difference;
  }
  return undefined;
}

function checkTensors(file: Checkpoint, buffers: ReadonlyMap<string, Buffer>): void {
  const { path, tensors } = file;
  const missing = [...buffers.keys()].filter((name) => !tensors.has(name));
  const unknown = [...tensors.keys()].filter((name) => !buffers.has(name));
  const few = (names: string[]): string =>
    `(${names.slice(0, 3).map((name) => name.slice(0, 200)).join(", ")})`; // prettier-ignore
  if (missing.length > 0 || unknown.length > 0)
    throw fault(
      `the tensors of this configuration in ${path}`,
      `${missing.length} missing ${few(missing)} and ${unknown.length} unknown ${few(unknown)}`,
      sameRun,
    );
  for (const [name, { shape }] of buffers) {
    const found = file.info(name);
    if (found.dtype !== "F32" || !sameShape(found.shape, shape))
      throw fault(
        `${name} as F32 ${formatShape(shape)} in ${path}`,
        `${found.dtype} ${formatShape(found.shape)}`,
        sameRun,
      );
  }
}
