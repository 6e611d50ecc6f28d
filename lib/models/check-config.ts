// Checks of configurations that come from files and strangers: a table of rules, one a key. Numbers are finite, whole where
// needed and bounded, so that no later code meets a huge, negative or non-numeric size.
import { checkOptions, DiffusionError } from "../errors.js";

/** What was expected when the value is wrong, as it follows the name in a message; undefined when it is fine. */
export type Rule = (value: unknown) => string | undefined;

/** A rule for each key of a configuration. */
export type Rules = Readonly<Record<string, Rule>>;

/** Largest sizes that a configuration may ask for. */
export const limits = {
  width: 65536,
  layers: 1024,
  codes: 2 ** 24,
  side: 4096,
  timesteps: 100_000,
  batch: 65536,
} as const;

const within = (value: number, low: number, high: number): string | undefined =>
  value >= low && value <= high ? undefined : `from ${low} to ${high}`;

export const whole =
  (low: number, high: number): Rule =>
  (value) =>
    Number.isInteger(value)
      ? within(value as number, low, high)
      : `a whole number from ${low} to ${high}`;

export const real =
  (low: number, high: number): Rule =>
  (value) =>
    typeof value === "number" && !Number.isNaN(value)
      ? within(value, low, high)
      : `a number from ${low} to ${high}`;

export const flag: Rule = (value) => (typeof value === "boolean" ? undefined : "true or false");

export const text =
  (longest: number): Rule =>
  (value) =>
    typeof value === "string" && value.length <= longest
      ? undefined
      : `a text of at most ${longest} characters`;

export const oneOf =
  (...names: readonly string[]): Rule =>
  (value) =>
    typeof value === "string" && names.includes(value) ? undefined : `one of ${names.join(", ")}`;

/** An array with `low` to `high` items that all follow `rule`. */
export const listOf =
  (rule: Rule, low: number, high: number): Rule =>
  (value) => {
    const size = low === high ? `${low}` : `${low} to ${high}`;
    if (!Array.isArray(value) || value.length < low || value.length > high)
      return `a list of ${size} items`;
    const wrong = value.map(rule).find((expected) => expected !== undefined);
    return wrong && `a list of ${size} items, each ${wrong}`;
  };

/** An object with at most `most` keys whose values all follow `rule`. */
export const recordOf =
  (rule: Rule, most: number): Rule =>
  (value) => {
    if (!isObject(value) || Object.keys(value).length > most)
      return `an object with at most ${most} keys`;
    const wrong = Object.values(value)
      .map(rule)
      .find((expected) => expected !== undefined);
    return wrong && `an object whose values are each ${wrong}`;
  };

/** The key may be left out. */
export const optional =
  (rule: Rule): Rule =>
  (value) =>
    value === undefined ? undefined : rule(value);

/** Anything: the value has rules of its own, checked elsewhere. */
export const object: Rule = (value) => (isObject(value) ? undefined : "an object");

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** A value as messages show it, cut short. */
export function shown(value: unknown): string {
  const json = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? "nothing");
  return json.length > 80 ? `${json.slice(0, 80)}…` : json;
}

/** Checks every key of `config`. Throws "option" for unknown keys, with the nearest name, and for wrong values. */
export function checkFields(where: string, config: unknown, rules: Rules): void {
  if (!isObject(config))
    throw new DiffusionError("option", `${where}: expected an object, got ${shown(config)}`);
  checkOptions(where, config, Object.keys(rules));
  for (const [name, rule] of Object.entries(rules)) {
    const expected = rule(config[name]);
    if (expected === undefined) continue;
    throw new DiffusionError(
      "option",
      `${where}: expected ${name} ${/^from \d/.test(expected) ? "" : "to be "}${expected}, got ${shown(config[name])}`,
    );
  }
}

/** The rules without some keys, for a configuration that is completed later. */
export const without = (rules: Rules, ...names: readonly string[]): Rules =>
  Object.fromEntries(Object.entries(rules).filter(([name]) => !names.includes(name)));
