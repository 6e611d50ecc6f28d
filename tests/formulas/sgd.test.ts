// Momentum and Nesterov's form of it against the recursions in plain numbers.
import { expect, it } from "vitest";
import { sgd } from "../../lib/optim/adamw.js";
import { evaluate, f64 } from "./evaluate.js";

it.each([false, true])("three steps, nesterov: %s", async (nesterov) => {
  const [lr, momentum] = [0.1, 0.9];
  const gradients = [0.5, -1.25, 2];
  let [parameter, buffer] = [1, 0];
  for (const g of gradients) {
    buffer = momentum * buffer + g;
    parameter -= lr * (nesterov ? g + momentum * buffer : buffer);
  }
  const { end } = await evaluate(
    (t, { start, g }) => {
      let state = { param: start!, velocity: start!.mul(0) };
      for (let n = 0; n < gradients.length; ++n)
        state = sgd({ ...state, grad: g!.slice([n], [1]) }, { lr: t.constant(lr), momentum, nesterov }); // prettier-ignore
      return { end: state.param };
    },
    { start: f64([1], [1]), g: f64([3], gradients) },
  );
  expect(end![0]).toBeCloseTo(parameter, 12);
});
