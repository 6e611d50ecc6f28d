// What a diffusion pipeline keeps in pipeline.json beside its components, and that the components fit each other.
import { DiffusionError } from "../errors.js";
import {
  checkFields,
  limits,
  listOf,
  object,
  oneOf,
  optional,
  real,
  shown,
  text,
  whole,
  type Rules,
} from "../models/check-config.js";
import type { ClassEmbedder } from "../models/class-embedder.js";
import type { AdmEncoderUnet } from "../models/adm-encoder-unet.js";
import type { ClipTextEncoder } from "../models/clip-text-encoder.js";
import type { Denoiser } from "../models/denoiser.js";
import {
  checkDiffusionProcess,
  learnedVariance,
  type DiffusionProcess,
} from "../models/diffusion-process.js";
import type { DiffuseVae } from "../models/diffusevae-vae.js";
import type { FirstStage } from "../models/first-stage.js";
import { checkDiffusionSampling, type DiffusionSampling } from "../trainers/diffusion-sampling.js";

/** How the words of a prompt are filled up: with token 0 (OpenAI's code) or with the end token (transformers). */
export type TextPadding = "zero" | "end";

export interface DiffusionSettings {
  process: DiffusionProcess;
  /** Height and width of the state: latents with a first stage, else pixels. */
  size: readonly [number, number];
  /** With a first stage: factor of its latents, 1 / their deviation. */
  latentScale?: number;
  /** Names of the classes; default their numbers. */
  classes?: readonly string[];
  /** With a text encoder. */
  text?: { padding: TextPadding };
  defaults: DiffusionSampling;
}

/** The networks of a pipeline. */
export interface DiffusionNetworks {
  denoiser: Denoiser;
  /** Pictures to latents and back, scaled. */
  firstStage?: FirstStage;
  textEncoder?: ClipTextEncoder;
  classEmbedder?: ClassEmbedder;
  /** First of two stages whose pictures the denoiser refines. */
  vae?: DiffuseVae;
  /** Of noisy states, whose gradient guides them (arXiv:2105.05233, section 4). */
  classifier?: AdmEncoderUnet;
}

const rules: Rules = {
  process: object,
  size: listOf(whole(1, limits.side), 2, 2),
  latentScale: optional(real(1e-6, 1e6)),
  classes: optional(listOf(text(256), 1, limits.width)),
  text: optional(object),
  defaults: object,
};

const fault = (what: string, expected: unknown, got: unknown): DiffusionError =>
  new DiffusionError(
    "option",
    `${what}: expected ${typeof expected === "string" ? expected : shown(expected)}, got ${typeof got === "string" ? got : shown(got)}`,
  );

/** Number of classes that a pipeline can be asked for; 0: none. */
export const classCount = (networks: DiffusionNetworks): number =>
  toldClasses(networks) ?? networks.classifier?.config.outputs ?? 0;

/** Number of classes that the networks themselves are told. */
export const toldClasses = ({
  denoiser,
  classEmbedder,
  vae,
}: DiffusionNetworks): number | undefined =>
  classEmbedder?.config.classes ?? denoiser.classes ?? vae?.config.classes;

function checkClassifier(process: DiffusionProcess, networks: DiffusionNetworks): void {
  const { classifier, denoiser, vae } = networks;
  if (!classifier) return;
  const { imageChannels = 3, outputs } = classifier.config;
  const told = toldClasses(networks) ?? outputs;
  if (process.kind !== "gaussian" || vae)
    throw fault("components", "no classifier with a path or a vae", "one");
  if (imageChannels !== denoiser.channels || outputs !== told)
    throw fault("classifier", `${told} classes of states of ${denoiser.channels} channels`, `${outputs} and ${imageChannels}`); // prettier-ignore
}

function checkSize(size: readonly [number, number], { denoiser }: DiffusionNetworks): void {
  const { stride, size: only, name } = denoiser;
  if (stride === undefined && only && only.join() !== size.join())
    throw fault("settings.size", [...only], size);
  if (stride !== undefined && size.some((side) => side % stride !== 0))
    throw fault("settings.size", `sides divisible by ${stride} for ${name}`, size);
}

