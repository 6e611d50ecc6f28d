// The one error class of the library, its closed set of codes, and how messages show shapes and near misses.
// Messages read `<where>: expected <what>, got <value>[; <what to do>]`.

export type ErrorCode =
  | "shape"
  | "dtype"
  | "option"
  | "checkpoint"
  | "device"
  | "memory"
  | "aborted"
  | "internal"
  | "data"
  | "numeric";

export class DiffusionError extends Error {
  override readonly name = "DiffusionError";

  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** A shape as messages show it: `[2, 3]`; `[]` is a scalar. */
export const formatShape = (shape: readonly number[]): string => `[${shape.join(", ")}]`;

/** The candidate closest to `word`, or undefined when none is close enough to be a misspelling of it. */
export function nearestName(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** Reject option keys outside `allowed`, naming the nearest allowed one. */
export function checkOptions(where: string, options: object, allowed: readonly string[]): void {
  for (const key of Object.keys(options)) {
    if (allowed.includes(key)) continue;
    const near = nearestName(key, allowed);
    const hint = near ? `; did you mean "${near}"?` : "";
    throw new DiffusionError(
      "option",
      `${where}: expected options among ${allowed.join(", ") || "none"}, got "${key}"${hint}`,
    );
  }
}

/** Throws "aborted" when the signal is. */
export function throwIfAborted(signal: AbortSignal | undefined, where: string): void {
  if (signal?.aborted)
    throw new DiffusionError("aborted", `${where}: stopped by its signal`, {
      cause: signal.reason,
    });
}

/** The value, when it is among `allowed`; else throws "option", naming the nearest. */
export function checkChoice<Name extends string>(
  where: string,
  what: string,
  value: string,
  allowed: readonly Name[],
): Name {
  if ((allowed as readonly string[]).includes(value)) return value as Name;
  const near = nearestName(value, allowed);
  const hint = near ? `; did you mean "${near}"?` : "";
  throw new DiffusionError(
    "option",
    `${where}: expected ${what} among ${allowed.join(", ")}, got "${value}"${hint}`,
  );
}
