// Held-out quality of a tokenizer: PSNR of reconstructions and how much of the codebook is used.
// Usage: node benchmarks/quality.mjs [pipeline or tokenizer folder] [data set]   (after npm run build and smalti data emoji)
import { openTrainingData } from "../dist/data/training-data.js";
import { psnr } from "../dist/metrics/psnr.js";
import { loadTokenizerRun } from "../dist/pipelines/tokenizer-run.js";

const [model = "emoji-64", source = "emoji"] = process.argv.slice(2);
const codec = await loadTokenizerRun(model);
const { heldOut } = await openTrainingData(source, codec.config.resolution);

const images = await Promise.all(
  Array.from({ length: heldOut.length }, async (_, i) => ({
    width: heldOut.width,
    height: heldOut.height,
    data: await heldOut.pixels(i),
  })),
);
const tokens = await codec.encode(images, { batchSize: 32 });
const decoded = await codec.decode(tokens, { batchSize: 32 });
const decibels = images.map((image, i) => psnr(image.data, decoded[i].data)).sort((a, b) => a - b);
const counts = new Map();
for (const token of tokens) counts.set(token, (counts.get(token) ?? 0) + 1);
const entropy = [...counts.values()].reduce(
  (sum, n) => sum - (n / tokens.length) * Math.log(n / tokens.length),
  0,
);
const at = (share) => decibels[Math.floor(share * (decibels.length - 1))];

console.log(
  JSON.stringify(
    {
      model,
      source,
      pictures: images.length,
      psnr: {
        mean: decibels.reduce((a, b) => a + b, 0) / decibels.length,
        median: at(0.5),
        quartiles: [at(0.25), at(0.75)],
      },
      codesUsed: counts.size,
      codes: codec.config.quantizer.codes,
      perplexity: Math.exp(entropy),
    },
    null,
    2,
  ),
);
