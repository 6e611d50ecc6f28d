// The two small languages that describe DiffuseVAE's encoder and decoder: "32x7,32d2,32t16" lists
// blocks and "32:64,16:128" gives the channels of each label. Source: kpandey008/DiffuseVAE
// main/models/vae.py, which took them from openai/vdvae.
import { DiffusionError, formatShape } from "../errors.js";
import { shown } from "./check-config.js";

/** A step of an encoder or decoder, in order; its place in the list is the number in its parameters' names. */
export type CodecStep =
  /** Residual block at a label's width, and means over `pool` x `pool` pixels after it. */
  | { kind: "block"; label: number; pool?: number }
  /** Each pixel repeated `factor` times along both axes. */
  | { kind: "upsample"; factor: number }
  /** 1x1 convolution from the width of one label to that of another. */
  | { kind: "transition"; from: number; to: number };

const maxSteps = 1024;
const kPositive = "([1-9]\\d{0,4})";

const patterns: [RegExp, (a: number, b: number) => CodecStep[]][] = [
  [
    new RegExp(`^${kPositive}x(\\d{1,4})$`),
    (label, count) =>
      Array.from({ length: Math.min(count, maxSteps + 1) }, () => ({ kind: "block", label })),
  ],
  [new RegExp(`^${kPositive}u${kPositive}$`), (_, factor) => [{ kind: "upsample", factor }]],
  [new RegExp(`^${kPositive}d${kPositive}$`), (label, pool) => [{ kind: "block", label, pool }]],
  [new RegExp(`^${kPositive}t${kPositive}$`), (from, to) => [{ kind: "transition", from, to }]],
  [new RegExp(`^${kPositive}$`), (label) => [{ kind: "block", label }]],
];

/** Parses a block string. Throws "option" naming the item that is none of RxN, R, RdK, RuK, AtB. */
export function parseBlocks(where: string, text: string): CodecStep[] {
  const steps = text.split(",").flatMap((item) => {
    for (const [pattern, make] of patterns) {
      const match = pattern.exec(item.trim());
      if (match) return make(Number(match[1]), Number(match[2]));
    }
    throw new DiffusionError(
      "option",
      `${where}: expected items like 32x7, 32, 32d2, 32u2 or 32t16, got ${shown(item)}`,
    );
  });
  if (steps.length > maxSteps) {
    throw new DiffusionError(
      "option",
      `${where}: expected at most ${maxSteps} blocks, got more in ${shown(text)}`,
    );
  }
  return steps;
}

/** Parses a channel string: label -> channels. Throws "option" naming the item that is wrong. */
export function parseChannels(
  where: string,
  text: string,
  widest: number,
): ReadonlyMap<number, number> {
  return new Map(
    text.split(",").map((item): [number, number] => {
      const match = new RegExp(`^${kPositive}:${kPositive}$`).exec(item.trim());
      if (match && Number(match[2]) <= widest) return [Number(match[1]), Number(match[2])];
      throw new DiffusionError(
        "option",
        `${where}: expected items like 32:64 with at most ${widest} channels, got ${shown(item)}`,
      );
    }),
  );
}

/** Channels of a label. Throws "option" when the channel string does not name it. */
export function channelsOf(
  where: string,
  channels: ReadonlyMap<number, number>,
  label: number,
): number {
  const width = channels.get(label);
  if (width !== undefined) return width;
  throw new DiffusionError(
    "option",
    `${where}: expected channels for ${label}, got them for ${formatShape([...channels.keys()])}`,
  );
}
