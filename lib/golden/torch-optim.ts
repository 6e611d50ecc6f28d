// Golden kind torch_optim: Adam, AdamW, SGD, clipping by the global norm and weight averaging, some
// updates in a row.
import { checkChoice } from "../errors.js";
import {
  checkFields,
  flag,
  limits,
  listOf,
  optional,
  real,
  whole,
} from "../models/check-config.js";
import type { Rules } from "../models/check-config.js";
import { adamw, sgd } from "../optim/adamw.js";
import { clipByGlobalNorm, globalNorm } from "../optim/clip.js";
import { ema, warmEmaDecay } from "../optim/ema.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";

interface Job {
  lr: number;
  betas?: [number, number];
  eps?: number;
  weight_decay?: number;
  momentum?: number;
  nesterov?: boolean;
  clip?: number;
  ema?: number;
}

const size = real(0, 1e6);

const common: Rules = {
  lr: size,
  weight_decay: optional(size),
  clip: optional(size),
  ema: optional(real(0, 1)),
};

const adamRules: Rules = {
  ...common,
  betas: optional(listOf(real(0, 1), 2, 2)),
  eps: optional(size),
};

const jobRules: Readonly<Record<string, Rules>> = {
  Adam: adamRules,
  AdamW: adamRules,
  SGD: { ...common, momentum: optional(size), nesterov: optional(flag) },
};

const pair = (value: unknown): string | undefined =>
  Array.isArray(value) && value.length === 2 ? undefined : "an optimizer and its options";

const caseRules: Rules = {
  jobs: listOf(pair, 0, 1000),
  steps: whole(0, 10_000),
  shapes: listOf(listOf(whole(1, limits.width), 0, 8), 1, 1000),
};

/** All updates of a job in one trace, with given gradients. */
interface Run {
  trace: Trace;
  inputs: Tensors;
  job: Job;
  steps: number;
  count: number;
}

type Update = (run: Run, k: number) => (param: Tensor, grad: Tensor, step: number) => Tensor;

const decoupledUpdate: Update = ({ trace: t, job }) => {
  const { betas = [0.9, 0.999], eps = 1e-8, weight_decay: weightDecay = 0 } = job;
  const lr = t.constant(job.lr);
  let m: Tensor | undefined;
  let v: Tensor | undefined;
  return (param, grad, step) => {
    const zero = grad.mul(0);
    const next = adamw(
      { param, grad, m: m ?? zero, v: v ?? zero },
      {
        lr,
        biasCorrection1: t.constant(1 - betas[0] ** (step + 1)),
        biasCorrection2: t.constant(1 - betas[1] ** (step + 1)),
        betas,
        eps,
        weightDecay,
      },
    );
    m = next.m;
    v = next.v;
    return next.param;
  };
};

/** PyTorch's AdamW decays by 0.01 unless told otherwise. */
const adamwUpdate: Update = (run, k) =>
  decoupledUpdate({ ...run, job: { weight_decay: 0.01, ...run.job } }, k);

/** The other optimizers add their decay to the gradient. */
const penalised =
  (update: Update): Update =>
  (run, k) => {
    const { weight_decay: decay = 0, ...job } = run.job;
    const next = update({ ...run, job }, k);
    return (param, grad, step) =>
      next(param, decay === 0 ? grad : grad.add(param.mul(decay)), step);
  };

const sgdUpdate: Update = ({ trace: t, job }) => {
  let velocity: Tensor | undefined;
  return (param, grad) => {
    const { momentum = 0, nesterov = false } = job;
    const next = sgd(
      { param, grad, velocity: velocity ?? grad.mul(0) },
      { lr: t.constant(job.lr), momentum, nesterov },
    );
    velocity = next.velocity;
    return next.param;
  };
};

const updates: Readonly<Record<string, Update>> = {
  Adam: penalised(decoupledUpdate),
  AdamW: adamwUpdate,
  SGD: penalised(sgdUpdate),
};

function runJob(name: string, index: number, run: Run): Tensors {
  const { inputs, job, steps, count, trace: t } = run;
  const rules = Array.from({ length: count }, (_, k) => updates[name]!(run, k));
  let params = rules.map((_, k) => inputs[`w.${k}`]!);
  let averages = params;
  const results: Tensors = {};
  for (let step = 0; step < steps; ++step) {
    const given = rules.map((_, k) => inputs[`g.${step}.${k}`]!);
    const norm = globalNorm(given);
    if (job.clip !== undefined) results[`${index}.norm.${step}`] = norm;
    const grads = job.clip === undefined ? given : clipByGlobalNorm(given, job.clip, norm);
    params = params.map((param, k) => rules[k]!(param, grads[k]!, step));
    params.forEach((param, k) => (results[`${index}.w.${k}.after${step + 1}`] = param));
    if (job.ema === undefined) continue;
    const decay = t.constant(warmEmaDecay(job.ema, step + 1));
    averages = averages.map((average, k) => ema(average, params[k]!, decay));
    averages.forEach((average, k) => (results[`ema.w.${k}.after${step + 1}`] = average));
  }
  return results;
}

async function torchOptim(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, caseRules);
  const { jobs, steps, shapes } = golden.config as {
    jobs: [string, Job][];
    steps: number;
    shapes: number[][];
  };
  jobs.forEach(([name, job], i) => {
    const rules = jobRules[checkChoice(golden.kind, "an optimizer", name, Object.keys(jobRules))]!;
    checkFields(`${golden.kind}: job ${i}, ${name}`, job, rules);
  });
  const names = shapes.flatMap((_, k) => [
    `w.${k}`,
    ...Array.from({ length: steps }, (__, s) => `g.${s}.${k}`),
  ]);
  const inputs = Object.fromEntries(names.map((name) => [name, ioValues(golden, name)]));
  const all = await evaluate(
    (trace, tensors) =>
      Object.assign(
        {},
        ...jobs.map(([name, job], index) =>
          runJob(name, index, { trace, inputs: tensors, job, steps, count: shapes.length }),
        ),
      ) as Tensors,
    { inputs },
  );
  return all;
}

export const torchOptimRunners: Readonly<Record<string, GoldenRunner>> = {
  torch_optim: torchOptim,
};
