// Runs the whole library as one script, with what V8 compiled of it when it was built, if that fits this Node: 300 files
// and their compilation take ten times as long (docs/design/0018).
import { createRequire } from "node:module";
import { join } from "node:path";

// Importing node:fs and node:vm would load all of the former, streams too, for the names it exports.
const require = createRequire(import.meta.url);
const { readFileSync } = require("node:fs");
const { Script } = require("node:vm");
const pathOf = (name) => join(import.meta.dirname, name);

function compiledBefore() {
  try {
    return readFileSync(pathOf("library.cache"));
  } catch {
    return undefined;
  }
}

const filename = pathOf("library.cjs");
export const script = new Script(readFileSync(filename, "latin1"), {
  filename,
  cachedData: compiledBefore(),
});
/** Exports of each module of lib/, by path. */
export const modules = script.runInThisContext()(require, filename);
