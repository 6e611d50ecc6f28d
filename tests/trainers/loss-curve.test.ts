// The first ten losses of tiny trainings against numbers kept here: a change of a layer, a loss, an optimiser, a draw or the
// order of the data shows. Kept from the reference kernels; the tolerances are four times what the instruction sets of an
// AVX-512 machine differ by (1.2e-5, from the weight of the game, a quotient of two norms; and 1e-7).
import { describe, expect, it } from "vitest";
import { describeBackends } from "../../lib/runtime/device.js";
import { AutoencoderTrainer } from "../../lib/trainers/autoencoder.js";
import { TaskTrainer } from "../../lib/trainers/task-trainer.js";
import type { Trainable } from "../../lib/trainers/loop.js";
import { tinyAutoencoder, tinyDiscrete } from "./tiny-trainers.js";

const learningRate = 2e-3;

async function lossesOf(
  trainer: Trainable & { dispose(): void },
  count: number,
): Promise<number[]> {
  const losses: number[] = [];
  for (let i = 0; i < count; ++i)
    losses.push((await trainer.step(i, learningRate, await trainer.prefetch(i))).loss);
  trainer.dispose();
  return losses;
}

/** Throws for the first loss that is further away than `tolerance`, relatively. */
function expectCurve(losses: readonly number[], kept: readonly number[], tolerance: number): void {
  const errors = losses.map((loss, i) => Math.abs(loss / kept[i]! - 1));
  expect(errors.map((error) => error <= tolerance)).toEqual(kept.map(() => true));
}

describe.each(["ref", ...describeBackends().cpu!.isas])("on %s", (isa) => {
  it("a tokenizer, with a discriminator from the fourth step on", async () => {
    const adversarial = { start: 3, discriminator: { channels: 4, layers: 1 } };
    const trainer = await AutoencoderTrainer.create({ ...tinyAutoencoder, adversarial, isa });
    const kept = [
      0.5891804, 0.6042613, 0.50809085, 0.6292665, 0.50318646,
      0.49682125, 0.44172853, 0.4623915, 0.38420707, 0.4355441,
    ]; // prettier-ignore
    expectCurve(await lossesOf(trainer, kept.length), kept, 5e-5);
  });

  it("a model of tokens that is told captions and styles", async () => {
    const trainer = await TaskTrainer.create({ ...tinyDiscrete(), isa });
    const kept = [
      21.0629177, 9.4112319, 21.565044, 9.8027954, 8.7559156,
      10.0450735, 10.2386112, 8.1825771, 19.7505302, 9.3043022,
    ]; // prettier-ignore
    expectCurve(await lossesOf(trainer, kept.length), kept, 4e-7);
  });
});
