// Golden runners refuse options that they do not know by name, before they read a tensor: a case never runs as another
// configuration than its own.
import { expect, it } from "vitest";
import type { Config, GoldenCase } from "../../lib/golden/case.js";
import { runners } from "../../lib/golden/runners.js";

const empty = (kind: string, config: Config): GoldenCase => ({
  name: "test",
  kind,
  config,
  rtol: 0,
  io: new Map(),
  weights: new Map(),
  texts: new Map(),
});

const refuse = async (kind: string, config: Config): Promise<string> =>
  Promise.resolve()
    .then(() => runners[kind]!(empty(kind, config), () => Promise.reject(new Error("ran"))))
    .then(
      () => "accepted",
      (error: unknown) => (error as Error).message,
    );

it.each(Object.keys(runners))("%s", async (kind) => {
  expect(await refuse(kind, { surprise: 1 })).toContain("surprise");
});

const codec = {
  ch: 8,
  out_ch: 3,
  ch_mult: [1],
  num_res_blocks: 1,
  attn_resolutions: [],
  in_channels: 3,
  resolution: 8,
  z_channels: 4,
};

it("looks into the encoder's and decoder's options", async () => {
  const refused = (ddconfig: object): Promise<string> =>
    refuse("ldm_autoencoder_kl", { ddconfig, embed_dim: 4, norm_num_groups: 8 });
  expect(await refused({ ...codec, dropuot: 0 })).toContain("dropuot");
  expect(await refused({ ...codec, attn_type: "xformers" })).toMatch(/attn_type .*"xformers"/);
  expect(await refused({ ...codec, double_z: false })).toContain("double_z true, got false");
  expect(await refused({ ...codec, give_pre_end: true })).toContain("give_pre_end false, got true");
});

it("says what the U-Net of latent diffusion misses", async () => {
  const config = {
    image_size: 8,
    in_channels: 4,
    model_channels: 8,
    out_channels: 4,
    num_res_blocks: 1,
    attention_resolutions: [],
    channel_mult: [1],
    norm_num_groups: 8,
  };
  expect(await refuse("ldm_unet_crossattn", config)).toContain("num_heads or num_head_channels");
  expect(
    await refuse("ldm_unet_crossattn", { ...config, num_heads: 1, use_spatial_transformer: true }),
  ).toContain("context_dim exactly with use_spatial_transformer");
  expect(await refuse("ldm_unet_crossattn", { ...config, num_heads: 1, dims: 3 })).toMatch(
    /dims to be 2 \(networks of pictures: .*\), got 3/,
  );
});

it("looks into both models of the diffusers pipeline", async () => {
  const transformer = { sample_size: 2, num_vector_embeds: 5, norm_type: "ada_norm" };
  const config = {
    transformer,
    vqvae: {},
    num_train_timesteps: 4,
    num_inference_steps: 4,
    guidance_scale: 1,
    truncation_rate: 1,
    batch: 1,
  };
  expect(await refuse("diffusers_vqdiffusion_pipeline", config)).toContain("norm_type");
  const vqModel = { down_block_types: ["DownBlock2D"] };
  expect(await refuse("diffusers_vqmodel", vqModel)).toMatch(/down_block_types .*DownBlock2D/);
});

it("looks into the options of optimizers, and knows them by name", async () => {
  const job = (name: string, options: Config): Promise<string> =>
    refuse("torch_optim", { jobs: [[name, options]], steps: 1, shapes: [[2]] });
  expect(await job("SGD", { lr: 0.1, dampening: 0.5 })).toContain("dampening");
  expect(await job("AdamW", { lr: 0.1, amsgrad: true })).toContain("amsgrad");
  expect(await job("Adamw", { lr: 0.1 })).toContain('did you mean "AdamW"');
});

it("asks a model of classes what it is told of them", async () => {
  const transformer = {
    kind: "class",
    n_layer: 1,
    n_embd: 8,
    n_head: 1,
    mlp_hidden_times: 1,
    block_activate: "GELU2",
    timestep_type: "adalayernorm",
    class_number: 3,
    mlp_type: "fc",
    hw: [2, 2],
    K: 5,
  };
  const diffusion = {
    auxiliary_loss_weight: 0,
    adaptive_auxiliary_loss: true,
    mask_weight: [1, 1],
  };
  const config = { transformer, diffusion_step: 4, diffusion, batch: 1 };
  expect(await refuse("vqd_class_transformer", config)).toContain("class_type");
});
