// The gradient rule of every op, by name. An op without a row goes through its decomposition.
import { DiffusionError } from "../errors.js";
import { hasDecomposition } from "../trace/decompose.js";
import { nonDifferentiable } from "./rule.js";
import type { Rule, RuleTable } from "./rule.js";
import { fusedRules } from "./vjp-fused.js";
import { linearRules } from "./vjp-linear.js";
import { movementRules } from "./vjp-movement.js";
import { pointwiseRules } from "./vjp-pointwise.js";
import { reduceRules } from "./vjp-reduce.js";

export const rules: RuleTable = {
  ...pointwiseRules,
  ...reduceRules,
  ...movementRules,
  ...linearRules,
  ...fusedRules,
  input: nonDifferentiable,
};

const viaDecomposition: Rule = () => "decompose";

export function ruleOf(op: string): Rule {
  const rule = rules[op] ?? (hasDecomposition(op) ? viaDecomposition : undefined);
  if (rule) return rule;
  throw new DiffusionError("internal", `gradients: expected an op with a gradient, got ${op}`);
}
