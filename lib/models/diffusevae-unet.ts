// DiffuseVAE's second stage: a U-Net on a noisy image joined with the reconstruction of a VAE, in the
// layout of the main branch (kpandey008/DiffuseVAE main/models/diffusion/unet_openai.py) and in that
// of its reproduction branch (unet_ddim.py). Source: Pandey et al. 2022, arXiv:2201.00308.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { ParamScope } from "../nn/module.js";
import { siluMlp } from "../nn/time-embedding.js";
import { concat, resize } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import {
  admEmbeddingWidth,
  admStride,
  admTrunk,
  admTrunkRules,
  checkAdmTrunk,
} from "./adm-trunk.js";
import type { AdmTrunkConfig } from "./adm-trunk.js";
import { admClassEmbedding, admEmbedding, admHead } from "./adm-unet.js";
import {
  checkFields,
  flag,
  limits,
  listOf,
  oneOf,
  optional,
  whole,
  without,
} from "./check-config.js";
import type { Rules } from "./check-config.js";
import { checkDdpmUnet, ddpmNetwork, ddpmStride, ddpmUnetRules } from "./ddpm-unet.js";
import type { DdpmUnetConfig } from "./ddpm-unet.js";
import { checkUnetInput } from "./unet-input.js";
import type { UnetInput } from "./unet-input.js";

interface Conditioning {
  /**
   * Whether lowRes, an image resized to x by nearest neighbour, is joined to it: formulations 1 and
   * 2 alike. Without it the model is the unconditional baseline. Default true.
   */
  conditional?: boolean;
}

/** The main branch: attention is given by downsampling factors. */
export interface DiffuseVaeMainUnetConfig
  extends
    Conditioning,
    Omit<AdmTrunkConfig, "headChannels" | "residualResample" | "attentionOrder"> {
  /** Default "main". */
  variant?: "main";
  /** Side of the training images, which the network itself does not read. */
  resolution?: number;
  /** Channels of x; default 3. */
  imageChannels?: number;
  /** Channels of the prediction; default imageChannels. */
  outChannels?: number;
  /** Number of classes; default none. */
  classes?: number;
  /** Width of a latent vector that is projected and added to the embedding of time; default none. */
  latentWidth?: number;
}

/** The reproduction branch: attention is given by sides in pixels. */
export interface DiffuseVaeReproductionUnetConfig extends Conditioning, DdpmUnetConfig {
  variant: "reproduction";
}

export type DiffuseVaeUnetConfig = DiffuseVaeMainUnetConfig | DiffuseVaeReproductionUnetConfig;

export interface DiffuseVaeUnet {
  readonly config: DiffuseVaeUnetConfig;
  /** Sides of x are multiples of this. */
  readonly stride: number;
  readonly parameters: readonly ParamSpec[];
  /** Predicted noise (B, H, W, outChannels). Throws "shape" for inputs that do not fit. */
  forward(input: UnetInput): Tensor;
}

const common: Rules = {
  variant: optional(oneOf("main", "reproduction")),
  conditional: optional(flag),
};

const mainRules: Rules = {
  ...without(admTrunkRules, "headChannels", "residualResample", "attentionOrder"),
  ...common,
  multipliers: listOf(whole(1, 1024), 1, 12),
  resolution: optional(whole(1, limits.side)),
  imageChannels: optional(whole(1, limits.width)),
  outChannels: optional(whole(1, limits.width)),
  classes: optional(whole(1, limits.width)),
  latentWidth: optional(whole(1, limits.width)),
};

const reproductionRules: Rules = { ...ddpmUnetRules, ...common };

/** (x joined with its condition, input) -> prediction. */
type Network = (image: Tensor, input: UnetInput) => Tensor;

function mainNetwork(
  scope: ParamScope,
  config: DiffuseVaeMainUnetConfig,
  inChannels: number,
): Network {
  const { imageChannels = 3, outChannels = imageChannels, classes, latentWidth } = config;
  const time = admEmbedding(scope, config);
  const project =
    latentWidth &&
    siluMlp(scope.child("proj"), { in: latentWidth, out: admEmbeddingWidth(config) });
  const label = classes && admClassEmbedding(scope, config, classes);
  const trunk = admTrunk(scope, config, inChannels);
  const head = admHead(scope.child("out"), config.groups ?? 32, trunk.width, outChannels);
  return (image, { times, latent, labels, dropoutKey }) => {
    const parts = [time(times)];
    if (project && latent) parts.push(project(latent));
    if (label && labels) parts.push(label(labels));
    const embedding = parts.reduce((sum, part) => sum.add(part));
    return head(trunk.run(image, { embedding, dropoutKey }));
  };
}

/** The reference's first and last convolution have `channels` whatever the first level has. */
function checkFirstLevel(where: string, { multipliers }: DiffuseVaeMainUnetConfig): void {
  if (multipliers[0] === 1) return;
  throw new DiffusionError(
    "option",
    `${where}: expected multipliers that start with 1, got ${multipliers.join(", ")}`,
  );
}

/** Checks the configuration and builds the network of its variant. */
function networkOf(where: string, scope: ParamScope, config: DiffuseVaeUnetConfig) {
  const inputs = config.conditional === false ? 1 : 2;
  const isReproduction = config.variant === "reproduction";
  checkFields(where, config, isReproduction ? reproductionRules : mainRules);
  const channels = inputs * (config.imageChannels ?? 3);
  if (isReproduction) {
    checkDdpmUnet(where, config);
    return { network: ddpmNetwork(scope, config, channels), stride: ddpmStride(config) };
  }
  checkAdmTrunk(where, config);
  checkFirstLevel(where, config);
  return { network: mainNetwork(scope, config, channels), stride: admStride(config) };
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function diffuseVaeUnet(
  config: DiffuseVaeUnetConfig,
  scope: ParamScope = new ParamScope(),
): DiffuseVaeUnet {
  const where = "diffuseVaeUnet";
  const { network, stride } = networkOf(where, scope, config);
  const { imageChannels: channels = 3, classes, latentWidth, conditional = true } = config;
  return {
    config,
    stride,
    parameters: scope.specs(),
    forward(input) {
      checkUnetInput({ where, channels, stride, classes, latentWidth, conditional }, input);
      const { x, lowRes } = input;
      const size = x.shape.slice(1, 3) as [number, number];
      const image = lowRes ? concat([x, resize(lowRes, { size, method: "nearest" })], 3) : x;
      return network(image, input);
    },
  };
}
