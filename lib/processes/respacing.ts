// Which timesteps of a trained chain a shorter one visits, in rising order. Every rule is a pure
// function of the chain's length; the networks' times follow from the kept indices.
import { DiffusionError } from "../errors.js";
import { cleanLevel } from "./gaussian.js";
import type { GaussianChain } from "./gaussian.js";
import type { Level } from "./gaussian-levels.js";
import { linspace } from "./gaussian-schedules.js";
import { DiscreteSigmas, karrasSigmas } from "./sigmas.js";

const fail = (where: string, expected: string, got: unknown): never => {
  throw new DiffusionError("option", `${where}: expected ${expected}, got ${String(got)}`);
};

function checkCount(where: string, timesteps: number, count: number): void {
  if (!Number.isInteger(count) || count < 1 || count > timesteps)
    fail(where, `a count from 1 to ${timesteps}`, count);
}

/** Halves go to the even neighbour, as Python's round. */
export function roundHalfEven(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  if (rest !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

/** Smallest whole stride from 0 that gives exactly `count` timesteps; not every count is attainable. */
export function stridedTimesteps(timesteps: number, count: number): number[] {
  checkCount("stridedTimesteps", timesteps, count);
  for (let stride = 1; stride < timesteps || stride === 1; ++stride) {
    if (Math.ceil(timesteps / stride) === count)
      return Array.from({ length: count }, (_, i) => i * stride);
  }
  return fail("stridedTimesteps", `a count that a whole stride over ${timesteps} gives`, count);
}

/** One section: `count` indices from its first to its last, accumulated and rounded half to even. */
function section(start: number, size: number, count: number): number[] {
  if (count > size)
    fail("sectionTimesteps", `at most ${size} steps in a section of ${size}`, count);
  const stride = count <= 1 ? 1 : (size - 1) / (count - 1);
  const out: number[] = [];
  for (let i = 0, position = 0; i < count; ++i, position += stride)
    out.push(start + roundHalfEven(position));
  return out;
}

/**
 * Grammar of openai/guided-diffusion: "" all; "ddimN" a whole stride; "n1,n2,…" that many in equal
 * sections, the first ones longer by one where the division leaves a rest.
 */
export function sectionTimesteps(timesteps: number, text: string | readonly number[]): number[] {
  if (text === "") return Array.from({ length: timesteps }, (_, i) => i);
  if (typeof text === "string" && text.startsWith("ddim"))
    return stridedTimesteps(timesteps, readCount(text.slice(4)));
  const counts = typeof text === "string" ? text.split(",").map(readCount) : text;
  const size = Math.floor(timesteps / counts.length);
  const rest = timesteps % counts.length;
  let start = 0;
  return counts.flatMap((count, i) => {
    const length = size + Number(i < rest);
    const kept = section(start, length, count);
    start += length;
    return kept;
  });
}

function readCount(word: string): number {
  if (!/^\s*\d+\s*$/.test(word))
    fail("sectionTimesteps", 'counts like "25", "ddim25" or "10,20"', JSON.stringify(word));
  return Number(word);
}

/**
 * Quadratic: floor of linspace(0, sqrt(share T), count)²; small ones coincide, so a chain over them
 * has fewer steps than asked for. `share` default 0.8 (kpandey008/DiffuseVAE, and DDIM's code).
 */
export function quadraticTimesteps(timesteps: number, count: number, share = 0.8): number[] {
  checkCount("quadraticTimesteps", timesteps, count);
  return linspace(0, Math.sqrt(timesteps * share), count).map((root) => Math.floor(root * root));
}

/** Quadratic with exactly `count` different timesteps: those that coincide move up to the next free one. */
export function distinctQuadraticTimesteps(
  timesteps: number,
  count: number,
  share = 0.8,
): number[] {
  let free = 0;
  return quadraticTimesteps(timesteps, count, share).map((t) => {
    const kept = Math.max(t, free);
    free = kept + 1;
    return kept;
  });
}

/** round(linspace(0, T - 1, count)): both ends. */
export function linspaceTimesteps(timesteps: number, count: number): number[] {
  checkCount("linspaceTimesteps", timesteps, count);
  if (count === 1) return [timesteps - 1];
  return linspace(0, timesteps - 1, count).map(roundHalfEven);
}

/** k floor(T / count) + offset: starts at the low end and never reaches the last timestep. */
export function leadingTimesteps(timesteps: number, count: number, offset = 0): number[] {
  checkCount("leadingTimesteps", timesteps, count);
  const stride = Math.floor(timesteps / count);
  return Array.from({ length: count }, (_, i) => Math.min(i * stride + offset, timesteps - 1));
}

/** round(T - k T / count) - 1: always starts at the last timestep (arXiv:2305.08891, section 3.3). */
export function trailingTimesteps(timesteps: number, count: number): number[] {
  checkCount("trailingTimesteps", timesteps, count);
  return Array.from(
    { length: count },
    (_, i) => roundHalfEven(timesteps - (i * timesteps) / count) - 1,
  ).reverse();
}

/**
 * Timesteps of CompVis/latent-diffusion. "uniform": stride floor(T / count), which may give more
 * than asked for; "quad": quadratic; both plus one. Differs: an index beyond the chain is an error.
 */
export function latentTimesteps(
  timesteps: number,
  count: number,
  method: "uniform" | "quad",
): number[] {
  checkCount("latentTimesteps", timesteps, count);
  const stride = Math.floor(timesteps / count);
  const kept =
    method === "quad"
      ? quadraticTimesteps(timesteps, count)
      : Array.from({ length: Math.ceil(timesteps / stride) }, (_, i) => i * stride);
  const shifted = kept.map((t) => t + 1);
  if (shifted.at(-1)! >= timesteps)
    fail("latentTimesteps", `a count whose last timestep stays below ${timesteps}`, count);
  return shifted;
}

/** Network time at a fractional index. */
function timeAt(chain: GaussianChain, index: number): number {
  const low = Math.floor(index);
  const first = chain.times[low]!;
  return first + (index - low) * ((chain.times[low + 1] ?? first) - first);
}

/**
 * Levels of a chain spaced by noise level as in arXiv:2206.00364, eq. 5, between the chain's own
 * ends unless told; variance preserving, with fractional times, and clean data at the end.
 */
export function karrasChainLevels(
  chain: GaussianChain,
  { steps, rho, ...ends }: { steps: number; min?: number; max?: number; rho?: number },
): Level[] {
  const grid = new DiscreteSigmas(chain.alphaBars);
  const range = { min: grid.sigmas[0]!, max: grid.sigmas.at(-1)!, ...ends };
  const levels = karrasSigmas(steps, range, rho).slice(0, -1);
  return [
    ...levels.map((sigma): Level => {
      const a = 1 / Math.hypot(1, sigma);
      return { time: timeAt(chain, grid.timeOf(sigma)), a, b: 0, c: sigma * a };
    }),
    cleanLevel,
  ];
}
