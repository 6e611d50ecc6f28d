// VQGAN: convolutional encoder and decoder around a codebook. Topology and parameter names of
// CompVis/taming-transformers taming/modules/diffusionmodules/model.py. Source: Esser et al. 2021,
// arXiv:2012.09841.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { linear } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, isObject, object } from "./check-config.js";
import type { Rule } from "./check-config.js";
import {
  checkCodecWidths,
  codecStride,
  convCodecRules,
  convDecoder,
  convEncoder,
} from "./conv-codec.js";
import type { ConvCodecConfig } from "./conv-codec.js";
import { gumbelQuantizer } from "./gumbel-quantizer.js";
import type { GumbelQuantizer, GumbelQuantizerConfig } from "./gumbel-quantizer.js";
import { vectorQuantizer } from "./vector-quantizer.js";
import type { VectorQuantizer, VectorQuantizerConfig } from "./vector-quantizer.js";

export interface VqganConfig extends ConvCodecConfig {
  /** Nearest codes, or { kind: "gumbel" } for codes drawn by a Gumbel-softmax. */
  quantizer: VectorQuantizerConfig | GumbelQuantizerConfig;
}

export interface Vqgan {
  readonly config: VqganConfig;
  /** Pixels a token covers along each axis. */
  readonly stride: number;
  readonly quantizer: VectorQuantizer;
  /** The same quantizer when it draws by a Gumbel-softmax. */
  readonly gumbel?: GumbelQuantizer;
  readonly parameters: readonly ParamSpec[];
  readonly states: readonly ParamSpec[];
  /** Image (B, H, W, 3) in [-1, 1] -> latents (B, h, w, codebook width), before quantisation. */
  encode(image: Tensor): Tensor;
  /** Quantised latents (B, h, w, codebook width) -> image (B, H, W, 3), not clamped. */
  decode(latents: Tensor): Tensor;
  /** Image -> token ids (B, h * w), i32. */
  tokenize(image: Tensor): Tensor;
  /** Token ids (B, h * w) -> image; `grid` is [h, w], square by default. */
  detokenize(tokens: Tensor, grid?: readonly [number, number]): Tensor;
  /** Name of the parameter whose gradients balance the adversarial loss. */
  readonly lastLayer: string;
}

const rules: Readonly<Record<keyof VqganConfig, Rule>> = { ...convCodecRules, quantizer: object };

const isGumbel = (config: VqganConfig["quantizer"]): config is GumbelQuantizerConfig =>
  isObject(config) && "kind" in config;

function checkConfig(config: VqganConfig): void {
  checkFields("vqgan", config, rules);
  checkCodecWidths("vqgan", config);
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function vqgan(config: VqganConfig, scope: ParamScope = new ParamScope()): Vqgan {
  checkConfig(config);
  const { latentChannels } = config;
  const width = config.quantizer.width;
  const analyse = convEncoder(scope.child("encoder"), config, latentChannels);
  const synthesise = convDecoder(scope.child("decoder"), config);
  const place = scope.child("quantize");
  const gumbel = isGumbel(config.quantizer) ? gumbelQuantizer(place, config.quantizer) : undefined;
  const quantizer = gumbel ?? vectorQuantizer(place, config.quantizer as VectorQuantizerConfig);
  const quantConv = linear(scope.child("quant_conv"), { in: latentChannels, out: width });
  const postQuantConv = linear(scope.child("post_quant_conv"), { in: width, out: latentChannels });

  const encode = (image: Tensor): Tensor => quantConv(analyse(image));
  const decode = (latents: Tensor): Tensor => synthesise(postQuantConv(latents));
  return {
    config,
    stride: codecStride(config),
    quantizer,
    ...(gumbel && { gumbel }),
    parameters: scope.specs(),
    states: scope.states(),
    encode,
    decode,
    tokenize(image) {
      const latents = encode(image);
      const [B, h, w] = latents.shape as [number, number, number, number];
      return quantizer.indices(latents).reshape([B, h * w]);
    },
    detokenize(tokens, grid) {
      const [B, N] = tokens.shape as [number, number];
      const [h, w] = grid ?? [Math.sqrt(N), Math.sqrt(N)];
      if (h * w !== N) {
        throw new DiffusionError(
          "shape",
          `vqgan: expected ${N} tokens to fill a grid, got ${h} x ${w}; pass grid`,
        );
      }
      return decode(quantizer.lookup(tokens).reshape([B, h, w, width]));
    },
    lastLayer: scope.nameOf("decoder.conv_out.weight"),
  };
}
