// Every network that denoises continuous states, seen through one contract: what it reads beside the noisy state and its
// time, and which states it was built for. One entry a network.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import type { Tensor } from "../trace/tensor.js";
import { admUnet, type AdmUnetConfig } from "./adm-unet.js";
import { shown } from "./check-config.js";
import { ddpmUnet, type DdpmUnetConfig } from "./ddpm-unet.js";
import { diffuseVaeUnet, type DiffuseVaeUnetConfig } from "./diffusevae-unet.js";
import { dit, type DitConfig } from "./dit.js";
import { divae, type Divae, type DivaeConfig } from "./divae.js";
import { fit, type FitConfig } from "./fit.js";
import { latentDiffusionUnet, type LatentDiffusionUnetConfig } from "./latent-diffusion-unet.js";

/** What a denoiser reads; the contract says what must be there. */
export interface DenoiserInput {
  /** (B, H, W, channels). */
  x: Tensor;
  /** As the process tells them, f32 (B). */
  times: Tensor;
  /** i32 (B): with classes. */
  labels?: Tensor;
  /** Tokens of a condition (B, M, contextWidth). */
  context?: Tensor;
  /** A paired image (B, H, W, channels), with `pair`. */
  pair?: Tensor;
  /** A vector (B, latentWidth). */
  latent?: Tensor;
  /** Codes of a tokenizer as vectors (B, h, w, codeWidth). */
  codes?: Tensor;
  /** f32 (B, h, w): 1 where a code is hidden; default none is. */
  hidden?: Tensor;
  /** Key i32 (B, 4): dropout acts when it is given, where a network has any. */
  dropoutKey?: Tensor;
}

/** A network as process, sampler and pipeline see it. */
export interface Denoiser {
  readonly name: DenoiserName;
  readonly config: object;
  readonly parameters: readonly ParamSpec[];
  readonly states: readonly ParamSpec[];
  /** Channels of the state. */
  readonly channels: number;
  /** Channels of the output: twice as many with learned variances. */
  readonly outChannels: number;
  /** Height and width of the states of its training; undefined where the configuration does not say. */
  readonly size?: readonly [number, number];
  /** Sides of the state are multiples of this; undefined: `size` is the only one. */
  readonly stride?: number;
  /** Number of classes that it is told as labels. */
  readonly classes?: number;
  /** Label of "no class", for guidance. */
  readonly nullClass?: number;
  /** Width of the tokens of a condition that it attends to. */
  readonly contextWidth?: number;
  /** Reads a paired image beside the state. */
  readonly pair?: boolean;
  /** Width of a vector that it is told. */
  readonly latentWidth?: number;
  /** The tokenizer that it is the decoder of. */
  readonly tokenizer?: Divae;
  forward(input: DenoiserInput): Tensor;
}

type Described = Omit<Denoiser, "name" | "config" | "states"> & Partial<Pick<Denoiser, "states">>;

const square = (side: number | undefined): { size?: [number, number] } =>
  side === undefined ? {} : { size: [side, side] };

const labelled = (classes: number | undefined, hasNull = false): Partial<Denoiser> => ({
  ...(classes !== undefined && { classes }),
  ...(classes !== undefined && hasNull && { nullClass: classes }),
});

function ofDit(config: DitConfig): Described {
  const { parameters, forward } = dit(config);
  const { channels = 4, sigma = "learned", size, classes, nullClass = true } = config;
  return {
    parameters,
    channels,
    outChannels: sigma === "learned" ? 2 * channels : channels,
    size,
    ...labelled(classes, nullClass),
    forward: ({ x, times, labels }) => forward({ x, times, labels: labels! }),
  };
}

function ofFit(config: FitConfig): Described {
  const { parameters, forward } = fit(config);
  const { channels = 4, sigma = "none", patch, classes, nullClass = true } = config;
  return {
    parameters,
    channels,
    outChannels: sigma === "learned" ? 2 * channels : channels,
    stride: patch,
    ...labelled(classes, nullClass),
    forward: ({ x, times, labels }) => forward({ x, times, labels: labels! }),
  };
}

