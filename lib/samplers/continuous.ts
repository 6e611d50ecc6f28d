// The contract of samplers on continuous states, and their loop. A sampler turns a falling list of
// levels into a plan: float64 numbers that say, for every network evaluation, what each slot of the
// state becomes. One compiled graph (continuous-step.ts) runs network and update of any plan.
//
// A new solver is one file with a function options -> ContinuousSampler. Slot 0 is the state x;
// multistep and multistage solvers keep what they need (earlier x0, the start of the step) in further
// slots. The level after a step is always the next of the list, never computed from a stride.
import { DiffusionError, formatShape } from "../errors.js";
import { sizeOf, type Shape } from "../ir/shape.js";
import { normalStream } from "../nn/random.js";
import { startDeviation } from "../processes/gaussian-levels.js";
import type { Level, LevelLine, Parameterisation } from "../processes/gaussian-levels.js";
import { keyTable } from "./discrete.js";
import { sampleLoop } from "./sampler.js";
import type { PlannedStep, SampleLoopOptions, SamplingStep } from "./sampler.js";

/** A sum with these factors; what is left out counts as zero. */
export interface Combination {
  /** Factors of the slots before the update, slot 0 first. */
  slots?: readonly number[];
  /** Of the clean sample that the network sees at the level, after clamping. */
  x0?: number;
  /** Of the noise that it sees; kept or derived again from the clamped x0 (a setting of the graph). */
  eps?: number;
  /** Of the paired image y. */
  pair?: number;
  /** Of a fresh normal draw. */
  noise?: number;
  /** Of a fresh normal draw times the deviation that the network has learned. */
  spread?: number;
  /** Of the network's output as it is (its first half when it learns variances). */
  output?: number;
  /** Of a classifier's gradient that shifts the mean of a step: the step's variance, when fixed. */
  gradient?: number;
  /** Of that gradient times the variance that the network has learned. */
  gradientSpread?: number;
}

/** One run of the network, and what becomes of the state. */
export interface Evaluation {
  /** Level of slot 0 when the network reads it. */
  level: Level;
  /**
   * New slots before the network reads slot 0, from slots, pair and noise only (churn); default: as
   * they are.
   */
  before?: readonly Combination[];
  /** New value of every slot. */
  after: readonly Combination[];
  /** Log variances between which a learned range moves. */
  logVariance?: readonly [low: number, high: number];
}

export interface ContinuousStep extends PlannedStep {
  evaluations: readonly Evaluation[];
}

export interface ContinuousPlan {
  /** State tensors of a sample. */
  slots: number;
  steps: readonly ContinuousStep[];
  /** First level; decides the first state. */
  first: Level;
}

/** One published algorithm. */
export interface ContinuousSampler {
  name: string;
  /**
   * Steps between neighbours of a list of levels, noisiest first; the last is where it ends. `line`
   * is asked for levels between them, by solvers that evaluate there.
   */
  plan(levels: readonly Level[], line?: LevelLine): ContinuousPlan;
}

/** Neighbours of a list of levels; throws "option" for fewer than two. */
export function levelPairs(where: string, levels: readonly Level[]): [from: Level, to: Level][] {
  if (levels.length < 2) {
    throw new DiffusionError(
      "option",
      `${where}: expected at least 2 levels, got ${levels.length}`,
    );
  }
  return levels.slice(1).map((to, i) => [levels[i]!, to]);
}

/** A plan whose steps are made from neighbouring levels. */
export const pairwisePlan = (
  where: string,
  levels: readonly Level[],
  slots: number,
  evaluations: (from: Level, to: Level, index: number) => readonly Evaluation[],
): ContinuousPlan => ({
  slots,
  first: levels[0]!,
  steps: levelPairs(where, levels).map(([from, to], i) => ({
    t: from.time,
    s: to.time,
    evaluations: evaluations(from, to, i),
  })),
});

const combinations = ({ steps }: ContinuousPlan): Combination[] =>
  steps.flatMap(({ evaluations }) =>
    evaluations.flatMap(({ before = [], after }) => [...before, ...after]),
  );

/** Whether any step of a plan adds fresh noise. */
export const isStochastic = (plan: ContinuousPlan): boolean =>
  combinations(plan).some(({ noise = 0, spread = 0 }) => noise !== 0 || spread !== 0);

/** Whether any evaluation changes the state before the network reads it. */
export const hasBefore = (plan: ContinuousPlan): boolean =>
  plan.steps.some(({ evaluations }) => evaluations.some(({ before }) => before !== undefined));

/** Parts of the row that an evaluation hands to the graph, in order. */
export interface RowLayout {
  slots: number;
  before: boolean;
  /** Where a classifier's gradient acts: on eps (any sampler), or on the mean (ancestral ones). */
  gradient?: GradientMode | undefined;
}

/** Dhariwal & Nichol 2021, arXiv:2105.05233: algorithm 2 ("score") and 1 ("mean"). */
export type GradientMode = "score" | "mean";

