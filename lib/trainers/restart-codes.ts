// Restarts of codes that the averages of a codebook call unused, between the steps of a training: which ones and where to
// stands in replaceDeadCodes.
import type { ParamSpec } from "../ir/param.js";
import { replaceDeadCodes } from "../models/vector-quantizer.js";
import { uniformStream } from "../nn/random.js";
import type { Buffer } from "../runtime/buffer.js";

/** A codebook that is kept by moving averages. */
export interface AveragedCodebook {
  codebook: ParamSpec;
  averages: { counts: ParamSpec; sums?: ParamSpec };
  /** Codes are unit vectors. */
  isUnit?: boolean;
}

export interface RestartOptions {
  seed: number;
  step: number;
  /** Steps between restarts; 0 = never. */
  every: number;
  /** Begins with new weights: the first step replaces every code. */
  isNew: boolean;
}

function scaleToUnit(row: Float32Array): void {
  const length = Math.hypot(...row) || 1;
  row.forEach((value, i) => (row[i] = value / length));
}

/** Gives unused codes to latents of this batch; in the first step of new weights all. Returns warnings. */
export function restartDeadCodes(
  { codebook, averages, isUnit = false }: AveragedCodebook,
  buffers: ReadonlyMap<string, Buffer>,
  batch: { latents: Float32Array; errors: Float32Array },
  { seed, step, every, isNew }: RestartOptions,
): string[] {
  const isFirst = step === 0 && isNew;
  if (every === 0 || (!isFirst && (step + 1) % every !== 0)) return [];
  const read = ({ name }: ParamSpec): Float32Array => buffers.get(name)!.read() as Float32Array;
  const [K, D] = codebook.shape as [number, number];
  const draws = uniformStream(seed, `restart.${step}`, 4 * K);
  let next = 0;
  const found = replaceDeadCodes(read(codebook), read(averages.counts), batch, {
    random: () => draws[next++ % draws.length]!,
    ...(isFirst && { threshold: Infinity }),
  });
  const { codebook: rows, counts, replaced } = found;
  if (replaced.length === 0) return [];
  if (isUnit) for (const k of replaced) scaleToUnit(rows.subarray(k * D, (k + 1) * D));
  buffers.get(codebook.name)!.write(rows);
  buffers.get(averages.counts.name)!.write(counts);
  if (averages.sums)
    buffers.get(averages.sums.name)!.write(rows.map((v, i) => v * counts[Math.floor(i / D)]!));
  return isFirst ? [] : [`restarted ${replaced.length} unused codes`];
}
