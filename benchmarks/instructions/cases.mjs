// Small cases of the hot kernels, for counting instructions: weights are constants, so that they are packed before the run.
import { functions as ops, trace } from "../../dist/index.js";
import { encode } from "../../dist/ir/encode.js";
import { sizeOf } from "../../dist/ir/shape.js";
import { native } from "../../dist/runtime/native.js";
import { arrayFor } from "../../dist/runtime/buffer.js";
import { lower } from "../../dist/trace/lower.js";

const pattern = (size, scale) =>
  Array.from({ length: size }, (_, i) => (((i * 7919) % 2001) / 1000 - 1) * scale);
const weight = (t, ...shape) => t.constant(pattern(sizeOf(shape), 0.1), shape);
const input = (t, name, ...shape) => t.input(name, { shape });

const conv =
  (side, from, to, options = {}) =>
  (t) => {
    const { size = 3, stride = 1, upsample = 1 } = options;
    const pad = size === 3 ? 1 : 0;
    return ops
      .conv2d(input(t, "x", 1, side, side, from), weight(t, size, size, from, to), {
        padding: stride === 2 ? [0, 1, 0, 1] : [pad, pad, pad, pad],
        stride: [stride, stride],
        upsample,
      })
      .add(weight(t, to));
  };

const groupNorm = (t, x) => {
  const C = x.shape.at(-1);
  return ops.groupNorm(x, weight(t, C), weight(t, C), {
    groups: 32,
    eps: 1e-6,
    activation: "silu",
  });
};

const residualBlock = (t) => {
  const x = input(t, "x", 1, 16, 16, 128);
  const layer = (h) =>
    ops.conv2d(groupNorm(t, h), weight(t, 3, 3, 128, 128), { padding: [1, 1, 1, 1] });
  return x.add(layer(layer(x).add(input(t, "time", 1, 1, 1, 128))));
};

const transformerBlock = (t) => {
  const [N, D, H] = [64, 128, 4];
  const x = input(t, "x", 1, N, D);
  const normed = ops.layerNorm(x, {
    eps: 1e-6,
    affine: "modulate",
    scale: input(t, "scale", 1, D),
    shift: input(t, "shift", 1, D),
  });
  const heads = () => normed.matmul(weight(t, D, D)).reshape([1, N, H, D / H]);
  const mixed = ops.attention(heads(), heads(), heads()).out.reshape([1, N, D]);
  const y = x.add(mixed.matmul(weight(t, D, D)));
  const hidden = ops.geluTanh(y.matmul(weight(t, D, 4 * D)).add(weight(t, 4 * D)));
  return y.add(hidden.matmul(weight(t, 4 * D, D)));
};

const codes = (N, K, D) => (t) =>
  ops.nearestCodes(input(t, "z", N, D), weight(t, K, D), { metric: "euclidean" });

const step = (t) => {
  const [N, K] = [64, 1000];
  const xt = t.input("xt", { shape: [1, N], dtype: "i32" });
  const coefficients = t.constant([0.6, 1e-4, 0.3, 0.61, 1e-4, 0.29, 0.98, 1e-5, 0.01], [1, 9]);
  const settings = t.constant([1, 1, 1, 0], [1, 4]);
  const uniform = t.constant(
    pattern(N, 0.5).map((u) => u + 0.5),
    [1, N],
  );
  return ops.maskReplaceStep(input(t, "logits", 1, N, K), xt, coefficients, settings, uniform)
    .tokens;
};

const cases = {
  "conv 3x3 128-128 @16": conv(16, 128, 128),
  "conv 3x3 256-256 @8": conv(8, 256, 256),
  "conv 3x3 64-64 @16 stride 2": conv(16, 64, 64, { stride: 2 }),
  "conv 3x3 64-64 @8 upsampled": conv(8, 64, 64, { upsample: 2 }),
  "conv 1x1 128-256 @16": conv(16, 128, 256, { size: 1 }),
  "conv 3x3 3-64 @32": conv(32, 3, 64),
  "conv 3x3 64-3 @32": conv(32, 64, 3),
  "group norm + SiLU 128 @16": (t) => groupNorm(t, input(t, "x", 1, 16, 16, 128)),
  "residual block 128 @16": residualBlock,
  "matmul 256x384x384": (t) => input(t, "x", 256, 384).matmul(weight(t, 384, 384)),
  "matmul 1x256x384x512, Strassen": (t) => input(t, "x", 1, 256, 384).matmul(weight(t, 384, 512)),
  "transformer block 64x128": transformerBlock,
  "softmax 128x512": (t) => ops.softmax(input(t, "x", 128, 512)),
  "nearest codes 256x1024x64": codes(256, 1024, 64),
  "nearest codes 256x1024x4": codes(256, 1024, 4),
  "mask-and-replace step 64x1000": step,
};

export const caseNames = Object.keys(cases);

const u32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const blob = (data) => [
  u32(data.byteLength),
  Buffer.from(data.buffer, data.byteOffset, data.byteLength),
];
const text = (value) => blob(Buffer.from(value));

function encoded(name, build, kernels) {
  const graph = lower(
    trace((t) => t.output("y", build(t))),
    kernels,
  );
  const inputs = graph.inputs.map(({ value }) => {
    const { dtype, shape } = graph.values[value];
    const data = arrayFor(dtype, sizeOf(shape));
    return blob(dtype === "f32" ? Float32Array.from(pattern(data.length, 1)) : data.fill(1000));
  });
  return Buffer.concat([
    ...text(name),
    ...blob(encode(graph)),
    u32(inputs.length),
    ...inputs.flat(),
    u32(1),
    ...text("y"),
    Buffer.of(0), // the value is not compared
  ]);
}

/** The file that smalti_run_cases reads (its format: tests/cases/export-cases.ts). */
export function caseFile() {
  const kernels = new Set(native().kernels());
  const parts = Object.entries(cases).map(([name, build]) => encoded(name, build, kernels));
  return Buffer.concat([Buffer.from("SMLC"), u32(parts.length), ...parts]);
}
