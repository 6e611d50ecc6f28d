// Configuration of the U-ViT and its checks.
import { DiffusionError } from "../errors.js";
import { checkFields, flag, limits, listOf, oneOf, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";

export interface UvitConfig {
  /** Channels of x; default 3. */
  imageChannels?: number;
  /** Channels of the prediction; default imageChannels. */
  outChannels?: number;
  /** Side of the patches that the first convolution reads and the last one writes; default 4. */
  patch?: number;
  /** Channels of the convolutional levels; each but the last halves the size. */
  widths: readonly number[];
  /** Residual blocks in each level of the down path; the up path has one more. Default 2. */
  residualBlocks?: number;
  /** Another halving between the last level and the transformer; default false. */
  middleDownsample?: boolean;
  /** Width, blocks and heads of the transformer. */
  width: number;
  layers: number;
  heads: number;
  /** Width of the transformer's hidden layers relative to `width`; default 4. */
  mlpRatio?: number;
  /** Blocks of the second half see the outputs of the first; needs an odd number of layers. Default false. */
  longSkip?: boolean;
  /** Side of the table of positions in tokens; other grids resize it. Default 32. */
  positionSide?: number;
  /** Channels of the condition. */
  conditionWidth: number;
  /** "add": projected and added to the tokens; "attention": the blocks attend to it. Default "add". */
  conditionKind?: "add" | "attention";
  /** Rate after attention and network of each transformer block; default 0. */
  dropout?: number;
  /** Groups of the group norms; default 32. */
  groups?: number;
}

const maxLevels = 12;

export const uvitRules: Readonly<Record<keyof UvitConfig, Rule>> = {
  imageChannels: optional(whole(1, 64)),
  outChannels: optional(whole(1, 64)),
  patch: optional(whole(1, 64)),
  widths: listOf(whole(1, limits.width), 1, maxLevels),
  residualBlocks: optional(whole(1, 64)),
  middleDownsample: optional(flag),
  width: whole(4, limits.width),
  layers: whole(1, limits.layers),
  heads: whole(1, limits.width),
  mlpRatio: optional(real(1 / 64, 64)),
  longSkip: optional(flag),
  positionSide: optional(whole(1, limits.side)),
  conditionWidth: whole(1, limits.width),
  conditionKind: optional(oneOf("add", "attention")),
  dropout: optional(real(0, 0.999)),
  groups: optional(whole(1, limits.width)),
};

/** Throws "option" for an unknown key, a wrong value or widths that do not divide. */
export function checkUvit(where: string, config: UvitConfig): void {
  checkFields(where, config, uvitRules);
  const { widths, groups = 32, width, heads, longSkip = false, layers } = config;
  const refuse = (expected: string, found: number): never => {
    throw new DiffusionError("option", `${where}: expected ${expected}, got ${found}`);
  };
  for (const channels of widths)
    if (channels % groups !== 0) refuse(`widths divisible by ${groups} groups`, channels);
  if (width % heads !== 0 || width % 4 !== 0)
    refuse(`a width divisible by 4 and by heads ${heads}`, width);
  if (longSkip && layers % 2 === 0) refuse("an odd number of layers with longSkip", layers);
}
