// The table of docs/samplers.md says what the code says.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";
import { samplerNames, samplerOf } from "../../lib/samplers/samplers.js";

const page = readFileSync(join(resolve(import.meta.dirname, "../.."), "docs/samplers.md"), "utf8");

it.each(samplerNames)("tells the properties of %s", (name) => {
  const { name: own, order, evaluations, isStochastic, source } = samplerOf(name);
  const noise = isStochastic ? "yes" : "no";
  expect(page).toContain(
    `| \`${name}\` | ${order || "–"} | ${evaluations} | ${noise} | ${source} |`,
  );
  expect(own.startsWith(name.split("-")[0]!)).toBe(true);
});

it("has no other rows", () => {
  expect(page.match(/^\| `/gm)).toHaveLength(samplerNames.length);
});
