// Seconds for one picture of a pipeline in floats, on 8-bit integers and on narrow weights, by batch size: medians of
// alternated runs.
// processorSeconds: of all threads, for machines that are busy with other work.
// Usage: node benchmarks/images-per-second.mjs [pipeline]   (after npm run build)
import { loadPipeline, describeBackends } from "../dist/index.js";

const [model = "emoji-64"] = process.argv.slice(2);
const batches = [1, 8];
const rounds = 5;
const ways = [undefined, "int8", "int8-weights", "f16-weights"];
const pipes = await Promise.all(ways.map((quantize) => loadPipeline(model, { quantize })));
const runs = batches.flatMap((batch) =>
  pipes.map((pipe) => ({ batch, pipe, times: [], processor: [] })),
);
for (let round = 0; round <= rounds; ++round) {
  for (const { batch, pipe, times, processor } of runs) {
    const start = performance.now();
    const before = process.cpuUsage();
    await pipe.generate({ prompt: "red heart", count: batch, batchSize: batch, seed: round });
    if (round === 0) continue; // it compiles
    times.push((performance.now() - start) / 1000 / batch);
    const { user, system } = process.cpuUsage(before);
    processor.push((user + system) / 1e6 / batch);
  }
}
function spread(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return { median: sorted[rounds >> 1], min: sorted[0], max: sorted.at(-1) };
}
const rows = runs.map(({ batch, pipe, times, processor }) => ({
  batch,
  computes: pipe.quantize ?? "floats",
  secondsPerImage: spread(times),
  processorSeconds: spread(processor),
}));
const { defaults } = pipes[0].settings;
console.log(JSON.stringify({ model, cpu: describeBackends().cpu, defaults, rows }, null, 2));
pipes.forEach((pipe) => pipe.dispose());
