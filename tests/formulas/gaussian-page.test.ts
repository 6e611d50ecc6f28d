// The tables of docs/gaussian.md name what the code has, and its example runs.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";
import {
  chainLevels,
  chainOf,
  ddim,
  predictions,
  respacedChain,
  respacing,
  schedules,
} from "../../lib/index.js";
import { weightingNames } from "../../lib/processes/gaussian-weighting.js";

const page = readFileSync(join(resolve(import.meta.dirname, "../.."), "docs/gaussian.md"), "utf8");

/** First cells of the table below a heading. */
const rowsOf = (heading: string): string[] =>
  page
    .split(`## ${heading}\n`)[1]!
    .split("\n## ")[0]!
    .split("\n")
    .flatMap((line) => /^\| `([^`]+)`/.exec(line)?.[1] ?? []);

it("names the schedules", () => {
  expect(rowsOf("Schedules")).toEqual(Object.keys(schedules.betaSchedules));
});

it("names the parameterisations", () => {
  expect(rowsOf("Parameterisations")).toEqual(Object.keys(predictions));
});

it("names the rules of respacing", () => {
  const rules = Object.keys(respacing).filter((name) => name !== "roundHalfEven");
  expect(rowsOf("Fewer steps").sort()).toEqual(rules.sort());
});

it("names the weightings", () => {
  expect(rowsOf("Losses and weights")).toEqual(weightingNames);
});

it("shows what its example prints", () => {
  const chain = chainOf({ timesteps: 1000, schedule: "cosine" });
  const short = respacedChain(chain, respacing.trailingTimesteps(1000, 25));
  const plan = ddim({ eta: 0.5 }).plan(chainLevels(short));
  expect(page).toContain(`// ${plan.steps.length} ${predictions.v(plan.first).x0.length}`);
});
