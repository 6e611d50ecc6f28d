// The perceptual term of a tokenizer's loss: LPIPS with published weights, which stay fixed. Source: Zhang et al. 2018,
// arXiv:1801.03924, as used by Esser et al. 2021, arXiv:2012.09841.
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { openCheckpoint } from "../checkpoint/open-checkpoint.js";
import { fitWeights, loadMappedWeights } from "../checkpoint/remap.js";
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { lpips, lpipsColourScaling, type LpipsConfig } from "../models/lpips.js";
import { tamingLpipsKeys, torchvisionVgg16Keys } from "../models/lpips.keys.js";
import type { KeyMap } from "../nn/key-map.js";
import { ParamScope } from "../nn/module.js";
import type { Tensor } from "../trace/tensor.js";

export interface PerceptualOptions extends LpipsConfig {
  /**
   * Checkpoint of LPIPS as taming-transformers keeps it (alone or in a VQGAN), or two files: VGG16 of torchvision and
   * the linear layers (vgg.pth) of PerceptualSimilarity.
   */
  weights: string | readonly string[];
  /** Beside the other reconstruction terms; default 1. */
  weight?: number;
}

export interface PerceptualTerm {
  /** A distance of two batches of pictures (B, H, W, 3) in [-1, 1] as a scalar. */
  loss: (x: Tensor, y: Tensor) => Tensor;
  weight: number;
  /** What the loss reads and nothing changes. */
  fixed?: { specs: readonly ParamSpec[]; values: ReadonlyMap<string, Float32Array> };
}

const keys: KeyMap = {
  drop: torchvisionVgg16Keys.drop,
  rules: [...tamingLpipsKeys.rules, ...torchvisionVgg16Keys.rules],
};

/** What one file has of the wanted tensors. Throws "checkpoint" for one of another shape. */
async function readPart(
  checkpoint: Checkpoint,
  specs: readonly ParamSpec[],
): Promise<Map<string, Float32Array>> {
  const origins = new Map(
    [...checkpoint.tensors.keys()].map((name) => [name.replace(/^loss\./, ""), name]),
  );
  const shapes = new Map(
    [...origins].map(([name, origin]) => [name, checkpoint.tensors.get(origin)!.shape]),
  );
  const fit = fitWeights(specs, keys, { shapes, origins });
  const present = specs.filter(({ name }) => fit.sources.has(name));
  return loadMappedWeights(checkpoint, { ...fit, specs: present, missing: [] }, true);
}

/** The term with its weights from files. Throws "checkpoint" when they are missing, damaged or of other widths. */
export async function perceptualTerm(options: PerceptualOptions): Promise<PerceptualTerm> {
  const { weights, weight = 1, ...config } = options;
  const paths = typeof weights === "string" ? [weights] : weights;
  const named = lpips(config); // as files name them
  const specs = [...named.parameters, ...named.states];
  const values = new Map(lpipsColourScaling);
  for (const path of paths) {
    using checkpoint = await openCheckpoint(path);
    for (const [name, found] of await readPart(checkpoint, specs)) values.set(name, found);
  }
  const missing = specs.filter(({ name }) => !values.has(name)).map(({ name }) => name);
  if (missing.length > 0)
    throw new DiffusionError(
      "checkpoint",
      `${paths.join(", ")}: expected the ${specs.length} tensors of LPIPS, got none of ${missing.slice(0, 3).join(", ")}${missing.length > 3 ? ` and ${missing.length - 3} more` : ""}; give VGG16 of torchvision and vgg.pth of PerceptualSimilarity, or a checkpoint that has both`,
    );
  const scope = new ParamScope("perceptual");
  const model = lpips(config, scope);
  return {
    loss: (x, y) => model.distance(x, y).mean(),
    weight,
    fixed: {
      specs: [...model.parameters, ...model.states],
      values: new Map([...values].map(([name, value]) => [scope.nameOf(name), value])),
    },
  };
}
