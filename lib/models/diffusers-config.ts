// config.json of huggingface/diffusers: settings that our networks have no other value of.
import { DiffusionError } from "../errors.js";
import { shown } from "./check-config.js";
import type { ConfigFile } from "./family.js";

/** Throws "option" for a key with a value that is not listed; a key that is missing or null has diffusers' own default. */
export function onlyValues(
  file: ConfigFile,
  allowed: Readonly<Record<string, readonly unknown[]>>,
): void {
  for (const [key, values] of Object.entries(allowed)) {
    const value = file[key];
    if (value === undefined || value === null || values.includes(value)) continue;
    throw new DiffusionError(
      "option",
      `config.json: expected ${key} ${values.length === 0 ? "not to be set" : `of ${values.map(shown).join(", ")}`}, got ${shown(value)}`,
    );
  }
}

/** Keys with a value. */
export const known = (entries: object): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(entries).filter(([, value]) => value !== undefined && value !== null),
  );
