// KL autoencoders in training: they learn, go on bit for bit, their gradients are those of their losses, and what does not
// fit is refused by name.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import { autoencoderKl, type AutoencoderKlConfig } from "../../lib/models/autoencoder-kl.js";
import { patchDiscriminator } from "../../lib/models/patch-discriminator.js";
import { ParamScope } from "../../lib/nn/module.js";
import { generatorLoss } from "../../lib/processes/adversarial.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import {
  AutoencoderKlTrainer,
  type AutoencoderKlTrainerOptions,
} from "../../lib/trainers/autoencoder-kl.js";
import { autoencoderKlTerms } from "../../lib/trainers/autoencoder-loss.js";
import { drawn, drawnParameters, run } from "../models/run-model.js";
import { tinyConvolutions } from "../pipelines/tiny.js";
import { draws, expectTrueGradients } from "./finite-differences.js";
import { resumesExactly, runTrainer } from "./run-trainer.js";
import { blocks } from "./tiny-trainers.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-autoencoders-"))));
afterAll(() => rm(folder, { recursive: true }));

const klCodec: AutoencoderKlConfig = { ...tinyConvolutions, latentChannels: 4 };

const kl: AutoencoderKlTrainerOptions = {
  model: klCodec,
  dataset: blocks,
  batchSize: 4,
  seed: 5,
  optimiser: { clipNorm: 1 },
};
const game = { start: 2, weight: 0.5, discriminator: { channels: 4, layers: 1 } };

const tiny = { resolution: 4, channels: 4, multipliers: [1, 2], residualBlocks: 1, attentionResolutions: [], groups: 2 }; // prettier-ignore
const picture = [2, 4, 4, 3];
const keys = Int32Array.from([3, 0, 0, 1, 3, 0, 1, 1]);

describe("a KL autoencoder", () => {
  it("learns eight pictures, and how sure it may be", async () => {
    const trainer = await AutoencoderKlTrainer.create(kl);
    const steps = await runTrainer(trainer, 120, join(folder, "kl"), { rate: 5e-3 });
    trainer.dispose();
    const [first, last] = [steps[0]!, steps.at(-1)!];
    expect(first.metrics["reconstruction"]).toBeGreaterThan(0.5);
    expect(last.metrics["reconstruction"]).toBeLessThan(0.2);
    expect(last.metrics["logVariance"]).toBeLessThan(-0.4);
    expect(last.loss).toBeLessThan(0);
  });

  it("adds the perceptual term to the error of a pixel", async () => {
    const perceptual = { loss: (x: Tensor, y: Tensor) => x.sub(y).square().mean(), weight: 3 };
    const first = async (options: Partial<AutoencoderKlTrainerOptions>) => {
      const trainer = await AutoencoderKlTrainer.create({ ...kl, ...options });
      const [step] = await runTrainer(trainer, 1, join(folder, "perceptual"));
      trainer.dispose();
      return step!;
    };
    const [plain, seen] = [await first({}), await first({ perceptual })];
    const added = 3 * 4 * 10 ** (-plain.metrics["psnr"]! / 10); // psnr = 10 log10(4 / mse)
    const { reconstruction } = plain.metrics;
    expect(seen.metrics["reconstruction"]! - reconstruction!).toBeCloseTo(added, 5);
    expect((seen.loss - plain.loss) / (16 * 16 * 3)).toBeCloseTo(added, 4); // a sum over the values of a picture
  });

  it("keeps its log variance where it is not learned", async () => {
    const trainer = await AutoencoderKlTrainer.create({ ...kl, logVariance: -1, learnsLogVariance: false }); // prettier-ignore
    const steps = await runTrainer(trainer, 3, join(folder, "fixed"));
    expect(steps.map(({ metrics }) => metrics["logVariance"])).toEqual([-1, -1, -1]);
    expect([...trainer.weights().keys()]).toEqual(trainer.model.parameters.map(({ name }) => name));
    trainer.dispose();
  });

  it.each([["batch norm", {}], ["act norm", { norm: "act" }]] as const)("goes on bit for bit, with a discriminator of %s", async (name, norm) => {
    const adversarial = { ...game, discriminator: { ...game.discriminator, ...norm } };
    const create = () => AutoencoderKlTrainer.create({ ...kl, adversarial });
    const { whole, parts } = await resumesExactly(create, join(folder, `kl ${name}`));
    expect(parts).toEqual(whole);
  }); // prettier-ignore

  const model = autoencoderKl({ ...tiny, latentChannels: 3 });
  const logVariance = new ParamScope("loss").param("logvar", [], { kind: "zeros" });
  const inputs = { images: { shape: picture }, key: { shape: [2, 4], dtype: "i32" as const } };
  const values = { images: draws("images", picture), key: keys };

  it("has the gradients of its loss", async () => {
    await expectTrueGradients({
      parameters: [...model.parameters, logVariance],
      inputs,
      values,
      loss: (_t, batch) => autoencoderKlTerms(model, logVariance, batch, { klWeight: 0.1 }).loss,
    });
  });

  it("weighs the game by both gradients at the last layer, as a constant", async () => {
    const critic = patchDiscriminator({ channels: 2, layers: 1 }, new ParamScope("critic"));
    const size = [2, 8, 8, 3];
    const given = { images: drawn("images", size), key: { shape: [2, 4], data: keys }, factor: drawn("factor", []) }; // prettier-ignore
    const specs = [...model.parameters, logVariance, ...critic.parameters, ...critic.states];
    const out = await run(drawnParameters(specs), given, (t, batch) => {
      const options = { klWeight: 0.1, critic: { model: critic, weight: 0.5 } };
      const { loss, outputs } = autoencoderKlTerms(model, logVariance, batch, options);
      const { reconstruction, logVariance: s, kl, generated, adversarialWeight } = outputs!;
      const nll = reconstruction!
        .mul(s!.neg().exp())
        .add(s!)
        .mul(8 * 8 * 3);
      const deceived = generatorLoss(
        critic.forward(generated!, { mode: "train", state: critic.state(t) }).logits,
      );
      const at = (name: string) => t.parameter(specs.find((spec) => spec.name === name)!);
      const slopes = (y: Tensor, name: string) => gradients(y, [at(name)])[0]!;
      const norm = (y: Tensor) => slopes(y, model.lastLayer).square().sum().sqrt();
      const first = "encoder.conv_in.weight";
      const game = batch["factor"]!.mul(adversarialWeight!);
      return {
        weight: adversarialWeight!,
        expectedWeight: norm(nll).div(norm(deceived).add(1e-4)).mul(0.5),
        loss,
        expectedLoss: nll.add(kl!.mul(0.1)).add(deceived.mul(game)),
        slope: slopes(loss, first),
        expectedSlope: slopes(nll.add(kl!.mul(0.1)), first).add(slopes(deceived, first).mul(game)),
      };
    });
    for (const name of ["weight", "loss", "slope"]) {
      const expected = out[`expected${name[0]!.toUpperCase()}${name.slice(1)}`]!;
      const scale = Math.max(...expected.data.map(Math.abs));
      out[name]!.data.forEach((value, i) => expect(value / scale).toBeCloseTo(expected.data[i]! / scale, 4)); // prettier-ignore
    }
  });

  it("refuses what it does not know", async () => {
    const refused = (options: object): Promise<unknown> =>
      AutoencoderKlTrainer.create({ ...kl, ...options } as AutoencoderKlTrainerOptions);
    await expect(refused({ model: { ...klCodec, chanels: 3 } })).rejects.toThrow(/chanels/);
    await expect(refused({ freeze: ["encodr"] })).rejects.toThrow(/did you mean "encoder"/);
  });
});
