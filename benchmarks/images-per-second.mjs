// Seconds for one picture of a pipeline, by batch size: medians of alternated runs.
// Usage: node benchmarks/images-per-second.mjs [pipeline]   (after npm run build)
import { loadPipeline, describeBackends } from "../dist/index.js";

const [model = "emoji-64"] = process.argv.slice(2);
const batches = [1, 8];
const rounds = 5;
const pipe = await loadPipeline(model);
const times = new Map(batches.map((batch) => [batch, []]));
for (let round = 0; round <= rounds; ++round) {
  for (const batch of batches) {
    const start = performance.now();
    await pipe.generate({ prompt: "red heart", count: batch, batchSize: batch, seed: round });
    if (round > 0) times.get(batch).push((performance.now() - start) / 1000 / batch); // the first round compiles
  }
}
const rows = [...times].map(([batch, seconds]) => {
  const sorted = seconds.toSorted((a, b) => a - b);
  return {
    batch,
    secondsPerImage: { median: sorted[rounds >> 1], min: sorted[0], max: sorted.at(-1) },
  };
});
console.log(
  JSON.stringify(
    { model, cpu: describeBackends().cpu, defaults: pipe.settings.defaults, rows },
    null,
    2,
  ),
);
pipe.dispose();
