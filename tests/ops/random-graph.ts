// Random programs: a few inputs, parameters and states, then some dozens of ops on whatever exists so far. They reach
// what single ops cannot: fusion, epilogues, shared memory, in-place updates, packed parameters, merged and dead nodes.
import { gradients } from "../../lib/autodiff/differentiate.js";
import type { Graph } from "../../lib/ir/graph.js";
import {
  concat,
  conv2d,
  groupNorm,
  layerNorm,
  pad,
  softmax,
  where,
} from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace } from "../../lib/trace/trace.js";
import type { Trace } from "../../lib/trace/trace.js";
import type { Real } from "./harness.js";
import { uniformStream } from "./operand.js";

const mostElements = 4000;

/** Draws choices from a seed. */
class Choices {
  readonly #draw: () => number;

  constructor(seed: number) {
    this.#draw = uniformStream(seed);
  }

  below(n: number): number {
    return Math.floor(this.#draw() * n);
  }

  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  one<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  chance(p: number): boolean {
    return this.#draw() < p;
  }

  order(n: number): number[] {
    const items = Array.from({ length: n }, (_, i) => i);
    return Array.from({ length: n }, () => items.splice(this.below(items.length), 1)[0]!);
  }
}

const shapes = [[6], [1], [4, 6], [4, 1], [3, 4, 6], [2, 5, 5, 3], [2, 5, 5, 8], [17, 33], []];

type Step = (choices: Choices, x: Tensor, y: Tensor) => Tensor | undefined;

const unaryOps = [
  "neg",
  "abs",
  "tanh",
  "sigmoid",
  "silu",
  "relu",
  "sin",
  "cos",
  "gelu",
  "softplus",
];
const binaryOps = ["add", "sub", "mul", "maximum", "minimum"] as const;

const canBroadcast = (x: Tensor, y: Tensor): boolean => {
  const rank = Math.min(x.rank, y.rank);
  const tails = [x, y].map(({ shape }) => shape.slice(shape.length - rank));
  return tails[0]!.every((n, i) => n === tails[1]![i] || n === 1 || tails[1]![i] === 1);
};

const unary: Step = (choices, x) => x.trace.append(choices.one(unaryOps), [x])[0]!;

const scaled: Step = (choices, x) => x.mul(choices.one([0.5, -1, 0.3])).add(choices.one([0, 0.25]));

/** Products stay bounded by a tanh. */
const binary: Step = (choices, x, y) => {
  if (!canBroadcast(x, y)) return undefined;
  const op = choices.one(binaryOps);
  return op === "mul" ? x.mul(y).tanh() : x[op](y);
};

const selection: Step = (_, x, y) => (canBroadcast(x, y) ? where(x.less(y), x, y) : undefined);

const reduction: Step = (choices, x) => {
  if (x.rank === 0) return undefined;
  const first = choices.below(x.rank);
  const last = choices.between(first, x.rank - 1);
  const axes = Array.from({ length: last - first + 1 }, (_, i) => first + i);
  return x[choices.one(["mean", "max", "min"] as const)](axes, choices.chance(0.5));
};

const reshape: Step = (choices, x) => {
  if (x.rank < 2) return x.reshape([1, ...x.shape]);
  const at = choices.below(x.rank - 1);
  const merged = x.shape[at]! * x.shape[at + 1]!;
  return x.reshape([...x.shape.slice(0, at), merged, ...x.shape.slice(at + 2)]);
};

const transpose: Step = (choices, x) => x.transpose(choices.order(x.rank));

const slice: Step = (choices, x) => {
  const starts = x.shape.map((n) => choices.below(n));
  const strides = x.shape.map(() => choices.one([1, 1, 2]));
  const sizes = x.shape.map((n, i) =>
    choices.between(1, Math.ceil((n - starts[i]!) / strides[i]!)),
  );
  return x.slice(starts, sizes, strides);
};

const padding: Step = (choices, x) =>
  pad(x, x.shape.map(() => choices.below(2)), x.shape.map(() => choices.below(3)), 0.5); // prettier-ignore

const joining: Step = (choices, x, y) => {
  const isSame = x.rank > 0 && x.shape.join() === y.shape.join();
  return isSame ? concat([x, y, x], choices.below(x.rank)) : undefined;
};

const stretch: Step = (choices, x) => x.broadcastTo([choices.between(2, 3), ...x.shape]);

const product: Step = (choices, x) => {
  if (x.rank < 2) return undefined;
  const [K, N] = [x.shape.at(-1)!, choices.between(1, 20)];
  const flip = choices.chance(0.5);
  const w = parameter(x.trace, flip ? [N, K] : [K, N], choices);
  return x.matmul(w, { transposeB: flip }).mul(1 / K);
};

const square: Step = (choices, x, y) => {
  const fits = x.rank === y.rank && x.rank >= 2 && x.shape.join() === y.shape.join();
  if (!fits) return undefined;
  const isInner = choices.chance(0.5);
  return x.matmul(y, { transposeA: isInner, transposeB: !isInner }).mul(0.1).tanh();
};

const convolution: Step = (choices, x) => {
  if (x.rank !== 4 || x.shape[1]! < 3 || x.shape[2]! < 3 || x.size > 1000) return undefined;
  const C = x.shape[3]!;
  const w = parameter(x.trace, [3, 3, C, choices.between(1, 9)], choices);
  const upsample = choices.one([1, 1, 2]);
  const stride = choices.one([1, 1, 2]);
  return conv2d(x, w, { padding: choices.below(2), stride, upsample }).mul(0.1);
};

const normalisation: Step = (choices, x) => {
  if (x.rank < 2) return undefined;
  if (choices.chance(0.5)) return layerNorm(x, { eps: 1e-2 });
  const C = x.shape.at(-1)!;
  const [gamma, beta] = [parameter(x.trace, [C], choices), parameter(x.trace, [C], choices)];
  const activation = choices.one(["none", "silu"] as const);
  return groupNorm(x, gamma, beta, { groups: 1, eps: 1e-2, activation });
};

const rows: Step = (_, x) => (x.rank > 0 ? softmax(x) : undefined);

const storage: Step = (_, x) => x.cast("f16").reshape([x.size]).cast("f32").reshape(x.shape);

const steps: readonly Step[] = [
  unary, unary, unary, unary, scaled, scaled, binary, binary, binary, binary, binary, selection, reduction, reduction,
  reshape, reshape, transpose, slice, padding, joining, stretch, product, product, square, convolution, convolution,
  normalisation, rows, storage,
]; // prettier-ignore

let parameters = 0;

function parameter(t: Trace, shape: number[], choices: Choices): Tensor {
  const name = `p${choices.chance(0.1) ? 0 : parameters++}.${shape.join("x")}`;
  return t.parameter({ name, shape, init: { kind: "zeros" } });
}

/** New contents of most states: a step down a gradient, some value of their shape, or a change of their own. */
function updateStates(
  t: Trace,
  choices: Choices,
  states: readonly Tensor[],
  made: readonly Tensor[],
  results: readonly Tensor[],
): void {
  const loss = results.map((y) => y.square().mean()).reduce((a, b) => a.add(b));
  const grads = choices.chance(0.5) ? gradients(loss, states) : undefined;
  states.forEach((state, i) => {
    if (choices.chance(0.3)) return;
    const alike = made.filter(({ shape }) => shape.join() === state.shape.join());
    const value = choices.one(alike);
    t.update(`s${i}`, grads ? state.sub(grads[i]!) : choices.one([value, state.mul(value).tanh()]));
  });
}

/** A program of about `size` ops with one to three outputs and some updated states. */
export function randomGraph(seed: number, size: number, dtype: Real): Graph {
  const choices = new Choices(seed);
  parameters = 0;
  return trace(
    (t) => {
      const made = shapes.map((shape, i) => t.input(`x${i}`, { shape }));
      const states = [0, 1, 2].map((i) => t.state(`s${i}`, { shape: choices.one(shapes) }));
      made.push(...states);
      const recent = (): Tensor => made[made.length - 1 - choices.below(choices.one([3, 8, made.length]))]!; // prettier-ignore
      while (made.length < shapes.length + size) {
        const next = choices.one(steps)(choices, recent(), recent());
        if (next && next.size <= mostElements && next.rank <= 6) made.push(next);
      }
      const results = Array.from({ length: 3 }, recent);
      results.forEach((y, i) => t.output(`y${i}`, y));
      if (choices.chance(0.3)) t.output("old", states[0]!);
      updateStates(t, choices, states, made, results);
    },
    { dtype, parameters: choices.chance(0.5) ? "weight" : "state" },
  );
}
