// Whole training steps of published tokenizers, autoencoders and classifiers, without weights: traced, differentiated,
// compiled and planned, and nothing is executed.
import { describe, it } from "vitest";
import { admClassifierConfigs } from "../../lib/models/adm-configs.js";
import { autoencoderKl } from "../../lib/models/autoencoder-kl.js";
import { autoencoderKlConfigs } from "../../lib/models/autoencoder-kl-configs.js";
import { divaeConfigs } from "../../lib/models/divae-configs.js";
import { lpips } from "../../lib/models/lpips.js";
import { vqgan } from "../../lib/models/vqgan.js";
import { vqganConfigs } from "../../lib/models/vqgan-configs.js";
import { ParamScope } from "../../lib/nn/module.js";
import { criticOf } from "../../lib/trainers/adversarial-trainer.js";
import { generatorStepOptions } from "../../lib/trainers/autoencoder.js";
import { klGeneratorStepOptions } from "../../lib/trainers/autoencoder-kl.js";
import { classifierTask } from "../../lib/trainers/classifier.js";
import { divaeTask } from "../../lib/trainers/divae.js";
import { splitFrozen } from "../../lib/trainers/freeze.js";
import type { TrainingTask } from "../../lib/trainers/task-trainer.js";
import { fusedStepGraph } from "../../lib/trainers/train-step.js";
import { expectGoodPlan } from "./plans.js";

const time = 120_000;

/** LPIPS as it stands, and the game. */
const game = {
  batchSize: 1,
  adversarial: { start: 50_001, weight: 0.5 },
  perceptual: {
    loss: (x, y) => lpips({}, new ParamScope("perceptual")).distance(x, y).mean(),
    weight: 1,
  },
} as const satisfies Partial<Parameters<typeof klGeneratorStepOptions>[1]>;

const chain = { timesteps: 1000, schedule: "linear" } as const;

const taskStep = (task: TrainingTask, side: number, channels = 3) =>
  fusedStepGraph({
    inputs: task.inputs([1, side, side, channels]),
    loss: (_, batch) => task.loss(batch),
    parameters: splitFrozen(task, task.frozen ?? []).trained,
  });

describe("the generator's step", () => {
  it("of a Gumbel VQGAN", async () => {
    const model = vqganConfigs["f8-8192-gumbel"];
    const settings = { ...game, model };
    const critic = criticOf(settings)!;
    await expectGoodPlan(fusedStepGraph(generatorStepOptions(vqgan(model), settings, { critic })));
  }, time); // prettier-ignore

  it("of a KL autoencoder", async () => {
    const model = autoencoderKlConfigs["kl-f8"];
    const settings = { ...game, model };
    const step = klGeneratorStepOptions(autoencoderKl(model), settings, criticOf(settings));
    await expectGoodPlan(fusedStepGraph(step));
  }, time); // prettier-ignore
});

describe("the step of DiVAE", () => {
  it("with a U-Net, all of it", async () => {
    const model = divaeConfigs["rgb-16k-224"];
    const process = { kind: "gaussian", chain, prediction: "x0" } as const;
    await expectGoodPlan(taskStep(divaeTask({ model, process }), 224));
  }, time); // prettier-ignore

  it("with a U-ViT, the decoder alone", async () => {
    const model = divaeConfigs["rgb-1k-uvit-448"];
    const process = { kind: "gaussian", chain, prediction: "v" } as const;
    await expectGoodPlan(taskStep(divaeTask({ model, process, trains: "decoder" }), 224));
  }, time); // prettier-ignore
});

it("the step of a classifier", async () => {
  const model = admClassifierConfigs["imagenet-256"];
  const task = classifierTask({ model, process: { kind: "gaussian", chain } });
  await expectGoodPlan(taskStep(task, 256));
}, time); // prettier-ignore
