// A frozen network in front of a training: batches become latents, reconstructions or codes while the step before runs, on
// the engine's thread, so that nothing waits in JavaScript. Sources: Rombach et al. 2022, arXiv:2112.10752, section 3;
// Pandey et al. 2022, arXiv:2201.00308, section 3.
import { createHash } from "node:crypto";
import type { Batch } from "../data/loader.js";
import { DiffusionError, formatShape } from "../errors.js";
import type { Graph } from "../ir/graph.js";
import type { ParamSpec } from "../ir/param.js";
import type { Shape } from "../ir/shape.js";
import type { DiffuseVae } from "../models/diffusevae-vae.js";
import { drawLatent } from "../models/diffusevae-vae.js";
import type { FirstStage, FirstStageOptions } from "../models/first-stage.js";
import { Buffer } from "../runtime/buffer.js";
import { compile, type Program, type Session } from "../runtime/program.js";
import { randomNormal } from "../trace/functions.js";
import type { InputSpec, Tensor } from "../trace/tensor.js";
import { trace } from "../trace/trace.js";
import type { BatchPlace } from "./task-trainer.js";
import type { Values } from "./train-step.js";

/** Inputs of a step that are made of a batch. */
export interface DerivedInputs {
  /** Plain data that decides them; a run with other ones is not resumed. */
  readonly configuration?: object;
  /** Their shapes, by name, for pictures (B, H, W, C). */
  inputs(pictures: Shape): Record<string, InputSpec>;
  read(
    batch: Batch,
    place: BatchPlace,
  ): Record<string, Float32Array> | Promise<Record<string, Float32Array>>;
  dispose?(): void;
}

/** What a frozen network may read. */
interface StageInputs {
  /** (B, H, W, C) in [-1, 1]. */
  images(): Tensor;
  /** i32 (B). */
  labels(): Tensor;
  /** Standard normal draws that depend on seed, step and sample only. */
  noise(shape: Shape): Tensor;
}

export interface StageNetwork {
  parameters: readonly ParamSpec[];
  states?: readonly ParamSpec[];
  /** Plain data beside the weights that decides the outputs. */
  settings?: object;
  /** Inputs of the step, by name. */
  outputs(read: StageInputs): Record<string, Tensor>;
}

const stagePurpose = 2; // the process draws with 1

function stageGraph({ outputs }: StageNetwork, pictures: Shape): Graph {
  const [B] = pictures as readonly [number];
  return trace((t) => {
    const known = new Map<string, Tensor>();
    const input = (name: string, spec: InputSpec): Tensor => {
      const found = known.get(name) ?? t.input(name, spec);
      known.set(name, found);
      return found;
    };
    const read: StageInputs = {
      images: () => input("images", { shape: pictures }),
      labels: () => input("labels", { shape: [B], dtype: "i32" }),
      noise: (shape) =>
        randomNormal(input("key", { shape: [B, 4], dtype: "i32" }), {
          shape,
          purpose: stagePurpose,
        }),
    };
    for (const [name, value] of Object.entries(outputs(read))) t.output(name, value);
  });
}

/** Tells weights apart: the first half of a SHA-256 over all values. */
function fingerprint(specs: readonly ParamSpec[], weights: Values): string {
  const hash = createHash("sha256");
  for (const { name } of specs) {
    const { buffer, byteOffset, byteLength } = weights.get(name)!;
    hash.update(new Uint8Array(buffer, byteOffset, byteLength));
  }
  return hash.digest("hex").slice(0, 32);
}

/** Compiled when the first batch comes. */
export class FrozenStage implements DerivedInputs {
  readonly configuration: object;
  readonly #buffers: ReadonlyMap<string, Buffer>;
  #graph: Graph | undefined;
  #compiled: Promise<{ program: Program; session: Session }> | undefined;

  constructor(
    private readonly network: StageNetwork,
    weights: Values,
  ) {
    const specs = [...network.parameters, ...(network.states ?? [])];
    this.configuration = { ...network.settings, weights: fingerprint(specs, weights) };
    this.#buffers = new Map(
      specs.map(({ name, shape }) => [
        name,
        Buffer.fromArray(weights.get(name)!, "f32", shape, name),
      ]),
    );
  }

  inputs(pictures: Shape): Record<string, InputSpec> {
    const graph = stageGraph(this.network, pictures);
    this.#graph = graph;
    const outputs = graph.outputs.map(({ name, value }) => [name, graph.values[value]!.shape]);
    return Object.fromEntries(
      outputs.map(([name, shape]) => [name, { shape }] as [string, InputSpec]),
    );
  }

  async #open(graph: Graph): Promise<{ program: Program; session: Session }> {
    const program = await compile(graph);
    const names = graph.inputs.filter(({ role }) => role !== "input").map(({ name }) => name);
    const weights = Object.fromEntries(names.map((name) => [name, this.#buffers.get(name)!]));
    return { program, session: await program.bind(weights) };
  }

  async read(
    batch: Batch,
    { key }: Pick<BatchPlace, "key">,
  ): Promise<Record<string, Float32Array>> {
    const graph = (this.#graph ??= stageGraph(this.network, batch.shape));
    const { session } = await (this.#compiled ??= this.#open(graph));
    const { images, labels } = batch;
    const values = Object.entries({ images, labels, key }).filter(([name]) =>
      graph.inputs.some((input) => input.name === name),
    );
    return (await session.run(Object.fromEntries(values))) as Record<string, Float32Array>;
  }

  dispose(): void {
    this.#compiled?.then(
      ({ program, session }) => {
        session.dispose();
        program.dispose();
      },
      () => undefined, // who read is told
    );
    this.#buffers.forEach((buffer) => buffer.dispose());
  }
}

/** Latents in place of pictures; those of a KL autoencoder are drawn anew for every visit. `scale` is that of the stage. */
export const latentStage = (
  stage: FirstStage,
  weights: Values,
  { scale = 1 }: FirstStageOptions = {},
): FrozenStage =>
  new FrozenStage(
    {
      parameters: stage.parameters,
      states: stage.states,
      settings: { scale },
      outputs({ images, noise }) {
        const pictures = images();
        const [B, H, W] = pictures.shape as readonly [number, number, number];
        if (H % stage.stride !== 0 || W % stage.stride !== 0)
          throw new DiffusionError(
            "shape",
            `latents: expected pictures with sides divisible by ${stage.stride}, got ${formatShape([H, W])}`,
          );
        const shape = [B, H / stage.stride, W / stage.stride, stage.channels];
        return { x0: stage.encode(pictures, noise(shape)) };
      },
    },
    weights,
  );

/**
 * Reconstructions from latents drawn from the posterior, in [-1, 1], as the pair of DiffuseVAE's refiner; with `withLatent`
 * the latents (B, D), too.
 */
export const reconstructionStage = (
  vae: DiffuseVae,
  weights: Values,
  { withLatent = false } = {},
): FrozenStage =>
  new FrozenStage(
    {
      parameters: vae.parameters,
      outputs({ images, labels, noise }) {
        const told = vae.config.classes === undefined ? undefined : labels();
        const posterior = vae.encode(images().add(1).mul(0.5), told);
        const latent = drawLatent(posterior, noise(posterior.mean.shape));
        const pair = vae.decode(latent, told).mul(2).sub(1);
        const rows = [latent.shape[0]!, vae.latentWidth];
        return { pair, ...(withLatent && { latent: latent.reshape(rows) }) };
      },
    },
    weights,
  );
