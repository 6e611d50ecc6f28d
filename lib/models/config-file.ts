// Configuration files of the originals: values inside them, those that are set, and settings that our networks have no other
// value of.
import { DiffusionError } from "../errors.js";
import { isObject, shown } from "./check-config.js";
import type { ConfigFile } from "./family.js";

/** What stands at a path of keys, if anything does. */
export const inside = (value: unknown, ...path: readonly string[]): unknown =>
  path.reduce<unknown>((at, key) => (isObject(at) ? at[key] : undefined), value);

/** Throws "option" for a key with a value that is not listed; a key that is missing or null has the original's default. */
export function onlyValues(
  file: ConfigFile,
  allowed: Readonly<Record<string, readonly unknown[]>>,
): void {
  for (const [key, values] of Object.entries(allowed)) {
    const value = file[key];
    if (value === undefined || value === null || values.includes(value)) continue;
    throw new DiffusionError(
      "option",
      `configuration file: expected ${key} ${values.length === 0 ? "not to be set" : `of ${values.map(shown).join(", ")}`}, got ${shown(value)}`,
    );
  }
}

/** Keys with a value. */
export const known = (entries: object): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(entries).filter(([, value]) => value !== undefined && value !== null),
  );
