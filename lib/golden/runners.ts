// Which runner computes which kind of golden case.
import type { GoldenRunner } from "./evaluate.js";
import { tamingRunners } from "./kinds/taming.js";
import { tamingAdversaryRunners } from "./kinds/taming-adversary.js";
import { torchOpsRunners } from "./kinds/torch-ops.js";
import { torchOptimRunners } from "./kinds/torch-optim.js";
import { vqdMathRunners } from "./kinds/vqd-math.js";
import { vqdModelRunners } from "./kinds/vqd-model.js";
import { vqdSamplingRunners } from "./kinds/vqd-sampling.js";

export const runners: Readonly<Record<string, GoldenRunner>> = {
  ...torchOpsRunners,
  ...torchOptimRunners,
  ...tamingRunners,
  ...tamingAdversaryRunners,
  ...vqdMathRunners,
  ...vqdModelRunners,
  ...vqdSamplingRunners,
};
