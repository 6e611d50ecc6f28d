// How checkpoints of the DDPM U-Net are recognised: ermongroup/ddim and the ports of the TensorFlow
// originals.
import { limits, whole } from "./check-config.js";
import { ddpmUnetConfigs } from "./ddpm-configs.js";
import { ddpmUnetKeys } from "./ddpm-unet.keys.js";
import { ddpmUnet } from "./ddpm-unet.js";
import type { DdpmUnetConfig } from "./ddpm-unet.js";
import { classesOf, recognisable } from "./adm.family.js";
import type { Fact, FactValues, Family, ShapeView } from "./family.js";

export const ddpmFacts = {
  resolution: { what: "side of the training images in pixels", rule: whole(1, limits.side) },
  groups: { what: "groups of the group norms", rule: whole(1, limits.width), fixed: 32 },
} as const satisfies Record<string, Fact>;

export const latentOf = (shapes: ShapeView): { latentWidth?: number } =>
  shapes.has("proj.0.weight") ? { latentWidth: shapes.extent("proj.0.weight", 1) } : {};

/** Everything that shapes and facts show, for pictures of `imageChannels`. */
export function configureDdpm(
  shapes: ShapeView,
  given: FactValues,
  imageChannels: number,
): DdpmUnetConfig {
  const resolution = given["resolution"] as number;
  const channels = shapes.extent("conv_in.weight", 0);
  const levels = Array.from({ length: shapes.count(/^down\.(\d+)\./) }, (_, l) => l);
  return {
    resolution,
    imageChannels,
    outChannels: shapes.extent("conv_out.weight", 0),
    channels,
    multipliers: levels.map((l) =>
      shapes.ratio(
        shapes.extent(`down.${l}.block.0.conv1.weight`, 0),
        channels,
        `the multiplier of level ${l}`,
      ),
    ),
    residualBlocks: shapes.count(/^down\.0\.block\.(\d+)\./),
    attentionResolutions: levels
      .filter((l) => shapes.has(`down.${l}.attn.0.norm.weight`))
      .map((l) => Math.floor(resolution / 2 ** l)),
    convResample: levels.length < 2 || shapes.has("down.0.downsample.conv.weight"),
    groups: given["groups"] as number,
    ...classesOf(shapes),
    ...latentOf(shapes),
  };
}

export const ddpmMarks = [
  /^temb\.dense\.0\.weight$/,
  /^down\.0\.block\.0\.temb_proj\.weight$/,
  /^up\.0\./,
  /^conv_out\.weight$/,
];

export const ddpmFamilies: readonly Family[] = [
  {
    name: "ddpm-unet",
    title: "DDPM U-Net (ermongroup/ddim)",
    model: "ddpm-unet",
    role: "model",
    places: [/^module\./],
    marks: ddpmMarks,
    absent: [/^proj\./],
    facts: {
      ...ddpmFacts,
      heads: { what: "attention heads", rule: whole(1, limits.width), fixed: 1 },
    },
    configure: (shapes, given) => ({
      ...configureDdpm(shapes, given, shapes.extent("conv_in.weight", 1)),
      heads: given["heads"] as number,
    }),
    keys: () => ddpmUnetKeys,
    build: (config) => ddpmUnet(config as DdpmUnetConfig),
    published: recognisable(ddpmUnetConfigs),
  },
];
