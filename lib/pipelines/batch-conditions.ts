// What a batch of pictures is told, as inputs of the denoiser: labels, encoded words or classes, the picture of a VAE that
// is refined, a low-resolution picture, or the codes of a tokenizer; with guidance the empty condition beside it.
import { DiffusionError } from "../errors.js";
import type { Image } from "../image/image-io.js";
import type { Graph } from "../ir/graph.js";
import { drawLatent } from "../models/diffusevae-vae.js";
import { keyTable } from "../samplers/discrete.js";
import type { NamedInputs } from "../samplers/continuous.js";
import type { TensorData } from "../runtime/buffer.js";
import type { SessionCache } from "../runtime/session-cache.js";
import type { ClipTokenizer } from "../text/clip-tokenizer.js";
import { randomNormal, resize } from "../trace/functions.js";
import { trace, type InputSpec } from "../trace/trace.js";
import { classAttribute } from "../trainers/condition-rows.js";
import type { BatchConditions } from "./denoising.js";
import type { DiffusionPart } from "./diffusion-folder.js";
import {
  classCount,
  toldClasses,
  type DiffusionNetworks,
  type DiffusionSettings,
} from "./diffusion-settings.js";
import type { Job } from "./jobs.js";
import { pixelsOf, type StateShape } from "./picture-codec.js";

/** What encodes conditions. */
export interface ConditionParts {
  networks: DiffusionNetworks;
  settings: DiffusionSettings;
  /** Sessions on the weights of each part. */
  sessions: Readonly<Partial<Record<DiffusionPart, SessionCache>>>;
  /** With a text encoder. */
  tokenizer?: ClipTokenizer;
}

export interface ConditionJob {
  jobs: readonly Job[];
  /** Whether the empty conditions are wanted as well. */
  isGuided: boolean;
  /** What guidance leads away from; default "". */
  negativePrompt?: string;
  /** A picture for each job, for networks that read one. */
  images?: readonly Image[];
  shape: StateShape;
  seed: number;
  signal?: AbortSignal;
}

/** Number of the random stream of the latents of a VAE. */
const kLatentPurpose = 4;

/** Label of pictures whose class was not said; undefined: a class has to be said. */
const unsaidLabel = ({ denoiser, classEmbedder }: DiffusionNetworks): number | undefined =>
  classEmbedder?.config.nullClass ? classEmbedder.config.classes : denoiser.nullClass;

/** Throws "option" for pictures that need a class and have none. */
export function checkClasses(
  networks: DiffusionNetworks,
  jobs: readonly Job[],
  isClassified: boolean,
): void {
  const count = classCount(networks);
  const isTold = toldClasses(networks) !== undefined && unsaidLabel(networks) === undefined;
  if (!isTold && !isClassified) return;
  if (jobs.every(({ attributes }) => attributes[classAttribute]! < count)) return;
  throw new DiffusionError(
    "option",
    `generate: expected a class from 0 to ${count - 1}: this model, or its classifier, has to be told one; got none`,
  );
}

/** Labels of the jobs; with `empty` rows of no class after them. */
function labelsOf(networks: DiffusionNetworks, jobs: readonly Job[], empty: boolean): Int32Array {
  const none = unsaidLabel(networks) ?? 0;
  const count = classCount(networks);
  const labels = jobs.map(({ attributes }) => attributes[classAttribute]!);
  const said = labels.map((label) => (label < count ? label : none));
  return Int32Array.from(empty ? [...said, ...labels.map(() => none)] : said);
}

const stopOf = ({ signal }: { signal?: AbortSignal }) => (signal ? { signal } : {});

/** The session of a graph that nothing but its key decides. */
async function run(
  sessions: SessionCache,
  [key, graph]: readonly [key: string, graph: () => Graph],
  inputs: Readonly<Record<string, TensorData>>,
  job: { signal?: AbortSignal },
): Promise<Record<string, Float32Array>> {
  return (await sessions.run(key, graph, inputs, stopOf(job))) as Record<string, Float32Array>;
}

/** Words or classes as context, rows of nothing after them when guided: (rows, M, width). */
async function contextOf(parts: ConditionParts, job: ConditionJob): Promise<Float32Array> {
  const { networks, sessions, tokenizer, settings } = parts;
  const { jobs, isGuided, negativePrompt = "" } = job;
  const { textEncoder, classEmbedder } = networks;
  const rows = jobs.length * (isGuided ? 2 : 1);
  if (textEncoder) {
    const { length } = textEncoder.config;
    const said = jobs.map(({ prompt }) => prompt);
    const texts = isGuided ? [...said, ...jobs.map(() => negativePrompt)] : said;
    const padId = settings.text?.padding === "end" ? tokenizer!.endId : 0;
    const { ids } = tokenizer!.encodeBatch(texts, { length, padId });
    const graph = (): Graph =>
      trace((t) => {
        const input = t.input("ids", { shape: [rows, length], dtype: "i32" });
        t.output("context", textEncoder.forward(input).hidden);
      });
    return (await run(sessions.textEncoder!, [`text ${rows}`, graph], { ids }, job))["context"]!;
  }
  const graph = (): Graph =>
    trace((t) => {
      const labels = t.input("labels", { shape: [rows], dtype: "i32" });
      t.output("context", classEmbedder!.forward(labels));
    });
  const labels = labelsOf(networks, jobs, isGuided);
  const found = await run(sessions.classEmbedder!, [`class ${rows}`, graph], { labels }, job);
  return found["context"]!;
}

