// What the pipeline runs is what its parts say: the direct loop of a sampler over the network gives the same pictures, and a
// guided step is the mix of two plain ones.
import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ddpmUnet, type DdpmUnetConfig } from "../../lib/models/ddpm-unet.js";
import { dit } from "../../lib/models/dit.js";
import type { DiffusionPipeline } from "../../lib/pipelines/diffusion.js";
import { loadPipeline } from "../../lib/pipelines/load-pipeline.js";
import { pixelsOf } from "../../lib/pipelines/picture-codec.js";
import { chainLevel, chainLevels, chainOf, respacedChain } from "../../lib/processes/gaussian.js";
import { predictions } from "../../lib/processes/gaussian-levels.js";
import { trailingTimesteps } from "../../lib/processes/respacing.js";
import { Buffer as Memory } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { sampleContinuous } from "../../lib/samplers/continuous.js";
import { continuousStepGraph } from "../../lib/samplers/continuous-step.js";
import { keyTable } from "../../lib/samplers/discrete.js";
import { samplerOf } from "../../lib/samplers/samplers.js";
import type { Graph } from "../../lib/ir/graph.js";
import { randomNormal } from "../../lib/trace/functions.js";
import { trace } from "../../lib/trace/trace.js";
import { batchConditions } from "../../lib/pipelines/batch-conditions.js";
import { denoise, type DenoiseStep } from "../../lib/pipelines/denoising.js";
import { openDiffusion, type DiffusionParts } from "../../lib/pipelines/diffusion-folder.js";
import { readPipelineFile } from "../../lib/pipelines/pipeline.js";
import { SessionCache } from "../../lib/runtime/session-cache.js";
import { tinyDiffusion, tinyDit, tinySystems } from "./tiny-diffusion.js";

const folders: string[] = [];
let pixelsPipe: DiffusionPipeline;
let latents: DiffusionParts;

beforeAll(async () => {
  folders.push(await tinyDiffusion(tinySystems.ddpm), await tinyDiffusion(tinySystems.dit));
  pixelsPipe = await loadPipeline(folders[0]!, { kind: "diffusion" });
  latents = (await openDiffusion(folders[1]!, await readPipelineFile(folders[1]!))).parts;
});

afterAll(async () => {
  pixelsPipe.dispose();
  for (const folder of folders) await rm(folder, { recursive: true });
});

type Inputs = Parameters<Awaited<ReturnType<typeof sessionOf>>["run"]>[0];

/** A graph with the weights it asks for. */
async function sessionOf(graph: Graph, weights: ReadonlyMap<string, Memory>) {
  const program = await compile(graph);
  const names = graph.inputs.filter(({ role }) => role === "weight").map(({ name }) => name);
  return program.bind(Object.fromEntries(names.map((name) => [name, weights.get(name)!])));
}

/** First noise of samples 0 … batch - 1 as the pipeline draws it: stream 3 of the counter. */
async function firstNoise(shape: readonly number[], seed: number): Promise<Float32Array> {
  const batch = shape[0]!;
  const graph = trace((t) => {
    const key = t.input("key", { shape: [batch, 4], dtype: "i32" });
    t.output("x", randomNormal(key, { shape: [...shape], purpose: 3 }));
  });
  const session = await sessionOf(graph, new Map());
  return (await session.run({ key: keyTable(seed, 0, 0, batch) }))["x"] as Float32Array;
}

