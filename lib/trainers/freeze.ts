// Parts of a model that a training leaves as they are, chosen by the first words of their names.
import { DiffusionError, nearestName } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";

export interface FrozenSplit {
  /** Parameters that the optimiser updates. */
  trained: readonly ParamSpec[];
  /** Parameters and states that stay as they are, bit for bit. */
  frozen: readonly ParamSpec[];
}

/** "decoder.up" holds "decoder.up.0.weight" but not "decoder.upper". */
const holds = (prefix: string, name: string): boolean =>
  name === prefix || name.startsWith(`${prefix}.`);

/** Names at every level of the tree: "a.b.c" gives "a", "a.b" and "a.b.c". */
const places = (names: readonly string[]): Set<string> =>
  new Set(
    names.flatMap((name) => {
      const words = name.split(".");
      return words.map((_, i) => words.slice(0, i + 1).join("."));
    }),
  );

/** Throws "option", with the nearest place, when there is nothing at or below `prefix`. */
function checkPrefix(prefix: string, names: readonly string[]): void {
  if (names.some((name) => holds(prefix, name))) return;
  const near = nearestName(prefix, places(names));
  const tops = new Set(names.map((name) => name.split(".")[0]!));
  throw new DiffusionError(
    "option",
    `train: expected freeze to name parts of ${[...tops].join(", ")}, got "${prefix}"${near ? `; did you mean "${near}"?` : ""}`,
  );
}

/**
 * Splits a model by prefixes of names. Throws "option" for a prefix without anything below it, and when no parameter is
 * left to train.
 */
export function splitFrozen(
  { parameters, states = [] }: { parameters: readonly ParamSpec[]; states?: readonly ParamSpec[] },
  prefixes: readonly string[],
): FrozenSplit {
  const all = [...parameters, ...states];
  const names = all.map(({ name }) => name);
  prefixes.forEach((prefix) => checkPrefix(prefix, names));
  const isFrozen = ({ name }: ParamSpec): boolean => prefixes.some((prefix) => holds(prefix, name));
  const trained = parameters.filter((spec) => !isFrozen(spec));
  if (trained.length === 0)
    throw new DiffusionError(
      "option",
      `train: expected freeze to leave parameters to train, got ${prefixes.map((prefix) => `"${prefix}"`).join(", ")}, which hold all`,
    );
  return { trained, frozen: all.filter(isFrozen) };
}