const kReading = ["inputScale", "a", "b", "c", "x0.x", "x0.pair", "x0.output", "eps.x", "eps.pair", "eps.output", "logVariance.low", "logVariance.high"] as const; // prettier-ignore
const kTerms = ["x0", "eps", "pair", "noise", "spread", "output"] as const;
const kGradientTerms = ["gradient", "gradientSpread"] as const;
const kEarlyTerms = ["pair", "noise"] as const;

const slotColumns = (prefix: string, slots: number, terms: readonly string[]): string[] =>
  Array.from({ length: slots }, (_, to) => terms.map((term) => `${prefix}.${to}.${term}`)).flat();

const slotNames = (slots: number): string[] => Array.from({ length: slots }, (_, i) => `slot.${i}`);

/** Names of the columns of the coefficient table. */
export const columnNames = ({ slots, before, gradient }: RowLayout): string[] => [
  ...kReading,
  ...slotColumns("after", slots, [...slotNames(slots), ...kTerms]),
  ...(gradient ? ["x0.gradient", ...slotColumns("guide", slots, kGradientTerms)] : []),
  ...(before ? slotColumns("before", slots, [...slotNames(slots), ...kEarlyTerms]) : []),
];

const identity = (slots: number): Combination[] =>
  Array.from({ length: slots }, (_, i) => ({
    slots: Array.from({ length: slots }, (_, j) => Number(i === j)),
  }));

const termValues = (
  slots: number,
  terms: readonly (keyof Omit<Combination, "slots">)[],
  rows: readonly Combination[],
): number[] =>
  rows.flatMap((row) => [
    ...Array.from({ length: slots }, (_, i) => row.slots?.[i] ?? 0),
    ...terms.map((term) => row[term] ?? 0),
  ]);

/**
 * Factors of a classifier's gradient. By score, eps loses c s g and x0 gains c² / a s g
 * (arXiv:2105.05233, algorithm 2); by mean, the step adds its variance times s g (algorithm 1).
 */
function gradientValues(
  { level: { a, c }, after }: Evaluation,
  mode: GradientMode,
  scale: number,
): number[] {
  const ofX0 = mode === "score" ? (c * c) / a : 0;
  const factors = after.flatMap(({ x0 = 0, eps = 0, gradient = 0, gradientSpread = 0 }) =>
    mode === "score"
      ? [scale * (ofX0 * x0 - c * eps), 0]
      : [scale * gradient, scale * gradientSpread],
  );
  return [scale * ofX0, ...factors];
}

/** The row of an evaluation; `gradientScale` is a classifier's. */
export function coefficientRow(
  evaluation: Evaluation,
  parameterisation: Parameterisation,
  { slots, before, gradient }: RowLayout,
  gradientScale = 1,
): number[] {
  const { level, after, logVariance = [0, 0] } = evaluation;
  const { inputScale, x0, eps } = parameterisation(level);
  if (after.length !== slots) {
    throw new DiffusionError(
      "internal",
      `sampler: expected an update of each of ${slots} slots, got ${after.length}`,
    );
  }
  return [
    inputScale,
    ...[level.a, level.b, level.c],
    ...x0,
    ...eps,
    ...logVariance,
    ...termValues(slots, kTerms, after),
    ...(gradient ? gradientValues(evaluation, gradient, gradientScale) : []),
    ...(before ? termValues(slots, kEarlyTerms, evaluation.before ?? identity(slots)) : []),
  ];
}

export type Floats = Float32Array | Float64Array;

/** Values after a step. */
export interface ContinuousState {
  /** (B, ...shape), channels last. */
  x: Floats;
  /** Clean samples that the network saw last, for previews; absent before the first step. */
  x0?: Floats;
  /** Slots after the first. */
  history: readonly Floats[];
}

/** Runs a compiled evaluation on inputs by name; `evaluation` lets it choose among programs. */
export type RunEvaluation = (
  inputs: Record<string, Int32Array | Floats>,
  options: { signal?: AbortSignal; evaluation: Evaluation },
) => Promise<Record<string, ArrayBufferView>>;

export type NamedInputs = Record<string, Int32Array | Floats>;

export interface ContinuousSampleOptions extends SampleLoopOptions<ContinuousState> {
  plan: ContinuousPlan;
  parameterisation: Parameterisation;
  batch: number;
  /** Of a sample, channels last. */
  shape: Shape;
  /** Noise of sample b in evaluation i depends on (seed, firstSample + b, i) only. */
  seed: number;
  /** Default 0. */
  firstSample?: number;
  /** Noise that all samples have in common, so that they differ by their conditions only; default none. */
  shared?: "start" | "steps" | "both";
  /** First state (B, ...shape); default b y + startDeviation temperature n. */
  start?: Floats;
  /** Factor of the first noise; default 1. */
  temperature?: number;
  /** Paired images y (B, ...shape), for processes and networks that read them. */
  pair?: Floats;
  /** Noise to be used in evaluation `index` of the run, for a graph that takes given noise. */
  noise?: (index: number) => NamedInputs;
  /** Further inputs of the denoiser (conditions, guidance), fixed or by evaluation. */
  inputs?: NamedInputs | ((evaluation: Evaluation, index: number) => NamedInputs);
  /** Where a classifier's gradient acts in the graph; default: there is none. */
  gradient?: GradientMode;
  /** Strength of a classifier's gradient, fixed or by level; default 1. */
  gradientScale?: number | ((level: Level) => number);
  /** Number type of the graph; default "f32". */
  dtype?: "f32" | "f64";
}

