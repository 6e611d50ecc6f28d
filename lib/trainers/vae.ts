// Training of DiffuseVAE's first stage by its bound: squared errors of pictures in [0, 1] and the divergence of the
// posterior, both sums over the batch as published. Sources: Pandey et al. 2022, arXiv:2201.00308; Kingma and Welling 2013,
// arXiv:1312.6114, eq. 10; Higgins et al. 2017 (the weight of the divergence).
import { checkOptions, DiffusionError, formatShape } from "../errors.js";
import {
  diffuseVae,
  diffuseVaeLoss,
  drawLatent,
  type DiffuseVae,
  type DiffuseVaeConfig,
} from "../models/diffusevae-vae.js";
import { randomNormal } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { TrainingTask } from "./task-trainer.js";
import type { LossTerms } from "./train-step.js";

export interface VaeTaskOptions {
  model: DiffuseVaeConfig;
  /** Weight of the divergence; default 1. */
  klWeight?: number;
}

const noisePurpose = 1;

/** Pictures (B, H, W, 3) in [-1, 1], key, labels of a model with classes -> loss, and figures of one picture. */
export function vaeLoss(
  model: DiffuseVae,
  { images, key, labels }: Record<string, Tensor>,
  klWeight = 1,
): LossTerms {
  const pictures = images!.add(1).mul(0.5);
  const posterior = model.encode(pictures, labels);
  const noise = randomNormal(key!, { shape: posterior.mean.shape, purpose: noisePurpose });
  const decoded = model.decode(drawLatent(posterior, noise), labels);
  const { reconstruction, kl, total } = diffuseVaeLoss(pictures, decoded, posterior, klWeight);
  const B = pictures.shape[0]!;
  return { loss: total, outputs: { reconstruction: reconstruction.div(B), kl: kl.div(B) } };
}

/** A first stage for TaskTrainer. Throws "option" for pictures of another size. */
export function vaeTask(options: VaeTaskOptions): TrainingTask {
  checkOptions("vaeTask", options, ["model", "klWeight"]);
  const model = diffuseVae(options.model);
  const { resolution, classes } = options.model;
  return {
    configuration: { model: options.model, klWeight: options.klWeight ?? 1 },
    parameters: model.parameters,
    metrics: ["reconstruction", "kl"],
    inputs(pictures) {
      const wanted = [pictures[0]!, resolution, resolution, 3];
      if (pictures.join() !== wanted.join())
        throw new DiffusionError(
          "option",
          `vaeTask: expected pictures ${formatShape(wanted)} as the model has, got ${formatShape(pictures)}`,
        );
      return {
        images: { shape: pictures },
        key: { shape: [pictures[0]!, 4], dtype: "i32" },
        ...(classes !== undefined && { labels: { shape: [pictures[0]!], dtype: "i32" } }),
      };
    },
    loss: (batch) => vaeLoss(model, batch, options.klWeight),
    values: ({ images, labels }, { key }) => ({
      inputs: { images, key, ...(classes !== undefined && { labels }) },
    }),
  };
}
