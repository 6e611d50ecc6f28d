// The first ten losses of tiny trainings against numbers kept here: a change of a layer, a loss, an optimiser, a draw or the
// order of the data shows. Kept from the reference kernels; the tolerances are four times what the instruction sets of an
// AVX-512 machine differ by, with and without Winograd's algorithm (5.6e-7 and 1e-7). The tokenizer's steps are small: with ten times
// the rate some latent meets the border between two codes on most seeds, and the last bit of a sum then decides (1e-3 to 1e-1).
import { describe, expect, it } from "vitest";
import { describeBackends } from "../../lib/runtime/device.js";
import { AutoencoderTrainer } from "../../lib/trainers/autoencoder.js";
import { TaskTrainer } from "../../lib/trainers/task-trainer.js";
import type { Trainable } from "../../lib/trainers/loop.js";
import { tinyAutoencoder, tinyDiscrete } from "./tiny-trainers.js";

async function lossesOf(
  trainer: Trainable & { dispose(): void },
  count: number,
  learningRate: number,
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
    const trainer = await AutoencoderTrainer.create({
      ...tinyAutoencoder,
      seed: 1,
      adversarial,
      isa,
    });
    const kept = [
      0.655422091, 0.559613049, 0.593481123, 0.495984107, 0.467272729,
      0.530286431, 0.473117381, 0.484256834, 0.467454314, 0.477392167,
    ]; // prettier-ignore
    expectCurve(await lossesOf(trainer, kept.length, 2e-4), kept, 2.3e-6);
  });

  it("a model of tokens that is told captions and styles", async () => {
    const trainer = await TaskTrainer.create({ ...tinyDiscrete(), isa });
    const kept = [
      21.0629177, 9.4112319, 21.565044, 9.8027954, 8.7559156,
      10.0450735, 10.2386112, 8.1825771, 19.7505302, 9.3043022,
    ]; // prettier-ignore
    expectCurve(await lossesOf(trainer, kept.length, 2e-3), kept, 4e-7);
  });
});
