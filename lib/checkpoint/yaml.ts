// YAML of strangers: parsed by the library `yaml`, in the form of error of this folder. It is loaded at the first text:
// a program without any saves its 10 MB.
import { createRequire } from "node:module";
import type * as yaml from "yaml";
import { fault } from "./byte-source.js";

/** Parses a text; aliases are refused, for a few of them can hold billions of values. Throws "checkpoint". */
export function parseYaml(text: string, where: string): unknown {
  const { parse } = createRequire(import.meta.url)("yaml") as typeof yaml;
  try {
    return parse(text, { maxAliasCount: 0, logLevel: "error", prettyErrors: true });
  } catch (cause) {
    const { message } = cause as Error; // a RangeError when it is nested too deeply for the stack
    throw fault(where, "YAML", message.split("\n")[0]!.slice(0, 120), cause);
  }
}
