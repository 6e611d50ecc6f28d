// What the null tests share: graphs of a model alone and with its gradients, compiled and planned without weights.
import { expect } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import type { Graph } from "../../lib/ir/graph.js";
import type { ParamSpec } from "../../lib/ir/param.js";
import { verify } from "../../lib/ir/verify.js";
import type { ClassInput } from "../../lib/models/class-guidance.js";
import type { UnetInput } from "../../lib/models/unet-input.js";
import type { NativePlan } from "../../lib/runtime/native.js";
import { compile } from "../../lib/runtime/program.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace } from "../../lib/trace/trace.js";
import type { Trace } from "../../lib/trace/trace.js";

/** Bytes the plan may take over what is live at once. */
const slack = 1.15;

export function expectTightArena({ arenaBytes, lowerBoundBytes }: NativePlan): void {
  expect(lowerBoundBytes).toBeGreaterThan(0);
  expect(arenaBytes / lowerBoundBytes).toBeLessThanOrEqual(slack);
}

/** Verifies, compiles and plans; nothing is executed. Returns multiply-adds by the plan's count of operations. */
export async function expectGoodPlan(graph: Graph): Promise<{ multiplyAdds: number }> {
  verify(graph);
  using program = await compile(graph);
  const plan = program.plan();
  expect(plan.flops).toBeGreaterThan(0);
  expectTightArena(plan);
  return { multiplyAdds: plan.flops / 2 };
}

type Forward = (t: Trace) => Tensor;

export const forwardOnly = (forward: Forward): Graph => trace((t) => t.output("y", forward(t)));

/** The output, and the gradients of the mean of its squares by every parameter. */
export const withGradients = (parameters: readonly ParamSpec[], forward: Forward): Graph =>
  trace((t) => {
    const loss = forward(t).square().mean();
    const wanted = parameters.map((spec) => t.parameter(spec));
    gradients(loss, wanted).forEach((grad, i) => t.output(`d.${parameters[i]!.name}`, grad));
    t.output("loss", loss);
  });

/** Rows of a table of configurations. */
export const entriesOf = <Config>(configs: Readonly<Record<string, Config>>): [string, Config][] =>
  Object.entries(configs);

/** The same without networks that differ from an earlier one in nothing but dropout. */
export function distinctEntries<Config extends object>(
  configs: Readonly<Record<string, Config>>,
): [string, Config][] {
  const rows = entriesOf(configs);
  const shapes = rows.map(([, config]) => JSON.stringify({ ...config, dropout: 0 }));
  return rows.filter((_, i) => shapes.indexOf(shapes[i]!) === i);
}

interface Unet {
  forward(input: UnetInput): Tensor;
}

/** Calls a U-Net with one picture of `side`, and with what its configuration needs beside it. */
export const unetInput =
  (
    model: Unet,
    side: number,
    { classes, lowResSide }: { classes?: number; lowResSide?: number },
  ): Forward =>
  (t) =>
    model.forward({
      x: t.input("x", { shape: [1, side, side, 3] }),
      times: t.input("times", { shape: [1] }),
      ...(classes !== undefined && { labels: t.input("labels", { shape: [1], dtype: "i32" }) }),
      ...(lowResSide !== undefined && {
        lowRes: t.input("lowRes", { shape: [1, lowResSide, lowResSide, 3] }),
      }),
    });

interface Transformer {
  forward(input: ClassInput): Tensor;
}

/** Calls a class-conditional transformer with one latent of 4 channels. */
export const latentInput =
  (model: Transformer, side: number): Forward =>
  (t) =>
    model.forward({
      x: t.input("x", { shape: [1, side, side, 4] }),
      times: t.input("times", { shape: [1] }),
      labels: t.input("labels", { shape: [1], dtype: "i32" }),
    });
