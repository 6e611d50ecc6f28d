// Held-out loss of a text-to-image pipeline: bits per token of the variational bound, estimated at evenly spread levels.
// Usage: node benchmarks/held-out-loss.mjs [--quantize WAY] [pipeline] [data set]   (after npm run build and smalti data emoji)
// --quantize: of the transformer, as loadPipeline has it: int8, int8-weights or f16-weights.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openTrainingData } from "../dist/data/training-data.js";
import { textToToken } from "../dist/models/text-to-token.js";
import { pipelineFolder, readPipelineFile } from "../dist/pipelines/pipeline.js";
import { loadTokenizerRun } from "../dist/pipelines/tokenizer-run.js";
import { tokeniseDataset } from "../dist/pipelines/tokenise-dataset.js";
import { coefficientTable, maskReplaceSchedule } from "../dist/processes/schedules.js";
import { openWeightBuffers } from "../dist/pipelines/weight-buffers.js";
import { SessionCache } from "../dist/runtime/session-cache.js";
import { keyTable } from "../dist/samplers/discrete.js";
import { TextTokenizer } from "../dist/text/tokenizer.js";
import { maskReplaceForward, maskReplaceLoss, randomUniform } from "../dist/trace/functions.js";
import { trace } from "../dist/trace/trace.js";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { quantize: { type: "string" } },
});
const [name = "emoji-64", source = "emoji"] = positionals;
const B = 16;
const levels = 20; // of the T levels, evenly spread
const folder = await pipelineFolder(name);
const { components, settings } = await readPipelineFile(folder);
const model = textToToken(components.model.config);
const { transformer, condition } = components.model.config;
const path = join(folder, components.model.weights);
const sessions = new SessionCache(await openWeightBuffers(path, model.parameters));
const codec = await loadTokenizerRun(folder);
const words = await TextTokenizer.load(join(folder, "tokenizer.json"));
const { heldOut } = await openTrainingData(source, codec.config.resolution);
const tokens = await tokeniseDataset(codec, heldOut);
const N = codec.tokensPerImage;
const T = settings.process.timesteps ?? 100;
const schedule = maskReplaceSchedule({ ...settings.process, codes: transformer.codes });

const conditionGraph = () =>
  trace((t) => {
    const attributes = Object.fromEntries(
      Object.entries(condition.attributes).map(([k, count]) => [
        k,
        t.constant(new Array(B).fill(count), [B], "i32"),
      ]),
    );
    const encoded = model.conditioner.forward({
      words: t.input("words", { shape: [B, condition.text.length], dtype: "i32" }),
      attributes,
    });
    t.output("condition", encoded.tokens);
    t.output("conditionMask", encoded.mask);
  });

const lossGraph = () =>
  trace((t) => {
    const x0 = t.input("x0", { shape: [B, N], dtype: "i32" });
    const coeffs = t.input("coeffs", { shape: [B, 9] });
    const key = t.input("key", { shape: [B, 4], dtype: "i32" });
    const told = Object.entries(model.encodedInputs(B)).map(([k, spec]) => [k, t.input(k, spec)]);
    const xt = maskReplaceForward(
      x0,
      coeffs,
      randomUniform(key, { shape: [B, N, 2], purpose: 1 }),
      {
        codes: transformer.codes,
      },
    );
    const logits = model.transformer.forward({
      tokens: xt,
      times: t.input("times", { shape: [B], dtype: "i32" }),
      ...Object.fromEntries(told),
    });
    t.output("kl", maskReplaceLoss(logits, x0, xt, coeffs).kl);
  });

// Every picture at one level, the levels in turn; the mean over levels times T is the bound in nats of a picture.
const sums = new Float64Array(levels);
const counts = new Float64Array(levels);
for (let first = 0; first + B <= heldOut.length; first += B) {
  const times = Array.from({ length: B }, (_, i) =>
    Math.round((((first + i) % levels) * (T - 1)) / (levels - 1)),
  );
  const captions = Array.from({ length: B }, (_, i) => heldOut.captions(first + i)[0]);
  const said = words.encodeBatch(captions, { length: condition.text.length }).ids;
  const told = await sessions.run("condition", conditionGraph, { words: said });
  const inputs = {
    x0: tokens.slice(first * N, (first + B) * N),
    coeffs: coefficientTable(
      schedule,
      times.map((t) => ({ t, s: t - 1 })),
    ),
    key: keyTable(0, first, 0, B),
    times: Int32Array.from(times),
    ...told,
  };
  const { kl } = await sessions.run("loss", lossGraph, inputs, flags);
  for (let i = 0; i < B; ++i) {
    const level = (first + i) % levels;
    sums[level] += kl.subarray(i * N, (i + 1) * N).reduce((a, b) => a + b, 0);
    counts[level] += 1;
  }
}
const perLevel = [...sums].map((sum, i) => sum / counts[i]);
const nats = (perLevel.reduce((a, b) => a + b, 0) / levels) * T;
const bitsPerToken = nats / Math.log(2) / N;
console.log(
  JSON.stringify(
    {
      model: name,
      source,
      quantize: flags.quantize,
      pictures: heldOut.length,
      bitsPerToken,
      uniformBitsPerToken: Math.log2(transformer.codes),
    },
    null,
    2,
  ),
);
