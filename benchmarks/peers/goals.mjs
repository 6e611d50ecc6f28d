// What is compared, and the ratio that is asked for on two threads: the best peer's median over ours.
const network = (name, batch, goal) => ({
  name,
  batch,
  goal,
  torch: ["eager", "opt", "opt+cl"],
  onnx: true,
});

/** Ours with 8-bit weights and activations beside ours in float32. */
const quantized = (name, goal) => ({
  name: `int8_${name}`,
  batch: 1,
  goal,
  torch: [],
  against: { name, batch: 1 },
});

/** As a network, for single layers; `threads` limits a row to that number. */
const layer = (name, goal, more = {}) => ({
  ...network(name, 1, goal),
  torch: ["eager", "cl", "opt", "opt+cl"],
  ...more,
});

const training = (name, goal) => ({ name, batch: 4, goal, torch: ["eager", "cl"] });

const codebook = (name, goal, forms) => ({ name, batch: 1, goal, torch: forms });

const step = (form, goal) => ({ name: "mask_replace_2886", batch: 4, goal, torch: [form], form });

export const rows = [
  network("cifar_unet", 1, 2.4),
  network("cifar_unet", 4, 2.6),
  network("adm64_unet", 1, 2.4),
  network("adm64_unet", 4, 2.6),
  network("vqgan_f16_enc", 1, 2.6),
  network("vqgan_f16_dec", 1, 2.7),
  network("dit_s2", 1, 1.6),
  network("dit_s2", 4, 1.6),
  network("dit_b2", 1, 1.6),
  network("dit_b2", 4, 1.6),
  network("vqd_small", 1, 1.6),
  network("vqd_small", 4, 1.6),
  training("train_cifar_unet", 1.9),
  training("train_small64_unet", 1.9),
  training("train_dit_s2", 1.8),
  layer("conv_128_128_32", 2.5),
  layer("conv_256_256_16", 2.5),
  layer("conv_128_128_64", 2.5),
  layer("conv_128_128_256", 2.5),
  layer("conv_3_128_256", 6),
  layer("conv_128_3_256", 6),
  layer("gnsilu_128_32", 2, { threads: 1 }),
  layer("gnsilu_128_256", 3, { threads: 1 }),
  codebook("codebook_4096_16384_256", 1.4, ["expanded", "fused", "parts", "cdist"]),
  codebook("codebook_4096_16384_8", 8, ["expanded", "fused", "parts", "cdist"]),
  codebook("codebook_65536_8192_4", 10, ["fused", "parts"]),
  quantized("cifar_unet", 1.5),
  quantized("dit_b2", 1.9),
  step("published", 130),
  step("closed", 40),
];

/** Whole processes: peak memory as a share of the better peer's, and the time from start to a first result. */
export const processRows = [
  { name: "peak_cifar_unet", network: "cifar_unet", batch: 1, goal: 0.5, measure: "peak" },
  { name: "peak_vqgan_f16_dec", network: "vqgan_f16_dec", batch: 1, goal: 0.55, measure: "peak" },
  { name: "start_cifar_unet", network: "cifar_unet", batch: 1, goal: 2.5, measure: "start" },
];
