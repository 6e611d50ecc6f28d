// YAML of strangers: parsed by the library `yaml`, in the form of error of this folder.
import { parse } from "yaml";
import { fault } from "./byte-source.js";

/** Parses a text; aliases are refused, for a few of them can hold billions of values. Throws "checkpoint". */
export function parseYaml(text: string, where: string): unknown {
  try {
    return parse(text, { maxAliasCount: 0, logLevel: "error", prettyErrors: true });
  } catch (cause) {
    const { message } = cause as Error; // a RangeError when it is nested too deeply for the stack
    throw fault(where, "YAML", message.split("\n")[0]!.slice(0, 120), cause);
  }
}
