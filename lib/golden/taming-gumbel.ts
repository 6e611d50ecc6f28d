// Golden kind taming_gumbelvq: a VQGAN whose codes are drawn by a Gumbel-softmax, from given noise.
import { DiffusionError } from "../errors.js";
import { limits, real, whole } from "../models/check-config.js";
import { tamingVqganKeys } from "../models/vqgan.keys.js";
import { vqgan } from "../models/vqgan.js";
import type { Vqgan } from "../models/vqgan.js";
import { topK } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { codecConfig } from "./first-stage-config.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { runModel } from "./model-run.js";
import type { ModelRun } from "./model-run.js";

const rules = {
  n_embed: whole(1, limits.codes),
  kl_weight: real(0, 1e6),
  temperature: real(1e-9, 1e6),
  kl_scale_in_loss_total: real(-1e6, 1e6),
};

type GumbelConfig = Record<keyof typeof rules | "embed_dim", number>;

function build(golden: GoldenCase): Vqgan {
  const codec = codecConfig(golden, rules);
  const c = golden.config as GumbelConfig;
  if (codec.latentChannels !== c.embed_dim) {
    throw new DiffusionError(
      "option",
      `${golden.kind}: expected embed_dim ${codec.latentChannels} as z_channels, got ${c.embed_dim}`,
    );
  }
  return vqgan({
    ...codec,
    quantizer: {
      kind: "gumbel",
      codes: c.n_embed,
      width: c.embed_dim,
      klWeight: c.kl_weight,
      temperature: c.temperature,
    },
  });
}

/** Best minus second best of what the argmax sees. */
function margin(scores: Tensor): Tensor {
  const { values } = topK(scores, { k: 2 });
  const shape = scores.shape.slice(0, -1);
  const column = (i: number): Tensor =>
    values
      .slice(
        values.shape.map((_, axis) => (axis === shape.length ? i : 0)),
        [...shape, 1],
      )
      .reshape(shape);
  return column(0).sub(column(1));
}

function results(golden: GoldenCase, model: Vqgan, { x: inputs, gradientsOf }: ModelRun): Tensors {
  const { kl_scale_in_loss_total: klScale } = golden.config as GumbelConfig;
  const quantizer = model.gumbel!;
  const x = channelsLast(inputs["x"]!);
  const noise = channelsLast(inputs["exponential_draws"]!).log().neg();
  const latents = model.encode(x);
  const logits = quantizer.logits(latents);
  const out: Tensors = {
    prequant: channelsFirst(latents),
    logits: channelsFirst(logits),
    "tap.index_margin": margin(logits.add(noise)),
  };
  for (const [way, hard] of Object.entries({ hard: true, soft: false })) {
    const { quantised, indices, loss: kl } = quantizer.quantiseWith(latents, { noise, hard });
    const reconstruction = model.decode(quantised);
    const loss = reconstruction.sub(x).square().mean().add(kl.mul(klScale));
    Object.assign(out, {
      [`indices_${way}`]: indices,
      [`z_q_${way}`]: channelsFirst(quantised),
      [`loss_kl_${way}`]: kl,
      [`reconstruction_${way}`]: channelsFirst(reconstruction),
      [`loss_total_${way}`]: loss,
      ...gradientsOf(loss, `grad.${way}.`),
    });
    if (hard) out["codebook_entry"] = channelsFirst(quantizer.lookup(indices));
  }
  return out;
}

function gumbelVq(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  const model = build(golden);
  const inputs = {
    x: ioValues(golden, "x"),
    exponential_draws: ioValues(golden, "exponential_draws"),
  };
  const options = { parameters: model.parameters, keys: tamingVqganKeys, inputs };
  return runModel(golden, evaluate, options, (run) => results(golden, model, run));
}

export const tamingGumbelRunners: Readonly<Record<string, GoldenRunner>> = {
  taming_gumbelvq: gumbelVq,
};
