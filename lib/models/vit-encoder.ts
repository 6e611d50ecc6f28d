// Vision transformer that turns an image into a grid of features, the encoder of 4M's tokenizers. Topology and parameter
// names of apple/ml-4m fourm/vq/models/vit_models.py (ViTEncoder). Source: Dosovitskiy et al. 2021, arXiv:2010.11929,
// section 3.1; the last network: Yu et al. 2022, arXiv:2110.04627, section 3.1.
import { DiffusionError, formatShape } from "../errors.js";
import { DropoutSites } from "../nn/dropout.js";
import { fusedAttention } from "../nn/fused-attention.js";
import { xavierLinear, xavierUniform, zeros } from "../nn/init.js";
import { mlp } from "../nn/mlp.js";
import type { ParamScope } from "../nn/module.js";
import { layerNorm } from "../nn/norm.js";
import { patchEmbedding } from "../nn/patches.js";
import { gridSinusoids } from "../nn/positions.js";
import { gelu, resize, tanh } from "../trace/functions.js";
import type { ResizeMethod } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { checkFields, flag, limits, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";

export interface VitEncoderConfig {
  /** Side of the images that the table of positions is made for; other grids resize it. */
  resolution: number;
  /** Channels of the input; default 3. */
  imageChannels?: number;
  /** Side of a patch; 1 for features that are tokens already. */
  patch: number;
  width: number;
  layers: number;
  heads: number;
  /** Width of the hidden layers relative to `width`; default 4. */
  mlpRatio?: number;
  /** A residual network with tanh after the blocks; default false. */
  postMlp?: boolean;
  /** Rate after attention and network of each block; default 0. */
  dropout?: number;
}

export const vitEncoderRules: Readonly<Record<keyof VitEncoderConfig, Rule>> = {
  resolution: whole(1, limits.side),
  imageChannels: optional(whole(1, limits.width)),
  patch: whole(1, limits.side),
  width: whole(4, limits.width),
  layers: whole(0, limits.layers),
  heads: whole(1, limits.width),
  mlpRatio: optional(real(1 / 64, 64)),
  postMlp: optional(flag),
  dropout: optional(real(0, 0.999)),
};

/**
 * Sinusoids of a square grid of `side`, the row in the first half of the features, resized to another grid: (1, h w, D).
 * Constants of the graph; the reference keeps them as a frozen parameter of the same values.
 */
export function resizedPositions(
  t: Trace,
  { side, grid: [h, w], width }: { side: number; grid: readonly [number, number]; width: number },
  method: ResizeMethod,
): Tensor {
  const table = gridSinusoids(t, { grid: [side, side], width, first: "row" });
  const map = resize(table.reshape([1, side, side, width]), { size: [h, w], method });
  return map.reshape([1, h * w, width]);
}

/** Initial values of the projections of self-attention: query, key and value each as a layer of its own. */
export const attentionInits = (width: number) => ({
  weightInit: xavierUniform(width, width),
  biasInit: zeros,
});

const normEps = 1e-6;

const mlpOptions = ({ width, mlpRatio = 4 }: { width: number; mlpRatio?: number }) => {
  const hidden = Math.floor(width * mlpRatio);
  return { in: width, hidden, ...xavierLinear(width, hidden) };
};

function block(scope: ParamScope, config: VitEncoderConfig, sites: DropoutSites) {
  const { width, heads } = config;
  const norm1 = layerNorm(scope.child("norm1"), { width, eps: normEps });
  const mix = fusedAttention(scope.child("attn"), { width, heads, ...attentionInits(width) });
  const norm2 = layerNorm(scope.child("norm2"), { width, eps: normEps });
  const network = mlp(scope.child("mlp"), gelu, mlpOptions(config));
  const [first, second] = [sites.next(), sites.next()];
  return (x: Tensor, key?: Tensor): Tensor => {
    const mixed = x.add(first(mix(norm1(x)), key));
    const y = mixed.add(second(network(norm2(mixed)), key));
    x.trace.record(scope.path, y);
    return y;
  };
}

/** Throws "option" for an unknown key, a wrong value or widths that do not divide. */
export function checkVitEncoder(where: string, config: VitEncoderConfig): void {
  checkFields(where, config, vitEncoderRules);
  const { width, heads, resolution, patch } = config;
  if (width % heads === 0 && width % 4 === 0 && resolution % patch === 0) return;
  throw new DiffusionError(
    "option",
    `${where}: expected a width divisible by 4 and by heads ${heads} and a resolution divisible by patch ${patch}, got ${width} and ${resolution}`,
  );
}

/** (B, H, W, C) -> (B, H / patch, W / patch, width). Throws "shape" for sides that patches do not fill. */
export function vitEncoder(
  scope: ParamScope,
  config: VitEncoderConfig,
): (image: Tensor, dropoutKey?: Tensor) => Tensor {
  const { resolution, imageChannels: channels = 3, patch, width, layers } = config;
  const { postMlp = false, dropout = 0 } = config;
  const sites = new DropoutSites(dropout);
  const embed = patchEmbedding(scope, { patch, channels, width });
  const blocks = Array.from({ length: layers }, (_, i) =>
    block(scope.child("blocks").child(i), config, sites),
  );
  const lastNorm = postMlp && layerNorm(scope.child("norm_mlp"), { width, eps: normEps });
  const lastMlp = postMlp && mlp(scope.child("post_mlp"), tanh, mlpOptions(config));
  return (image, key) => {
    const [B, H, W] = image.shape as [number, number, number];
    if (image.rank !== 4 || image.shape[3] !== channels || H % patch !== 0 || W % patch !== 0) {
      throw new DiffusionError(
        "shape",
        `vitEncoder: expected (B, H, W, ${channels}) with sides divisible by ${patch}, got ${formatShape(image.shape)}`,
      );
    }
    const grid = [H / patch, W / patch] as const;
    const positions = { side: resolution / patch, grid, width };
    let x = embed(image).add(resizedPositions(image.trace, positions, "bicubic"));
    for (const run of blocks) x = run(x, key);
    if (lastNorm && lastMlp) x = x.add(lastMlp(lastNorm(x)));
    const y = x.reshape([B, ...grid, width]);
    image.trace.record(scope.path, y);
    return y;
  };
}