describe("a pipeline", () => {
  it.each([
    ["ddim", { eta: 0.5 }],
    ["dpm-solver-2m-sde", {}],
  ] as const)("gives the pictures of the direct loop of %s", async (sampler, samplerOptions) => {
    const { settings, parts } = tinySystems.ddpm;
    const { parameters, forward } = ddpmUnet(parts.denoiser.config as DdpmUnetConfig);
    const stored = pixelsPipe.parts().denoiser.weights;
    const weights = new Map(
      parameters.map(({ name, shape }) => [
        name,
        Memory.fromArray(stored.get(name)!, "f32", shape),
      ]),
    );
    const chain = chainOf(settings.process.chain);
    const plan = samplerOf(sampler, samplerOptions).plan(
      chainLevels(respacedChain(chain, trailingTimesteps(40, 6))),
    );
    const graph = continuousStepGraph({
      denoise: (_, { x, times }) => forward({ x, times }),
      batch: 2,
      shape: [8, 8, 3],
      plan,
      clamp: [-1, 1],
    });
    const session = await sessionOf(graph, weights);
    let last: Float32Array | undefined;
    const loop = sampleContinuous((inputs) => session.run(inputs as Inputs), {
      plan,
      parameterisation: predictions.eps,
      batch: 2,
      shape: [8, 8, 3],
      seed: 9,
      start: await firstNoise([2, 8, 8, 3], 9),
    });
    for await (const { state } of loop) last = state.x as Float32Array;
    const options = { sampler, samplerOptions, steps: 6, seed: 9, count: 2 } as const;
    const { images } = await pixelsPipe.generate(options);
    const f = Math.fround;
    const bytes = Array.from(last!, (x) => Math.floor(Math.min(255, Math.max(0, f(f(f(x + 1) * 127.5) + 0.5))))); // prettier-ignore
    const made = images.flatMap(({ data }) => [...data]);
    expect(made).toEqual(bytes);
    const again = [...pixelsOf(images.slice(0, 1))][0]!;
    expect(again).toBeCloseTo(made[0]! / 127.5 - 1, 6);
  });

  it("mixes both branches of a guided step by hand", async () => {
    const { settings } = tinySystems.dit;
    const model = dit(tinyDit as never);
    const rows = 4; // a labelled row and an empty one for each of two samples
    const network = await sessionOf(
      trace((t) => {
        const x = t.input("x", { shape: [rows, 8, 8, 4] });
        const times = t.input("times", { shape: [rows] });
        const labels = t.input("labels", { shape: [rows], dtype: "i32" });
        t.output("output", model.forward({ x, times, labels }));
      }),
      latents.weights.denoiser!,
    );
    const sampling = { ...settings.defaults, sampler: "ddim", steps: 1, spacing: "trailing", guidanceScale: 3 } as const; // prettier-ignore
    const shape = [8, 8, 4] as const;
    const jobs = [2, 4].map((label, i) => ({ prompt: "", attributes: { class: label }, sample: i, subject: i })); // prettier-ignore
    const sessions = new SessionCache(latents.weights.denoiser!);
    const parts = { networks: latents.networks, settings, sessions: { denoiser: sessions } };
    const conditions = await batchConditions(parts, { jobs, isGuided: true, shape, seed: 5 });
    const job = { denoiser: latents.networks.denoiser, process: settings.process, sessions, sampling, conditions, batch: 2, shape, seed: 5, firstSample: 0 }; // prettier-ignore
    const steps: DenoiseStep[] = [];
    for await (const step of denoise(job)) steps.push(step);
    const x = await firstNoise([2, 8, 8, 4], 5);
    const { output } = await network.run({
      x: Float32Array.from([...x, ...x]),
      times: new Float32Array(rows).fill(39),
      labels: Int32Array.of(2, 4, 5, 5),
    });
    const { a, c } = chainLevel(chainOf(settings.process.chain), 39);
    const size = 8 * 8;
    expect(steps).toHaveLength(1);
    const expected = Float32Array.from(x, (value, i) => {
      const channel = i % 4;
      const at = (row: number): number =>
        output![(row * size + (Math.floor(i / 4) % size)) * 8 + channel] as number;
      const sample = Math.floor(i / (4 * size));
      const [told, empty] = [at(sample), at(2 + sample)];
      const eps = channel < 3 ? empty + 3 * (told - empty) : told; // guidanceChannels is 3
      return (value - c * eps) / a;
    });
    const worst = steps[0]!.states.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0); // prettier-ignore
    const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    expect(worst / largest).toBeLessThan(1e-5);
    sessions.dispose();
  });
});
