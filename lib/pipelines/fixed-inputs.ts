// A step that runs many times with some inputs the same: what they decide is computed at the first run and kept.
import { splitFixed, type SplitGraph } from "../ir/split.js";
import type { Graph } from "../ir/graph.js";
import type { TensorData } from "../runtime/buffer.js";
import type { CompileOptions, RunOptions, RunOutputs } from "../runtime/program.js";
import type { SessionCache } from "../runtime/session-cache.js";

type Inputs = Readonly<Record<string, TensorData>>;

/** Runs a step on the inputs that change. */
export type FixedStep = (changing: Inputs, options: RunOptions) => Promise<RunOutputs>;

/**
 * Steps around one network, by session key and graph, that read `fixed` at every run. `key` names what the fixed inputs
 * decide: the same network and shapes for the same key.
 */
export function fixedInputs(
  sessions: SessionCache,
  key: string,
  fixed: Inputs,
  how: Pick<CompileOptions, "quantize"> = {},
): (stepKey: string, graph: () => Graph) => FixedStep {
  const names = new Set(Object.keys(fixed));
  let kept: Promise<RunOutputs> | undefined;
  return (stepKey, graph) => {
    if (names.size === 0) return (inputs, options) => sessions.run(stepKey, graph, inputs, { ...options, ...how }); // prettier-ignore
    let split: SplitGraph | undefined;
    const part = (name: keyof SplitGraph) => () => (split ??= splitFixed(graph(), names))[name];
    return async (changing, options) => {
      kept ??= sessions.run(key, part("once"), fixed, { ...options, ...how });
      const inputs = { ...changing, ...(await kept) };
      return sessions.run(stepKey, part("step"), inputs, { ...options, ...how });
    };
  };
}
