// What `smalti bench` runs: the arena of every network and training step is close to what is live at once.
import { describe, it } from "vitest";
import { benchWorkloads } from "../../lib/cli/bench-workloads.js";
import { compile } from "../../lib/runtime/program.js";
import { expectTightArena } from "./plans.js";

describe("plans of the bench", () => {
  for (const { name, batch, graph, compileOptions, kind } of benchWorkloads) {
    if (kind === "kernel") continue;
    it(`${name} of batch ${batch}`, async () => {
      using program = await compile(graph(), compileOptions);
      expectTightArena(program.plan());
    });
  }
});