/** What the U-Nets on pixels share. */
const pixels = (config: { imageChannels?: number; outChannels?: number; resolution?: number }) => {
  const { imageChannels: channels = 3, outChannels = channels, resolution } = config;
  return { channels, outChannels, ...square(resolution) };
};

function ofAdm(config: AdmUnetConfig): Described {
  const { parameters, stride, forward } = admUnet(config);
  return {
    ...{ parameters, stride, ...pixels(config), ...labelled(config.classes) },
    ...(config.superResolution && { pair: true }),
    forward: ({ pair, ...input }) => forward({ ...input, ...(pair && { lowRes: pair }) }),
  };
}

function ofDdpm(config: DdpmUnetConfig): Described {
  const { parameters, stride, forward } = ddpmUnet(config);
  const { classes, latentWidth } = config;
  return {
    ...{ parameters, stride, ...pixels(config), ...labelled(classes) },
    ...(latentWidth !== undefined && { latentWidth }),
    forward,
  };
}

function ofDiffuseVae(config: DiffuseVaeUnetConfig): Described {
  const { parameters, stride, forward } = diffuseVaeUnet(config);
  const { classes, latentWidth, conditional = true } = config;
  return {
    ...{ parameters, stride, ...pixels(config), ...labelled(classes) },
    ...(latentWidth !== undefined && { latentWidth }),
    ...(conditional && { pair: true }),
    forward: ({ pair, ...input }) => forward({ ...input, ...(pair && { lowRes: pair }) }),
  };
}

function ofLatentDiffusion(config: LatentDiffusionUnetConfig): Described {
  const { parameters, stride, forward } = latentDiffusionUnet(config);
  const { inChannels: channels, outChannels, resolution, classes, transformer, codes } = config;
  if (codes !== undefined || channels > outChannels)
    throw new DiffusionError(
      "option",
      `denoiser: expected a latent-diffusion-unet that predicts what it reads, got ${codes === undefined ? `${channels} channels in and ${outChannels} out` : "one that predicts codes"}`,
    );
  return {
    ...{ parameters, stride, channels, outChannels, ...square(resolution), ...labelled(classes) },
    ...(transformer && { contextWidth: transformer.contextWidth }),
    forward,
  };
}

function ofDivae(config: DivaeConfig): Described {
  const model = divae(config);
  const { imageChannels: channels = 3, encoder, labels } = config;
  if (labels !== undefined)
    throw new DiffusionError(
      "option",
      `denoiser: expected a divae of pictures, got one of maps with ${labels} classes`,
    );
  const { parameters, states, decoder } = model;
  return {
    ...{ parameters, states, channels, outChannels: channels, tokenizer: model },
    ...{ stride: leastCommon(decoder.stride, model.patch), ...square(encoder.resolution) },
    forward: ({ codes, ...input }) => model.denoise({ ...input, condition: codes! }),
  };
}

function leastCommon(a: number, b: number): number {
  let multiple = a;
  while (multiple % b !== 0) multiple += a;
  return multiple;
}

const denoisers = {
  dit: ofDit,
  fit: ofFit,
  "adm-unet": ofAdm,
  "ddpm-unet": ofDdpm,
  "diffusevae-unet": ofDiffuseVae,
  "latent-diffusion-unet": ofLatentDiffusion,
  divae: ofDivae,
} as const satisfies Readonly<Record<string, (config: never) => Described>>;

export type DenoiserName = keyof typeof denoisers;

export const denoiserNames = Object.keys(denoisers) as DenoiserName[];

export const isDenoiser = (name: unknown): name is DenoiserName =>
  typeof name === "string" && Object.hasOwn(denoisers, name);

/** Builds a network by name. Throws "option" for an unknown name or a configuration that is not its own. */
export function denoiser(name: string, config: object): Denoiser {
  if (!isDenoiser(name))
    throw new DiffusionError(
      "option",
      `denoiser: expected a network among ${denoiserNames.join(", ")}, got ${shown(name)}`,
    );
  const build: (config: never) => Described = denoisers[name];
  return { name, config, states: [], ...build(config as never) };
}
