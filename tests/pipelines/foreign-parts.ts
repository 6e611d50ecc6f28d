// Parts of tiny systems as files in the names and layouts of the originals, with the weights of tinyDiffusion.
import { writeSafetensors } from "../../lib/checkpoint/safetensors.js";
import { families } from "../../lib/models/families.js";
import { ShapeView } from "../../lib/models/family.js";
import { fromLayout } from "../../lib/nn/key-map.js";
import {
  diffusionNetworks,
  specsOf,
  type DiffusionPart,
} from "../../lib/pipelines/diffusion-folder.js";
import { foreignOf } from "../checkpoint/foreign-weights.js";
import { tinyWeights, type TinySystem } from "./tiny-diffusion.js";

export interface ForeignValues {
  shape: readonly number[];
  data: Float32Array;
}

type Tensors = Map<string, ForeignValues>;

/** The position map of tinyDit, which our network computes. */
export const posEmbed: ForeignValues = { shape: [1, 16, 16], data: new Float32Array(256) };

/** Names of open_clip for ours. */
const clipNames: readonly [string, string][] = [
  ["attn.qkv.", "attn.in_proj_"],
  ["attn.proj.", "attn.out_proj."],
  ["mlp.fc1.", "mlp.c_fc."],
  ["mlp.fc2.", "mlp.c_proj."],
];

/** A part of a system in the names and layouts of a family, with the weights of tinyDiffusion. */
export function foreignPart(system: TinySystem, part: DiffusionPart, familyName: string): Tensors {
  const network = diffusionNetworks(system.parts, system.settings)[part]!;
  const place = Object.keys(system.parts).indexOf(part);
  const weights = tinyWeights(network, 20 + place);
  const family = families.find(({ name }) => name === familyName)!;
  const keys = family.keys(system.parts[part]!.config, new ShapeView("test", new Map()));
  const tensors: Tensors = new Map();
  for (const spec of specsOf(network)) {
    const renamed =
      familyName === "clip-text"
        ? clipNames.reduce((name, [ours, theirs]) => name.replace(ours, theirs), spec.name)
        : spec.name;
    const found = foreignOf(spec, keys, renamed);
    if (!found) throw new Error(`no foreign form of ${spec.name}`);
    const data = fromLayout(weights.get(spec.name)!, found.shape, found.layout);
    tensors.set(renamed, { shape: found.shape, data });
  }
  return tensors;
}

export const below = (place: string, tensors: Tensors): [string, ForeignValues][] =>
  [...tensors].map(([name, tensor]) => [place + name, tensor]);

/** Writes tensors as a file and returns its path. */
export async function foreignFile(
  path: string,
  tensors: Iterable<[string, ForeignValues]>,
): Promise<string> {
  const entries = [...tensors].map(([name, { shape, data }]) => ({
    ...{ name, shape, data },
    dtype: "f32" as const,
  }));
  await writeSafetensors(path, entries);
  return path;
}
