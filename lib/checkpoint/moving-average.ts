// Averaged weights (EMA) of a checkpoint laid over the raw ones: LitEma names without dots (CompVis/latent-diffusion
// ldm/modules/ema.py), sections of their own, and a second network beside the first (DiffuseVAE).
import { fault } from "./byte-source.js";

/** Where the averages of a checkpoint are, and for which names. */
export interface Averages<T> {
  /** What they are called, for people. */
  kind: string;
  /** Averaged tensor by the name of the raw one. */
  tensors: ReadonlyMap<string, T>;
  /** Raw names that belong to the averages themselves and are left out. */
  own: ReadonlySet<string>;
}

const litPrefix = "model_ema.";
const litState = new Set(["model_ema.decay", "model_ema.num_updates"]);

/** LitEma inside a state dictionary: "model_ema." and the raw name, below "model." or not, without its dots. */
function litEma<T>(raw: ReadonlyMap<string, T>, where: string): Averages<T> | undefined {
  const own = new Set([...raw.keys()].filter((name) => name.startsWith(litPrefix)));
  const averaged = [...own].filter((name) => !litState.has(name));
  if (averaged.length === 0) return undefined;
  const squashed = new Map<string, string>();
  const twice = new Set<string>();
  for (const name of raw.keys()) {
    if (own.has(name)) continue;
    for (const candidate of [name, ...(name.startsWith("model.") ? [name.slice(6)] : [])]) {
      const key = candidate.replaceAll(".", "");
      if (squashed.has(key) && squashed.get(key) !== name) twice.add(key);
      else squashed.set(key, name);
    }
  }
  const tensors = new Map<string, T>();
  for (const name of averaged) {
    const key = name.slice(litPrefix.length).replaceAll(".", "");
    const target = squashed.get(key);
    if (target === undefined) throw fault(where, `raw weights of the average "${name}"`, "none");
    if (twice.has(key))
      throw fault(where, `one raw tensor of the average "${name}"`, "several without their dots");
    tensors.set(target, raw.get(name)!);
  }
  return { kind: "model_ema.*", tensors, own };
}

/** Pairs of networks in one dictionary: raw start of the names, averaged start. */
const pairs: readonly (readonly [string, string])[] = [
  ["online_network.", "target_network."],
  ["online_model.", "ema_model."],
];

function pairEma<T>(raw: ReadonlyMap<string, T>): Averages<T> | undefined {
  for (const [rawStart, averagedStart] of pairs) {
    const names = [...raw.keys()];
    const own = new Set(names.filter((name) => name.startsWith(averagedStart)));
    if (own.size === 0 || !names.some((name) => name.startsWith(rawStart))) continue;
    const tensors = new Map<string, T>();
    for (const name of own)
      tensors.set(rawStart + name.slice(averagedStart.length), raw.get(name)!);
    return { kind: `${averagedStart}*`, tensors, own };
  }
  return undefined;
}

/** Averages inside a dictionary of tensors. Throws "checkpoint" when they do not belong to its names. */
export const innerAverages = <T>(
  raw: ReadonlyMap<string, T>,
  where: string,
): Averages<T> | undefined => litEma(raw, where) ?? pairEma(raw);

const wrappers = /^(?:ema_model\.|module\.|_orig_mod\.)+/;

/** Averages in a section of their own: the same names, or without the first part of each. */
export function sectionAverages<T>(
  raw: ReadonlyMap<string, T>,
  averaged: ReadonlyMap<string, T>,
  path: string,
): Averages<T> {
  const hasInner = [...averaged.keys()].some((name) => name.startsWith("ema_model."));
  const stripped = new Map<string, T>();
  for (const [name, tensor] of averaged) {
    if (hasInner && !name.startsWith("ema_model.")) continue; // the raw copy inside it
    stripped.set(raw.has(name) ? name : name.replace(wrappers, ""), tensor);
  }
  const start = commonStart(raw, stripped);
  const tensors = new Map([...stripped].map(([name, tensor]) => [start + name, tensor]));
  return { kind: path, tensors, own: new Set() };
}

/** What has to stand before the averaged names to make them raw ones; "" when nothing does. */
function commonStart(
  raw: ReadonlyMap<string, unknown>,
  averaged: ReadonlyMap<string, unknown>,
): string {
  const names = [...averaged.keys()];
  const name = names.find((candidate) => !raw.has(candidate)) ?? names[0];
  if (name === undefined) return "";
  const isStart = (start: string): boolean => names.every((item) => raw.has(start + item));
  if (isStart("")) return "";
  for (const candidate of raw.keys()) {
    if (!candidate.endsWith(`.${name}`)) continue;
    const start = candidate.slice(0, candidate.length - name.length);
    if (isStart(start)) return start;
  }
  return "";
}
