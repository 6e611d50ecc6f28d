// How PatchGAN discriminators are recognised: the adversarial loss of CompVis/taming-transformers (also used by
// latent-diffusion), alone or inside an autoencoder's checkpoint.
import type { Family, ShapeView } from "./family.js";
import { patchDiscriminator, type PatchDiscriminatorConfig } from "./patch-discriminator.js";
import { tamingDiscriminatorKeys } from "./vqgan.keys.js";

/** Two convolutions, and three modules for each layer between them: the last is number 3 layers + 2. */
function configure(shapes: ShapeView): PatchDiscriminatorConfig {
  const [channels, imageChannels] = shapes.shape("main.0.weight", 4) as [number, number];
  return {
    imageChannels,
    channels,
    layers: shapes.count(/^main\.(\d+)\.(?:running_mean|loc)$/),
    norm: shapes.has("main.3.running_mean") ? "batch" : "act",
  };
}

export const patchDiscriminatorFamilies: readonly Family[] = [
  {
    name: "taming-discriminator",
    title: "PatchGAN discriminator (CompVis/taming-transformers NLayerDiscriminator)",
    model: "patch-discriminator",
    role: "discriminator",
    places: [/^loss\.discriminator\./, /^first_stage_model\.loss\.discriminator\./, /^discriminator\./], // prettier-ignore
    marks: [/^main\.0\.weight$/, /^main\.2\.weight$/, /^main\.3\.(?:running_mean|loc)$/],
    facts: {},
    configure,
    keys: () => tamingDiscriminatorKeys,
    build: (config) => patchDiscriminator(config as PatchDiscriminatorConfig),
    published: {
      "patchgan-3": { imageChannels: 3, channels: 64, layers: 3, norm: "batch" },
      "patchgan-2": { imageChannels: 3, channels: 64, layers: 2, norm: "batch" },
    },
  },
];
