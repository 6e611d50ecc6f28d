// Counter-based random numbers: a pure function of a key row (seed low, seed high, sample, step), purpose and position.
import type { OpDef } from "./op.js";
import {
  choiceAttr,
  defineOp,
  formatSpec,
  integerAttr,
  optionalAttr,
  requireIndices,
  shapeAttr,
  shapeError,
} from "./op.js";

const random = (name: string): OpDef =>
  defineOp({
    name,
    traits: ["random"],
    inputs: ["key"],
    attrs: {
      shape: shapeAttr,
      purpose: integerAttr,
      dtype: optionalAttr(choiceAttr("f32", "f64")),
    },
    infer: ([key], { shape, purpose, dtype = "f32" }) => {
      requireIndices(name, "key", key!);
      if (
        shape.length === 0 ||
        key!.shape.length !== 2 ||
        key!.shape[0] !== shape[0] ||
        key!.shape[1] !== 4
      ) {
        throw shapeError(
          name,
          `key (B, 4) and a shape that starts with B`,
          `${formatSpec(key!)} and [${shape.join(", ")}]`,
        );
      }
      if (purpose < 0 || purpose > 0xffffffff)
        throw shapeError(name, "purpose from 0 to 4294967295", `${purpose}`);
      return [{ dtype, shape }];
    },
  });

export const randomOps: readonly OpDef[] = [random("randomUniform"), random("randomNormal")];
