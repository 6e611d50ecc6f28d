// Tokenizer whose decoder is a diffusion model: a vision transformer, a codebook, and one of two denoisers that see the
// codes. Topology of apple/ml-4m fourm/vq/vqvae.py (DiVAE), the only public one with weights; the paper itself left no
// code. Sources: Shi et al. 2022, arXiv:2206.00386; Mizrahi et al. 2023, arXiv:2312.06647.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { embedding } from "../nn/embedding.js";
import { linear } from "../nn/linear.js";
import { normal } from "../nn/init.js";
import { ParamScope } from "../nn/module.js";
import type { Tensor } from "../trace/tensor.js";
import {
  checkFields,
  isObject,
  limits,
  object,
  optional,
  shown,
  whole,
  without,
} from "./check-config.js";
import type { Rule } from "./check-config.js";
import type { DecoderInput, DiffusionDecoder } from "./diffusion-decoder.js";
import { patchedUnet } from "./patched-unet.js";
import type { PatchedUnetConfig } from "./patched-unet.js";
import { sphericalCodebook } from "./spherical-codebook.js";
import type { SphericalCodebook, SphericalCodebookConfig } from "./spherical-codebook.js";
import { uvit } from "./uvit.js";
import type { UvitConfig } from "./uvit-config.js";
import { checkVitEncoder, vitEncoder, vitEncoderRules } from "./vit-encoder.js";
import type { VitEncoderConfig } from "./vit-encoder.js";

/** Channels of image and condition come from the tokenizer. */
type OfTokenizer = "imageChannels" | "outChannels" | "conditionWidth";

export type DivaeDecoderConfig =
  | ({ kind: "unet" } & Omit<PatchedUnetConfig, OfTokenizer>)
  | ({ kind: "uvit" } & Omit<UvitConfig, OfTokenizer>);

export interface DivaeConfig {
  /** Channels of a picture; default 3. */
  imageChannels?: number;
  /** Classes of a segmentation map, which are embedded to imageChannels; default none: pictures. */
  labels?: number;
  encoder: Omit<VitEncoderConfig, "imageChannels">;
  quantizer: SphericalCodebookConfig;
  decoder: DivaeDecoderConfig;
}

export interface Divae {
  readonly config: DivaeConfig;
  /** Pixels a token covers along each axis. */
  readonly patch: number;
  readonly quantizer: SphericalCodebook;
  readonly decoder: DiffusionDecoder;
  readonly parameters: readonly ParamSpec[];
  readonly states: readonly ParamSpec[];
  /** Image (B, H, W, C) in [-1, 1], or classes i32 (B, H, W) -> latents (B, h, w, D), before quantisation. */
  encode(image: Tensor, dropoutKey?: Tensor): Tensor;
  /** Image -> token ids (B, h, w), i32. */
  tokenize(image: Tensor): Tensor;
  /** Prediction for a noisy image under quantised latents (B, h, w, D): of the noise, the image or v, as trained. */
  denoise(input: DecoderInput): Tensor;
}

const rules: Readonly<Record<keyof DivaeConfig, Rule>> = {
  imageChannels: optional(whole(1, limits.width)),
  labels: optional(whole(1, limits.width)),
  encoder: object,
  quantizer: object,
  decoder: object,
};

function buildDecoder(scope: ParamScope, config: DivaeConfig): DiffusionDecoder {
  const { kind, ...rest } = config.decoder;
  const channels = {
    imageChannels: config.imageChannels ?? 3,
    conditionWidth: config.quantizer.width,
  };
  if (kind === "unet")
    return patchedUnet({ ...(rest as Omit<PatchedUnetConfig, OfTokenizer>), ...channels }, scope);
  return uvit({ ...(rest as Omit<UvitConfig, OfTokenizer>), ...channels }, scope);
}

function check(config: DivaeConfig): void {
  checkFields("divae", config, rules);
  checkFields("divae.encoder", config.encoder, without(vitEncoderRules, "imageChannels"));
  checkVitEncoder("divae.encoder", config.encoder);
  const decoder: unknown = config.decoder;
  const kind = isObject(decoder) ? decoder["kind"] : undefined;
  if (kind !== "unet" && kind !== "uvit") {
    throw new DiffusionError(
      "option",
      `divae.decoder: expected kind to be one of unet, uvit, got ${shown(kind)}`,
    );
  }
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function divae(config: DivaeConfig, scope: ParamScope = new ParamScope()): Divae {
  check(config);
  const { imageChannels = 3, labels } = config;
  const colours =
    labels &&
    embedding(scope.child("cls_emb"), { count: labels, width: imageChannels, init: normal(1) });
  const analyse = vitEncoder(scope.child("encoder"), { ...config.encoder, imageChannels });
  const project = linear(scope.child("quant_proj"), {
    in: config.encoder.width,
    out: config.quantizer.width,
  });
  const quantizer = sphericalCodebook(scope.child("quantize"), config.quantizer);
  const decoder = buildDecoder(scope.child("decoder"), config);
  const encode = (image: Tensor, key?: Tensor): Tensor =>
    project(analyse(colours ? colours(image) : image, key));
  return {
    config,
    patch: config.encoder.patch,
    quantizer,
    decoder,
    parameters: scope.specs(),
    states: scope.states(),
    encode,
    tokenize: (image) => quantizer.indices(encode(image)),
    denoise: (input) => decoder.forward(input),
  };
}
