// Published networks with random weights, for the benchmarks.
import { ddpmUnet } from "../dist/models/ddpm-unet.js";
import { ddpmUnetConfigs } from "../dist/models/ddpm-configs.js";
import { dit, ditConfigs } from "../dist/models/dit.js";
import { vqTransformer } from "../dist/models/vq-transformer.js";
import { vqTransformerConfigs } from "../dist/models/vq-transformer-configs.js";
import { vqgan } from "../dist/models/vqgan.js";
import { vqganConfigs } from "../dist/models/vqgan-configs.js";
import { Buffer as DeviceBuffer } from "../dist/runtime/buffer.js";
import { compile } from "../dist/runtime/program.js";
import { trace } from "../dist/trace/trace.js";

const latent = (model) => (t) =>
  model.forward({
    x: t.input("x", { shape: [1, 32, 32, 4] }),
    times: t.input("times", { shape: [1] }),
    labels: t.input("labels", { shape: [1], dtype: "i32" }),
  });

export const networks = {
  "ddpm-cifar10": () => {
    const model = ddpmUnet(ddpmUnetConfigs.cifar10);
    const inputs = (t) => ({
      x: t.input("x", { shape: [1, 32, 32, 3] }),
      times: t.input("times", { shape: [1] }),
    });
    return { model, forward: (t) => model.forward(inputs(t)) };
  },
  "vqgan-f16-decoder": () => {
    const model = vqgan(vqganConfigs["f16-1024"]);
    const tokens = (t) => t.input("tokens", { shape: [1, 256], dtype: "i32" });
    return { model, forward: (t) => model.detokenize(tokens(t)) };
  },
  "dit-s2": () => {
    const model = dit(ditConfigs["S/2"]);
    return { model, forward: latent(model) };
  },
  "dit-b2": () => {
    const model = dit(ditConfigs["B/2"]);
    return { model, forward: latent(model) };
  },
  "vq-diffusion-s": () => {
    const model = vqTransformer({ ...vqTransformerConfigs.small, timesteps: 100 });
    const inputs = (t) => ({
      tokens: t.input("tokens", { shape: [1, 1024], dtype: "i32" }),
      times: t.input("times", { shape: [1], dtype: "i32" }),
      condition: t.input("condition", { shape: [1, 77, 512] }),
    });
    return { model, forward: (t) => model.forward(inputs(t)) };
  },
};

/** Small numbers of both signs; one buffer of values serves every tensor. */
export function randomWeights(specs) {
  const largest = Math.max(...specs.map(({ size }) => size));
  const values = new Float32Array(largest);
  let state = 1;
  for (let i = 0; i < largest; ++i) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = (state / 2 ** 32 - 0.5) * 0.05;
  }
  return Object.fromEntries(
    specs.map(({ name, shape, size }) => [
      name,
      DeviceBuffer.fromArray(values.subarray(0, size), "f32", shape),
    ]),
  );
}

const arrays = { f32: Float32Array, i32: Int32Array };
const elements = (shape) => shape.reduce((a, b) => a * b, 1);

/** The graph of one forward pass, its program, the shapes of its weights, and inputs of ones. */
export async function compileNetwork(name) {
  const { forward } = networks[name]();
  const graph = trace((t) => t.output("y", forward(t)));
  const value = ({ value: id }) => graph.values[id];
  const specs = graph.inputs
    .filter(({ role }) => role !== "input")
    .map((input) => ({ name: input.name, shape: value(input).shape, size: elements(value(input).shape) })); // prettier-ignore
  const inputs = graph.inputs.filter(({ role }) => role === "input");
  const given = Object.fromEntries(
    inputs.map((input) => [input.name, new arrays[value(input).dtype](elements(value(input).shape)).fill(1)]), // prettier-ignore
  );
  return { program: await compile(graph), specs, given };
}
