// ONNX Runtime beside ours: node ort.mjs MODULES MODEL.onnx THREADS answers requests for runs on stdin.
import { createRequire } from "node:module";
import { join } from "node:path";
import { serve } from "./serve.mjs";

const [modules, model, threads] = process.argv.slice(2);
const ort = createRequire(join(modules, "index.js"))("onnxruntime-node");
const session = await ort.InferenceSession.create(model, {
  intraOpNumThreads: Number(threads),
  interOpNumThreads: 1,
  graphOptimizationLevel: "all",
});
const tensors = (metadata) =>
  Object.fromEntries(
    metadata.map(({ name, type, shape }) => {
      const size = shape.reduce((a, b) => a * b, 1);
      const values =
        type === "int64"
          ? new BigInt64Array(size).fill(37n)
          : Float32Array.from({ length: size }, (_, i) => ((i * 7919) % 2001) / 1000 - 1);
      return [name, new ort.Tensor(type, values, shape)];
    }),
  );
const inputs = tensors(session.inputMetadata);
// results go into memory that is there already, as long as their shapes are known
const known = session.outputMetadata.every(({ shape }) => shape.every(Number.isInteger));
const outputs = known ? tensors(session.outputMetadata) : undefined;
const run = () => session.run(inputs, ...(outputs ? [outputs] : []));
await serve({
  version: `onnxruntime-node ${ort.env.versions.node ?? ort.env.versions.common}`,
  run: async () => {
    const start = performance.now();
    await run();
    return performance.now() - start;
  },
});
