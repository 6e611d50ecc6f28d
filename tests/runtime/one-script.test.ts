// The library as the build makes it: one script, whose modules export what those of lib/ do, with code that V8 takes.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import * as library from "../../lib/index.js";

const root = join(import.meta.dirname, "..", "..");
const load = join(root, "dist", "library", "load.js");

test.skipIf(!existsSync(load))("dist/ exports what lib/ does", async () => {
  const built = (await import(join(root, "dist", "index.js"))) as Record<string, unknown>;
  expect(Object.keys(built).sort()).toEqual(Object.keys(library).sort());
  const shape = (await import(join(root, "dist", "ir", "shape.js"))) as Record<string, unknown>;
  expect(shape["sizeOf"]).toBeTypeOf("function");
});

test.skipIf(!existsSync(load))("takes the code that the build kept", () => {
  const script = `console.log((await import(${JSON.stringify(load)})).script.cachedDataRejected)`;
  const out = execFileSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    env: { ...process.env, NODE_OPTIONS: "" },
  });
  expect(out.trim()).toBe("false");
});
