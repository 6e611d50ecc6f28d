// A training step as one graph: loss, gradients, clipping, AdamW, averages. Parameters and optimiser state are state
// buffers that the program updates in place.
import { gradients } from "../autodiff/differentiate.js";
import { rematerialise } from "../autodiff/rematerialise.js";
import { DiffusionError } from "../errors.js";
import type { Graph } from "../ir/graph.js";
import type { ParamSpec } from "../ir/param.js";
import type { DType } from "../ir/dtype.js";
import { sizeOf, type Shape } from "../ir/shape.js";
import { adamw } from "../optim/adamw.js";
import { clipByGlobalNorm, globalNorm } from "../optim/clip.js";
import { ema, warmEmaDecay } from "../optim/ema.js";
import { Buffer } from "../runtime/buffer.js";
import { compile, type Program, type Session } from "../runtime/program.js";
import type { TensorData } from "../runtime/buffer.js";
import type { Tensor } from "../trace/tensor.js";
import { trace, type Trace } from "../trace/trace.js";
import { given } from "./given.js";

export interface LossTerms {
  /** Scalar to be minimised. */
  loss: Tensor;
  /** Further values to read after each step, by name. */
  outputs?: Record<string, Tensor>;
  /** New values of extra state (for example a codebook kept by moving averages), by name. */
  updates?: Record<string, Tensor>;
}

export interface OptimiserOptions {
  /** AdamW's decay rates; default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** Default 1e-8. */
  eps?: number;
  /** Decoupled weight decay; default 0. */
  weightDecay?: number;
  /** Largest global gradient norm; default: no clipping. */
  clipNorm?: number;
  /** Decay of the average of the weights; 0 (default) keeps none. */
  emaDecay?: number;
  /** Batches added up before one update; default 1. */
  accumulate?: number;
}

export interface TrainStepOptions {
  inputs: Record<string, { shape: Shape; dtype?: DType }>;
  loss: (trace: Trace, batch: Record<string, Tensor>) => LossTerms;
  parameters: readonly ParamSpec[];
  /** State beyond the parameters that the loss reads and updates. */
  extraState?: Record<string, { shape: Shape; dtype?: DType }>;
  optimiser?: OptimiserOptions;
  /** Computes cheap values again for the gradients instead of keeping them: less memory, same results. Default false. */
  rematerialise?: boolean;
  isa?: string;
}

/** Values of parameters and state by name. */
export type Values = ReadonlyMap<string, Float32Array>;

const scalar: Shape = [];

const scalarInput = (t: Trace, name: string): Tensor => t.input(name, { shape: scalar });

/** Appends the clipped update of every parameter to the trace, and returns the norm before clipping. */
function appendUpdate(
  t: Trace,
  parameters: readonly ParamSpec[],
  grads: Tensor[],
  options: OptimiserOptions,
): Tensor {
  const rates = {
    lr: scalarInput(t, "lr"),
    biasCorrection1: scalarInput(t, "biasCorrection1"),
    biasCorrection2: scalarInput(t, "biasCorrection2"),
  };
  const { clipNorm, emaDecay = 0 } = options;
  const decay = emaDecay > 0 ? scalarInput(t, "emaDecay") : undefined;
  const norm = globalNorm(grads);
  const clipped = clipNorm === undefined ? grads : clipByGlobalNorm(grads, clipNorm, norm);
  parameters.forEach((spec, i) => {
    const param = t.parameter(spec);
    const state = (kind: string): Tensor => t.state(`${kind}.${spec.name}`, { shape: spec.shape });
    const next = adamw(
      { param, grad: clipped[i]!, m: state("m"), v: state("v") },
      { ...rates, ...given(options, "betas", "eps", "weightDecay") },
    );
    t.update(spec.name, next.param);
    t.update(`m.${spec.name}`, next.m);
    t.update(`v.${spec.name}`, next.v);
    if (decay) t.update(`ema.${spec.name}`, ema(state("ema"), next.param, decay));
  });
  return norm;
}

function evaluateLoss(t: Trace, options: TrainStepOptions): { terms: LossTerms; grads: Tensor[] } {
  const batch = Object.fromEntries(
    Object.entries(options.inputs).map(([name, spec]) => [name, t.input(name, spec)]),
  );
  const terms = options.loss(t, batch);
  const grads = gradients(
    terms.loss,
    options.parameters.map((spec) => t.parameter(spec)),
  );
  t.output("loss", terms.loss);
  for (const [name, value] of Object.entries(terms.outputs ?? {})) t.output(name, value);
  for (const [name, value] of Object.entries(terms.updates ?? {})) t.update(name, value);
  return { terms, grads };
}

/** Loss, gradient and update in one graph. */
export const fusedStepGraph = (options: TrainStepOptions): Graph =>
  trace(
    (t) => {
      const { grads } = evaluateLoss(t, options);
      t.output("gradNorm", appendUpdate(t, options.parameters, grads, options.optimiser ?? {}));
    },
    { parameters: "state" },
  );

