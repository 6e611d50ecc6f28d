// Which tensors of an unpickled object are a model's: Lightning, guided diffusion, DiT, microsoft and module objects each
// wrap their state dictionary differently, and keep optimisers beside it.
import { DiffusionError, nearestName } from "../errors.js";
import { fault } from "./byte-source.js";
import { ArrayRef, PickleObject, TensorRef, type PickleValue } from "./pickle-values.js";

/** A dictionary with tensors, where it lies in the object, and all tensors at or below it. */
export interface Section {
  /** Keys from the root, joined by dots; "" is the root itself. */
  path: string;
  tensors: ReadonlyMap<string, TensorRef>;
}

const maxDepth = 64;

/** Keys and values of anything that has names inside: dictionaries, and objects by their state. */
function entriesOf(value: PickleValue): [string, PickleValue][] {
  if (value instanceof Map)
    return [...value].flatMap(([key, item]): [string, PickleValue][] =>
      typeof key === "string" || typeof key === "number" ? [[String(key), item]] : [],
    );
  if (!(value instanceof PickleObject)) return [];
  const [state] = Array.isArray(value.state) ? value.state : [value.state];
  if (!(state instanceof Map)) return entriesOf(new Map(value.entries));
  const parts = ["_parameters", "_buffers", "_modules"].map((name) => state.get(name));
  const isModule = parts.every((part) => part instanceof Map);
  return isModule ? parts.flatMap((part) => entriesOf(part!)) : entriesOf(state);
}

const tensorOf = (value: PickleValue): TensorRef | undefined =>
  value instanceof TensorRef ? value : value instanceof ArrayRef ? value.tensor : undefined;

/** Counts what is looked at: shared parts of a hostile object can be reached in endlessly many ways. */
class Walk {
  #left = 4_000_000;

  constructor(readonly where: string) {}

  entries(value: PickleValue): [string, PickleValue][] {
    const entries = entriesOf(value);
    this.#left -= entries.length + 1;
    if (this.#left < 0) throw fault(this.where, "fewer named values", "millions (a bomb)");
    return entries;
  }
}

/** All tensors at or below a value, under dotted names. A value that is met twice on a path ends there. */
function flatten(value: PickleValue, walk: Walk): Map<string, TensorRef> {
  const tensors = new Map<string, TensorRef>();
  const path = new Set<PickleValue>();
  const visit = (at: PickleValue, name: string): void => {
    if (path.has(at) || path.size > maxDepth) return;
    path.add(at);
    for (const [key, item] of walk.entries(at)) {
      const full = name === "" ? key : `${name}.${key}`;
      const tensor = tensorOf(item);
      if (tensor) tensors.set(full, tensor);
      else if (item instanceof Map || item instanceof PickleObject) visit(item, full);
    }
    path.delete(at);
  };
  visit(value, "");
  return tensors;
}

const optimiser =
  /^(?:opt|optim|optimi[sz]er|optimizers?_states?|optimizer_state_dict|optimizers|optimizer_and_scheduler|lr_schedulers?|schedulers?|scaler|loops|callbacks|rng\w*|.*_rng_state|native_amp_scaling_state|amp|grad_scaler)$/i;

const ema = /(?:^|[_.])(?:ema|averaged|shadow)(?:$|[_.])/i;

/** Usual keys of the weights, the surest first. */
const usual = [
  "state_dict",
  "model_state_dict",
  "model",
  "module",
  "net",
  "network",
  "params",
  "weights",
  "generator",
  "unet",
];

export const isEmaSection = ({ path }: Section): boolean => ema.test(path);

/** A root that is a tensor or a list, as a dictionary. */
function named(root: PickleValue): PickleValue {
  if (tensorOf(root)) return new Map([["value", root]]);
  return Array.isArray(root) ? new Map(root.map((item, i) => [String(i), item])) : root;
}

/** The dictionaries of the object that hold tensors, and the names of what was passed over. */
export function sectionsOf(
  root: PickleValue,
  where: string,
): { sections: Section[]; left: string[] } {
  const sections: Section[] = [];
  const left: string[] = [];
  const walk = new Walk(where);
  const visit = (value: PickleValue, path: string, depth: number): void => {
    const entries = walk.entries(value);
    const hasTensors = entries.some(([, item]) => tensorOf(item) !== undefined);
    const isModule = value instanceof PickleObject;
    const nested = entries.filter(
      ([, item]) => item instanceof Map || item instanceof PickleObject,
    );
    const wrapsUsual = nested.some(([key]) => usual.includes(key) || ema.test(key));
    if ((hasTensors || isModule) && !(depth === 0 && wrapsUsual)) {
      const tensors = flatten(value, walk);
      if (tensors.size > 0) sections.push({ path, tensors });
      return;
    }
    if (depth >= 3) return;
    for (const [key, item] of nested) {
      const isSkipped = optimiser.test(key);
      if (isSkipped) left.push(key);
      else visit(item, path === "" ? key : `${path}.${key}`, depth + 1);
    }
    if (depth > 0) return;
    for (const [key, item] of entries)
      if ((Array.isArray(item) && optimiser.test(key)) || tensorOf(item)) left.push(key);
  };
  visit(named(root), "", 0);
  return { sections, left };
}

/** The section of the weights: the one asked for, the usual one, or the only one. */
export function mainSections(
  sections: readonly Section[],
  asked: string | undefined,
  where: string,
): Section[] {
  const names = sections.map(({ path }) => path || "(root)");
  if (asked !== undefined) {
    const found = sections.find(({ path }) => path === asked);
    if (found) return [found];
    const near = nearestName(asked, names);
    throw new DiffusionError(
      "option",
      `${where}: expected a section among ${names.join(", ") || "none"}, got "${asked}"${near ? `; did you mean "${near}"?` : ""}`,
    );
  }
  const raw = sections.filter((section) => !isEmaSection(section));
  for (const name of usual) {
    const found = raw.find(({ path }) => path === name);
    if (found) return [found];
  }
  return raw;
}
