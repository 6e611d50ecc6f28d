// Held-out quality of a tokenizer: PSNR of reconstructions and how much of the codebook is used.
// Usage: node benchmarks/quality.mjs [--quantize WAY] [pipeline or tokenizer folder] [data set]
// (after npm run build and smalti data emoji). --quantize: of encoder and decoder, which loadPipeline leaves in floats.
// WAY: int8, int8-weights or f16-weights.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openTrainingData } from "../dist/data/training-data.js";
import { psnr } from "../dist/metrics/psnr.js";
import { toByteImage, toFloatImage } from "../dist/image/image-io.js";
import { vqgan } from "../dist/models/vqgan.js";
import { pipelineFolder, readPipelineFile } from "../dist/pipelines/pipeline.js";
import { openWeightBuffers } from "../dist/pipelines/weight-buffers.js";
import { SessionCache } from "../dist/runtime/session-cache.js";
import { trace } from "../dist/trace/trace.js";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { quantize: { type: "string" } },
});
const [model = "emoji-64", source = "emoji"] = positionals;
const batch = 32;
const folder = await pipelineFolder(model);
const { config, weights } = (await readPipelineFile(folder)).components.codec;
const network = vqgan(config);
const specs = [...network.parameters, ...network.states];
const sessions = new SessionCache(await openWeightBuffers(join(folder, weights), specs));
const size = config.resolution;
const side = size / network.stride;
const { heldOut } = await openTrainingData(source, size);

const encodeGraph = (B) => () =>
  trace((t) =>
    t.output("tokens", network.tokenize(t.input("images", { shape: [B, size, size, 3] }))),
  );
const decodeGraph = (B) => () =>
  trace((t) => {
    const tokens = t.input("tokens", { shape: [B, side * side], dtype: "i32" });
    t.output("images", network.detokenize(tokens, [side, side]));
  });

/** Tokens of pictures and the pictures of those. */
async function through(images) {
  const B = images.length;
  const pixels = Float32Array.from(images.flatMap((image) => [...toFloatImage(image).data]));
  const { tokens } = await sessions.run(`encode ${B}`, encodeGraph(B), { images: pixels }, flags);
  const decoded = await sessions.run(`decode ${B}`, decodeGraph(B), { tokens }, flags);
  const rows = images.map((_, i) =>
    decoded.images.slice(i * size * size * 3, (i + 1) * size * size * 3),
  );
  return { tokens, decoded: rows.map((data) => toByteImage({ width: size, height: size, data })) };
}

const images = await Promise.all(
  Array.from({ length: heldOut.length }, async (_, i) => ({
    width: heldOut.width,
    height: heldOut.height,
    data: await heldOut.pixels(i),
  })),
);
const tokens = [];
const decoded = [];
for (let first = 0; first < images.length; first += batch) {
  const done = await through(images.slice(first, first + batch));
  tokens.push(...done.tokens);
  decoded.push(...done.decoded);
}
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
      quantize: flags.quantize,
      pictures: images.length,
      psnr: {
        mean: decibels.reduce((a, b) => a + b, 0) / decibels.length,
        median: at(0.5),
        quartiles: [at(0.25), at(0.75)],
      },
      codesUsed: counts.size,
      codes: config.quantizer.codes,
      perplexity: Math.exp(entropy),
    },
    null,
    2,
  ),
);