/** Loss and gradient of one batch, added to the state `sum.*` with weight 1 / batches. */
const accumulateGraph = (options: TrainStepOptions, batches: number): Graph =>
  trace(
    (t) => {
      const { grads } = evaluateLoss(t, options);
      options.parameters.forEach((spec, i) => {
        const sum = t.state(`sum.${spec.name}`, { shape: spec.shape });
        t.update(`sum.${spec.name}`, sum.add(grads[i]!.mul(1 / batches)));
      });
    },
    { parameters: "state" },
  );

/** The update from the accumulated gradients, which are set to zero again. */
const applyGraph = (options: TrainStepOptions): Graph =>
  trace(
    (t) => {
      const sums = options.parameters.map((spec) =>
        t.state(`sum.${spec.name}`, { shape: spec.shape }),
      );
      t.output("gradNorm", appendUpdate(t, options.parameters, sums, options.optimiser ?? {}));
      options.parameters.forEach((spec, i) => t.update(`sum.${spec.name}`, sums[i]!.mul(0)));
    },
    { parameters: "state" },
  );

export interface StepOutputs {
  loss: number;
  gradNorm: number;
  /** Everything the last batch of the step gave, by name. */
  outputs: Record<string, TensorData>;
}

/** A compiled training step with its state. */
export class TrainStep {
  readonly #sessions: Session[] = [];
  readonly #programs: Program[] = [];

  private constructor(
    readonly buffers: Map<string, Buffer>,
    readonly options: TrainStepOptions,
  ) {}

  /**
   * Compiles the step and allocates its state; `initial` gives the starting values of parameters and extra state by
   * name. `shared` buffers of other steps are used where the loss reads their names.
   */
  static async create(
    options: TrainStepOptions,
    initial: Values,
    shared: ReadonlyMap<string, Buffer> = new Map(),
  ): Promise<TrainStep> {
    const step = new TrainStep(initialState(options, initial), options);
    const bound = Object.fromEntries([...shared, ...step.buffers]);
    const batches = options.optimiser?.accumulate ?? 1;
    const graphs =
      batches === 1
        ? [fusedStepGraph(options)]
        : [accumulateGraph(options, batches), applyGraph(options)];
    for (const graph of graphs) {
      const planned = options.rematerialise ? rematerialise(graph) : graph;
      const program = await compile(planned, given(options, "isa"));
      step.#programs.push(program);
      step.#sessions.push(await program.bind(bound));
    }
    return step;
  }

  get programs(): readonly Program[] {
    return this.#programs;
  }

  /** One update from `accumulate` batches; `index` counts updates from 0. Throws "numeric" when the loss is not finite. */
  async run(
    index: number,
    lr: number,
    batches: readonly Record<string, TensorData>[],
  ): Promise<StepOutputs> {
    const [first, apply] = this.#sessions;
    const scalars = this.#scalars(index, lr);
    let loss = 0;
    let last: Record<string, TensorData> = {};
    for (const batch of batches) {
      last = await first!.run(apply ? batch : { ...batch, ...scalars });
      loss += Number(last["loss"]![0]) / batches.length;
    }
    if (apply) last = { ...last, ...(await apply.run(scalars)) };
    const gradNorm = Number(last["gradNorm"]![0]);
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) {
      throw new DiffusionError(
        "numeric",
        `train: expected a finite loss at step ${index + 1}, got loss ${loss} and gradient norm ${gradNorm}; lower the learning rate, or resume from the last checkpoint`,
      );
    }
    return { loss, gradNorm, outputs: last };
  }

  #scalars(index: number, lr: number): Record<string, TensorData> {
    const { betas: [b1, b2] = [0.9, 0.999], emaDecay = 0 } = this.options.optimiser ?? {};
    return {
      lr: Float32Array.of(lr),
      biasCorrection1: Float32Array.of(1 - b1 ** (index + 1)),
      biasCorrection2: Float32Array.of(1 - b2 ** (index + 1)),
      ...(emaDecay > 0 && { emaDecay: Float32Array.of(warmEmaDecay(emaDecay, index + 1)) }),
    };
  }

  dispose(): void {
    this.#sessions.forEach((session) => session.dispose());
    this.#programs.forEach((program) => program.dispose());
    this.buffers.forEach((buffer) => buffer.dispose());
  }
}

function initialState(options: TrainStepOptions, initial: Values): Map<string, Buffer> {
  const { accumulate = 1, emaDecay = 0 } = options.optimiser ?? {};
  const buffers = new Map<string, Buffer>();
  const add = (name: string, shape: Shape, value?: Float32Array): void => {
    const initial = value ?? new Float32Array(sizeOf(shape));
    buffers.set(name, Buffer.fromArray(initial, "f32", shape, name));
  };
  for (const { name, shape } of options.parameters) {
    const value = initial.get(name);
    if (!value)
      throw new DiffusionError("internal", `train: expected an initial value of ${name}, got none`);
    add(name, shape, value);
    add(`m.${name}`, shape);
    add(`v.${name}`, shape);
    if (emaDecay > 0) add(`ema.${name}`, shape, value);
    if (accumulate > 1) add(`sum.${name}`, shape);
  }
  for (const [name, { shape }] of Object.entries(options.extraState ?? {}))
    add(name, shape, initial.get(name));
  return buffers;
}
