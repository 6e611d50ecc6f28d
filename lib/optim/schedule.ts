// Learning rates as functions of the update, counted from 0.

/** Learning rate of an update, counted from 0. */
export type LearningRate = (update: number) => number;

/** The same for every update. */
export const constant =
  (lr: number): LearningRate =>
  () =>
    lr;

/**
 * Linear from `from` (default 0) to the first value of `then` during `updates`, then `then` on its
 * own count.
 */
export const warmup = (updates: number, then: LearningRate, from = 0): LearningRate => {
  const target = then(0);
  return (update) =>
    update < updates ? from + ((target - from) * (update + 1)) / updates : then(update - updates);
};

/**
 * Half a cosine from `peak` to `floor` (default 0) over `updates`, and `floor` after them. Loshchilov and Hutter 2017,
 * arXiv:1608.03983, eq. 5.
 */
export const cosine =
  (peak: number, updates: number, floor = 0): LearningRate =>
  (update) => {
    const progress = Math.min(1, update / updates);
    return floor + 0.5 * (peak - floor) * (1 + Math.cos(Math.PI * progress));
  };