function checkChannels(process: DiffusionProcess, networks: DiffusionNetworks): void {
  const { denoiser, firstStage } = networks;
  const { channels, outChannels } = denoiser;
  const wanted = (learnedVariance(process) ? 2 : 1) * channels;
  if (outChannels !== wanted)
    throw fault(
      "settings.process.variance",
      outChannels === 2 * channels ? "learned or learnedRange" : "fixedSmall or fixedLarge",
      `a denoiser of ${channels} channels that predicts ${outChannels}`,
    );
  if (firstStage && firstStage.channels !== channels)
    throw fault("firstStage", `latents of ${channels} channels`, firstStage.channels);
  if (!firstStage && channels !== 1 && channels !== 3)
    throw fault("components", `a firstStage for states of ${channels} channels`, "none");
}

function checkConditions(networks: DiffusionNetworks): void {
  const { denoiser, textEncoder, classEmbedder, vae } = networks;
  const { contextWidth, pair, tokenizer, latentWidth, classes, name } = denoiser;
  const context = textEncoder?.config.width ?? classEmbedder?.config.width;
  if (contextWidth !== context)
    throw fault(
      "components",
      contextWidth === undefined
        ? `no text or class encoder for ${name} without context`
        : `a textEncoder or classEmbedder of width ${contextWidth}`,
      context === undefined ? "none" : `one of width ${context}`,
    );
  if (textEncoder && classEmbedder)
    throw fault("components", "a textEncoder or a classEmbedder", "both");
  if (vae && (pair !== true || tokenizer))
    throw fault("components", `no vae for ${name}, which reads no pair`, "one");
  if (latentWidth !== undefined && vae?.latentWidth !== latentWidth)
    throw fault("components", `a vae with latents of ${latentWidth}`, vae?.latentWidth ?? "none");
  const told = vae?.config.classes;
  if (classes !== undefined && told !== undefined && told !== classes)
    throw fault("vae", `${classes} classes`, told);
}

/** Whether the model knows an empty condition. */
export const canGuide = ({ denoiser, textEncoder, classEmbedder, vae }: DiffusionNetworks): boolean =>
  [denoiser.nullClass !== undefined, textEncoder, classEmbedder?.config.nullClass, vae, denoiser.tokenizer].some(Boolean); // prettier-ignore

/** Throws "option" for sampling that these networks cannot do. */
export function checkPossible(
  where: string,
  { guidanceScale, guidanceChannels = 1, classifierScale, clamp = false }: DiffusionSampling,
  networks: DiffusionNetworks,
): void {
  const { channels } = networks.denoiser;
  if (guidanceScale !== 1 && !canGuide(networks))
    throw fault(where, "guidanceScale 1 of a model that knows no empty condition", guidanceScale);
  if (guidanceChannels > channels)
    throw fault(where, `guidanceChannels up to ${channels}`, guidanceChannels);
  if (classifierScale && !networks.classifier)
    throw fault(where, "classifierScale 0 of a model without a classifier", classifierScale);
  if (clamp !== false && networks.firstStage)
    throw fault(where, "clamp false of a model on latents, which have no bounds", clamp);
}

/** Settings of a pipeline.json, and that they fit the networks. Throws "option". */
export function checkDiffusionSettings(settings: unknown, networks: DiffusionNetworks): void {
  checkFields("settings", settings, rules);
  const { process, size, latentScale, classes, text: words, defaults } = settings as DiffusionSettings; // prettier-ignore
  checkDiffusionProcess("settings.process", process);
  checkSize(size, networks);
  checkChannels(process, networks);
  checkConditions(networks);
  checkClassifier(process, networks);
  if (process.kind === "gaussian" && process.formulation === 2 && !networks.vae)
    throw fault("settings.process.formulation", "1 without a vae", 2);
  const count = classCount(networks);
  if (classes && classes.length !== count)
    throw fault("settings.classes", `${count} names`, classes.length);
  if ((latentScale !== undefined) !== (networks.firstStage !== undefined))
    throw fault("settings.latentScale", "one exactly with a firstStage", latentScale);
  if ((words !== undefined) !== (networks.textEncoder !== undefined))
    throw fault("settings.text", "one exactly with a textEncoder", words);
  if (words) checkFields("settings.text", words, { padding: oneOf("zero", "end") });
  checkDiffusionSampling("settings.defaults", defaults, process);
  checkPossible("settings.defaults", defaults, networks);
}