/** A picture of the VAE for each job, drawn or from pictures, as the pair (B, ...shape) and its latents. */
async function vaePictures(parts: ConditionParts, job: ConditionJob) {
  const { networks, sessions } = parts;
  const { jobs, images, shape, seed } = job;
  const { vae } = networks as Required<DiffusionNetworks>;
  const { resolution: side, classes } = vae.config;
  const B = jobs.length;
  const graph = (): Graph =>
    trace((t) => {
      const key = t.input("key", { shape: [B, 4], dtype: "i32" });
      const noise = randomNormal(key, {
        shape: [B, 1, 1, vae.latentWidth],
        purpose: kLatentPurpose,
      });
      const labels = classes === undefined ? undefined : t.input("labels", { shape: [B], dtype: "i32" }); // prettier-ignore
      const image =
        images &&
        t
          .input("images", { shape: [B, side, side, 3] })
          .add(1)
          .mul(0.5);
      const latent = image ? drawLatent(vae.encode(image, labels), noise) : noise;
      const picture = vae.decode(latent, labels).mul(2).sub(1);
      t.output("pair", resize(picture, { size: [shape[0], shape[1]], method: "nearest" }));
      t.output("latent", latent.reshape([B, vae.latentWidth]));
    });
  const inputs = {
    key: keyTable(seed, jobs[0]!.sample, 0, B),
    ...(classes !== undefined && { labels: labelsOf(networks, jobs, false) }),
    ...(images && { images: pixelsOf(images) }),
  };
  const key = `vae ${B} ${shape.join()} ${images !== undefined}`;
  const found = await run(sessions.vae!, [key, graph], inputs, job);
  return { pair: found["pair"]!, latent: found["latent"]! };
}

/** Low-resolution pictures at the size of the state. */
async function enlarged({ sessions }: ConditionParts, job: ConditionJob): Promise<Float32Array> {
  const { jobs, images, shape } = job;
  const [{ width, height }] = images as readonly [Image, ...Image[]];
  const rows = [jobs.length, height, width, shape[2]];
  const graph = (): Graph =>
    trace((t) =>
      t.output("pair", resize(t.input("images", { shape: rows }), { size: [shape[0], shape[1]] })),
    );
  const key = `enlarge ${rows.join()} ${shape.join()}`;
  const inputs = { images: pixelsOf(images!, shape[2]) };
  return (await run(sessions.denoiser!, [key, graph], inputs, job))["pair"]!;
}

/** Code vectors of pictures (B, h, w, D). */
async function codesOf({ networks, sessions }: ConditionParts, job: ConditionJob) {
  const { jobs, images, shape } = job;
  const { quantizer, encode } = networks.denoiser.tokenizer!;
  const rows = [jobs.length, ...shape];
  const graph = (): Graph =>
    trace((t) => {
      const latents = encode(t.input("images", { shape: rows }));
      t.output("codes", quantizer.lookup(quantizer.indices(latents)));
    });
  const inputs = { images: pixelsOf(images!, shape[2]) };
  const found = await run(sessions.denoiser!, [`codes ${rows.join()}`, graph], inputs, job);
  return found["codes"]!;
}

/** Inputs of the denoiser besides state, time and pair. */
function inputsOf(
  { denoiser, textEncoder }: DiffusionNetworks,
  shape: StateShape,
): (rows: number) => Record<string, InputSpec> {
  const { classes, contextWidth: width, latentWidth, tokenizer } = denoiser;
  const [h, w] = [shape[0] / (tokenizer?.patch ?? 1), shape[1] / (tokenizer?.patch ?? 1)];
  return (rows) => ({
    ...(classes !== undefined && { labels: { shape: [rows], dtype: "i32" as const } }),
    ...(width !== undefined && { context: { shape: [rows, textEncoder?.config.length ?? 1, width] } }), // prettier-ignore
    ...(latentWidth !== undefined && { latent: { shape: [rows, latentWidth] } }),
    ...(tokenizer && { codes: { shape: [rows, h, w, tokenizer.quantizer.config.width] } }),
    ...(tokenizer && { hidden: { shape: [rows, h, w] } }),
  });
}

/** Values, and zeros or another filling after them. */
function filled(values: Float32Array, filling: number): Float32Array {
  const out = new Float32Array(2 * values.length).fill(filling, values.length);
  out.set(values);
  return out;
}

/** Conditions of a batch. */
export async function batchConditions(
  parts: ConditionParts,
  job: ConditionJob,
): Promise<BatchConditions> {
  const { networks } = parts;
  const { denoiser, vae } = networks;
  const { jobs, isGuided, shape } = job;
  const two = vae && (await vaePictures(parts, job));
  const pair = two?.pair ?? (denoiser.pair ? await enlarged(parts, job) : undefined);
  const codes = denoiser.tokenizer && (await codesOf(parts, job));
  const places = codes && new Float32Array(codes.length / denoiser.tokenizer!.quantizer.config.width); // prettier-ignore
  const both = {
    ...(denoiser.classes !== undefined && { labels: labelsOf(networks, jobs, true) }),
    ...(denoiser.contextWidth !== undefined && { context: await contextOf(parts, job) }),
    ...(denoiser.latentWidth !== undefined && { latent: filled(two!.latent, 0) }),
    ...(codes && { codes: filled(codes, 0), hidden: filled(places!, 1) }),
  };
  const first = (name: string, values: Int32Array | Float32Array) =>
    values.slice(0, name === "context" && !isGuided ? undefined : values.length / 2);
  const plain = Object.entries(both).map(([name, values]) => [name, first(name, values)]);
  return {
    inputs: inputsOf(networks, shape),
    plain: Object.fromEntries(plain) as NamedInputs,
    ...(isGuided && { guided: both }),
    ...(networks.classifier && { wanted: labelsOf(networks, jobs, false) }),
    ...(pair && { pair }),
  };
}
