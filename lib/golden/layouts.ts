// Between the layouts of the references (channels first) and ours (channels last), inside a trace.
import type { Tensor } from "../trace/tensor.js";

/** (B, C, ...) -> (B, ..., C). */
export const channelsLast = (x: Tensor): Tensor => {
  const space = x.shape.map((_, axis) => axis).slice(2);
  return x.transpose([0, ...space, 1]);
};

/** (B, ..., C) -> (B, C, ...). */
export const channelsFirst = (x: Tensor): Tensor => {
  const space = x.shape.map((_, axis) => axis).slice(1, -1);
  return x.transpose([0, x.rank - 1, ...space]);
};