/** Normal draws of a first state; sample b depends on (seed, firstSample + b) only. */
export function startNoise(draw: {
  batch: number;
  size: number;
  seed: number;
  firstSample?: number;
}): Float32Array {
  const out = new Float32Array(draw.batch * draw.size);
  for (let b = 0; b < draw.batch; ++b) {
    const stream = `start.${(draw.firstSample ?? 0) + b}`;
    out.set(normalStream(draw.seed, stream, draw.size), b * draw.size);
  }
  return out;
}

/** Whether all samples have the noise of the first one. */
const isShared = (
  { shared }: Pick<ContinuousSampleOptions, "shared">,
  part: "start" | "steps",
): boolean => shared === part || shared === "both";

/** The rows of the first sample for all of them. */
const sameRows = (keys: Int32Array): Int32Array => keys.map((_, i) => keys[i % 4]!);

function firstState(options: ContinuousSampleOptions): Floats {
  const { plan, batch, shape, seed, firstSample = 0, temperature = 1, pair } = options;
  const size = sizeOf(shape);
  for (const [name, values] of Object.entries({ start: options.start, pair })) {
    if (!values || values.length === batch * size) continue;
    throw new DiffusionError(
      "shape",
      `sampling: expected ${name} of ${formatShape([batch, ...shape])}, got ${values.length} values`,
    );
  }
  if (options.start) return options.start;
  const scale = startDeviation(plan.first) * temperature;
  const isOne = isShared(options, "start");
  const noise = startNoise({ batch: isOne ? 1 : batch, size, seed, firstSample });
  return Float64Array.from({ length: batch * size }, (_, i) => {
    return scale * noise[isOne ? i % size : i]! + (pair ? plan.first.b * pair[i]! : 0);
  });
}

type Evaluate = (state: ContinuousState, evaluation: Evaluation) => Promise<ContinuousState>;

/** Values of one type: the program's. */
const floatsOf =
  (dtype: ContinuousSampleOptions["dtype"]) =>
  (values: ArrayLike<number>): Floats =>
    dtype === "f64" ? Float64Array.from(values) : Float32Array.from(values);

/** One evaluation after the other: what the program reads beside the state, and the state that it gives. */
function evaluations(run: RunEvaluation, options: ContinuousSampleOptions): Evaluate {
  const { plan, parameterisation, batch, seed, firstSample = 0, signal, pair } = options;
  const { gradient, gradientScale = 1, inputs = {} } = options;
  const floats = floatsOf(options.dtype);
  const layout: RowLayout = { slots: plan.slots, before: hasBefore(plan), gradient };
  const adds = isStochastic(plan);
  const keys = (index: number): Int32Array => {
    const table = keyTable(seed, firstSample, index, batch);
    return isShared(options, "steps") ? sameRows(table) : table;
  };
  let count = 0;
  return async (state, evaluation) => {
    const index = count++;
    const { level } = evaluation;
    const strength = typeof gradientScale === "number" ? gradientScale : gradientScale(level);
    const row = coefficientRow(evaluation, parameterisation, layout, strength);
    const slots = [state.x, ...state.history].map((slot, i) => [`slot.${i}`, slot]);
    const out = await run(
      {
        ...(Object.fromEntries(slots) as NamedInputs),
        coefficients: floats(Array.from({ length: batch }, () => row).flat()),
        times: floats(new Float64Array(batch).fill(level.time)),
        ...(adds && !options.noise && { key: keys(index) }),
        ...(pair && { pair: floats(pair) }),
        ...(adds && options.noise?.(index)),
        ...(typeof inputs === "function" ? inputs(evaluation, index) : inputs),
      },
      { evaluation, ...(signal && { signal }) },
    );
    const [x, ...history] = slots.map(([name]) => out[name as string] as Floats);
    return { x: x!, x0: out["x0"] as Floats, history };
  };
}

/** Runs a plan; yields after each step. The last state holds the samples. */
export function sampleContinuous(
  run: RunEvaluation,
  options: ContinuousSampleOptions,
): AsyncGenerator<SamplingStep<ContinuousState>> {
  const { plan, dtype } = options;
  const floats = floatsOf(dtype);
  const x = floats(firstState(options));
  const history = Array.from({ length: plan.slots - 1 }, () => floats(new Float32Array(x.length)));
  const evaluate = evaluations(run, options);
  return sampleLoop<ContinuousStep, ContinuousState>(
    plan.steps,
    { x, history },
    async (step, state) => {
      for (const evaluation of step.evaluations) state = await evaluate(state, evaluation);
      return state;
    },
    options,
  );
}
