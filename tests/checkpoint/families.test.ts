// Families on the weights of original implementations: recognised by names, configured from shapes and the facts of the
// case, every tensor used. Skipped where those files are not beside the project.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../lib/checkpoint/open-checkpoint.js";
import { fitIdentified, identify } from "../../lib/pipelines/import-checkpoint.js";

const golden = resolve(import.meta.dirname, "../../../shared/golden");

interface Case {
  kind: string;
  config: Record<string, unknown>;
}

type Facts = Record<string, unknown>;

const compVis = ({ ddconfig, norm_num_groups }: Facts): Facts => ({
  resolution: (ddconfig as Facts)["resolution"],
  groups: norm_num_groups ?? 32,
  outputActivation: (ddconfig as Facts)["tanh_out"] ? "tanh" : "none",
});

const microsoft = ({ transformer }: Facts): Facts => {
  const t = transformer as Record<string, string>;
  return {
    heads: t["n_head"],
    grid: t["hw"],
    activation: t["block_activate"] === "GELU2" ? "quickGelu" : "gelu",
    timeNorm: t["timestep_type"]!.startsWith("adains") ? "instance" : "layer",
    classNorm: t["class_type"]?.startsWith("adains") ? "instance" : "layer",
  };
};

/** Family of each kind of case, and its facts in the words of the original. */
const expected: Readonly<Record<string, [family: string, facts: (config: Facts) => Facts]>> = {
  taming_vqmodel: ["taming-vqgan", compVis],
  taming_gumbelvq: ["taming-vqgan", compVis],
  ldm_vqmodel_interface: ["taming-vqgan", compVis],
  ldm_autoencoder_kl: ["compvis-autoencoder-kl", compVis],
  diffusers_vqmodel: [
    "diffusers-vqmodel",
    (c) => ({
      resolution: 32,
      groups: c["norm_num_groups"] ?? 32,
      activation: c["act_fn"] === "mish" ? "mish" : "silu",
    }),
  ],
  diffusers_vqdiffusion_transformer: [
    "diffusers-vq-diffusion",
    (c) => ({
      heads: c["num_attention_heads"] ?? 16,
      grid: [c["sample_size"], c["sample_size"]],
      activation: { geglu: "geglu", gelu: "gelu", "geglu-approximate": "quickGelu" }[
        (c["activation_fn"] as string | undefined) ?? "geglu"
      ],
      onlyCrossAttention: c["only_cross_attention"] ?? false,
    }),
  ],
  vqd_text2image_transformer: ["microsoft-vq-diffusion", microsoft],
  vqd_class_transformer: ["microsoft-vq-diffusion", microsoft],
  vqd_uncond_transformer: ["microsoft-vq-diffusion", microsoft],
};

const cases = existsSync(golden)
  ? readdirSync(golden).filter(
      (name) =>
        name.replace(/__\w+$/, "") in expected &&
        existsSync(join(golden, name, "weights.safetensors")),
    )
  : [];

describe.skipIf(cases.length === 0)("weights of original implementations", () => {
  it.each(cases)("%s", async (name) => {
    const { kind, config } = JSON.parse(
      readFileSync(join(golden, name, "case.json"), "utf8"),
    ) as Case;
    const [family, factsOf] = expected[kind]!;
    using checkpoint = await openCheckpoint(join(golden, name, "weights.safetensors"));
    const models = identify(checkpoint, { facts: factsOf(config) });
    expect(models.map((model) => model.family.name)).toEqual([family]);
    expect(models[0]!.missing).toEqual({});
    const fit = fitIdentified(models[0]!);
    expect(fit.sources.size).toBe(fit.specs.length);
  });
});
