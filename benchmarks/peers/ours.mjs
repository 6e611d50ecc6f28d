// Our side of the comparison: node ours.mjs NAME BATCH answers requests for runs on stdin. With --from FILE the weights
// are those of a safetensors file, as a program loads them; --write FILE writes such a file and ends.
import { DeviceBuffer, openSafetensors, saveWeights, version } from "../../dist/index.js";
import { prepare } from "../../dist/cli/bench-session.js";
import { benchWorkloads } from "../../dist/cli/bench-workloads.js";
import { serve } from "./serve.mjs";

const [name, batch, mode, file] = process.argv.slice(2);
const workload = benchWorkloads.find((w) => w.name === name && w.batch === Number(batch));
if (!workload)
  throw new Error(`ours.mjs: expected a known workload, got ${name} of batch ${batch}`);

const weightsOf = (graph) =>
  graph.inputs
    .filter(({ role }) => role === "weight")
    .map(({ name, value }) => ({ name, ...graph.values[value] }));

async function fromFile(graph) {
  const checkpoint = await openSafetensors(file);
  const weights = weightsOf(graph).map(({ name, shape }) => {
    const { offset } = checkpoint.tensors.get(name);
    return [name, DeviceBuffer.fromFile({ path: file, offset, dtype: "f32" }, shape)];
  });
  await checkpoint.close();
  return Object.fromEntries(weights);
}

if (mode === "--write") {
  const specs = weightsOf(workload.graph());
  const weights = specs.map(({ name, shape }) => {
    const size = shape.reduce((a, b) => a * b, 1);
    return [name, Float32Array.from({ length: size }, (_, i) => ((i * 7919) % 2001) / 1e5 - 0.01)];
  });
  await saveWeights(file, specs, new Map(weights), "f32");
} else {
  const graph = workload.graph();
  const weights = mode === "--from" ? await fromFile(graph) : undefined;
  const { run } = await prepare({ ...workload, graph: () => graph }, 0, weights);
  await serve({ version: `smalti ${version}`, run });
}
