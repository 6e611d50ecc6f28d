// FiT: DiT for pictures of any size. Tokens know their place by rotation, norms steady queries and
// keys, the MLP is gated, and most of the modulation is shared by the blocks. Topology and parameter
// names of whlzy/FiT fit/model/fit_model.py. Sources: Lu et al. 2024, arXiv:2402.12376 (FiT); Wang
// et al. 2024, arXiv:2410.13925 (FiTv2).
import { DiffusionError, formatShape } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { adaLnZeroBlock, blockVectors, finalLayer, finalVectors } from "../nn/adaln-zero.js";
import type { AdaLnZeroBlock, MakeNorm } from "../nn/adaln-zero.js";
import { fusedAttention } from "../nn/fused-attention.js";
import type { Heads } from "../nn/fused-attention.js";
import { ones, xavierLinear, zeros } from "../nn/init.js";
import type { LinearInits } from "../nn/init.js";
import { linear } from "../nn/linear.js";
import type { Layer } from "../nn/linear.js";
import { mlp, swiglu } from "../nn/mlp.js";
import { ParamScope } from "../nn/module.js";
import { fromPatches, toPatches } from "../nn/patches.js";
import { gridRotation, placeRotation, rotate } from "../nn/rotary.js";
import type { Rotation, RotaryOptions, RotaryStretch } from "../nn/rotary.js";
import { equal, geluTanh, layerNorm, rmsNorm, silu, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, flag, limits, object, oneOf, optional, real, whole } from "./check-config.js";
import type { Rule, Rules } from "./check-config.js";
import type { ClassInput, GuidanceOptions } from "./class-guidance.js";
import {
  classCondition,
  classGuidance,
  classTransformerRules,
  type ClassTransformerConfig,
} from "./class-transformer.js";

/** Norm of features; the scaled ones have a weight. */
export type HeadNorm = "none" | "layer" | "scaledLayer" | "rms" | "scaledRms";

/** A head's width is divisible by 4. */
export interface FitConfig extends ClassTransformerConfig {
  /** Gated with two thirds of the hidden width, gated with all of it, or plain; default "swiglu". */
  mlp?: "swiglu" | "wideSwiglu" | "gelu";
  /** Twice the channels in the output, the second half the variance; default "none". */
  sigma?: "learned" | "none";
  /**
   * Where the vectors of a block come from: a narrow layer of its own plus a wide one that all share
   * ("lora"), a layer of its own ("linear"), or a gated network of its own ("swiglu"). Default "lora".
   */
  modulation?: "lora" | "linear" | "swiglu";
  /** Width of the narrow layer; default a quarter of the width. */
  modulationRank?: number;
  /** Before attention, MLP and the last layer; default "layer", which every release has. */
  norm?: HeadNorm;
  /** Of the heads' queries and keys; default "layer" each. */
  queryNorm?: HeadNorm;
  keyNorm?: HeadNorm;
  /** Biases of the attention's first projection, the MLP, the modulation; default true each. */
  qkvBias?: boolean;
  mlpBias?: boolean;
  modulationBias?: boolean;
  rotary?: FitRotary;
  /** t becomes s t / (1 + (s - 1) t), at most 1, before it is embedded; default 1: as it is. */
  timeShift?: number;
}

export interface FitRotary extends Omit<RotaryOptions, "width"> {
  /** Turn the values too; default false. */
  values?: boolean;
}

/** x (B, H, W, channels) of any size that patches divide; times from 0 (noise) to 1 (data). */
export type FitInput = ClassInput;

/** Sequences of patches of pictures of several sizes, filled up to one length. */
export interface FitTokens extends Omit<FitInput, "x"> {
  /** (B, N, channels patch^2): the values of a patch channel by channel. */
  tokens: Tensor;
  /** Row and column of each token, i32 (B, N), below 256. */
  rows: Tensor;
  columns: Tensor;
  /** (B, N): a number for each picture of a sequence, 0 for padding; tokens see their own number. */
  mask: Tensor;
}

export interface Fit {
  readonly config: FitConfig;
  readonly parameters: readonly ParamSpec[];
  /** (B, H, W, channels), or twice the channels with learned sigma. */
  forward(input: FitInput): Tensor;
  /** (B, N, out channels patch^2), zero at the padding. */
  forwardTokens(input: FitTokens): Tensor;
  /** The guided output, from one pass over twice the batch; needs the null class. */
  guided(input: Omit<FitInput, "isNull">, options: GuidanceOptions): Tensor;
}

const headNorm = oneOf("none", "layer", "scaledLayer", "rms", "scaledRms");

/** What each key of a configuration may be. */
export const fitRules: Readonly<Record<keyof FitConfig, Rule>> = {
  ...classTransformerRules,
  mlp: optional(oneOf("swiglu", "wideSwiglu", "gelu")),
  sigma: optional(oneOf("learned", "none")),
  modulation: optional(oneOf("lora", "linear", "swiglu")),
  modulationRank: optional(whole(1, limits.width)),
  norm: optional(headNorm),
  queryNorm: optional(headNorm),
  keyNorm: optional(headNorm),
  qkvBias: optional(flag),
  mlpBias: optional(flag),
  modulationBias: optional(flag),
  rotary: optional(object),
  timeShift: optional(real(1 / 64, 64)),
};

const stretches: readonly RotaryStretch[] = ["none", "linear", "ntk", "ntkRoot", "ntkRootArea", "ntkByParts", "yarn"]; // prettier-ignore

const rotaryRules: Rules = {
  theta: optional(real(1, 1e9)),
  stretch: optional(oneOf(...stretches)),
  trainedSide: optional(whole(2, limits.side)),
  decouple: optional(flag),
  values: optional(flag),
} satisfies Readonly<Record<keyof FitRotary, Rule>>;

/** Places that a table of rotations holds, as many as the reference's. */
const kPlaces = 256;
/** Large enough to vanish in a softmax, small enough to stay finite in float16. */
const kHidden = -3e4;
const normEps = 1e-6;

const zeroLinear: LinearInits = () => ({ weightInit: zeros, biasInit: zeros });

function checkConfig(config: FitConfig): void {
  checkFields("fit", config, fitRules);
  const { width, heads, rotary = {} } = config;
  checkFields("fit: rotary", rotary, rotaryRules);
  if (width % heads !== 0 || (width / heads) % 4 !== 0) {
    throw new DiffusionError(
      "option",
      `fit: expected a width of ${heads} heads with a width divisible by 4 each, got ${width}`,
    );
  }
  if ((rotary.stretch ?? "none") !== "none" && rotary.trainedSide === undefined) {
    throw new DiffusionError(
      "option",
      `fit: expected rotary.trainedSide with stretch ${rotary.stretch}, got none`,
    );
  }
}

/** (..., width) -> the same, normalised. */
function featureNorm(scope: ParamScope, kind: HeadNorm, width: number): Layer {
  const isScaled = kind === "scaledLayer" || kind === "scaledRms";
  const weight = isScaled ? scope.param("weight", [width], ones) : undefined;
  return (x) => {
    if (kind === "none") return x;
    const t = x.trace;
    const unit =
      kind === "layer" || kind === "scaledLayer"
        ? layerNorm(x, { eps: normEps })
        : rmsNorm(x, t.constant(1, [width]), { eps: normEps });
    const y = weight ? unit.mul(t.parameter(weight)) : unit;
    t.record(scope.path, y);
    return y;
  };
}

/** The norm of whole tokens; undefined: the default. */
const tokenNorm = ({ norm = "layer", width }: FitConfig): { norm?: MakeNorm } =>
  norm === "layer" ? {} : { norm: (scope) => featureNorm(scope, norm, width) };

/** (B, width) -> (B, vectors width), zero at the start. */
function modulation(scope: ParamScope, config: FitConfig, vectors: number, hidden: number): Layer {
  const { width, modulation: kind = "lora", modulationBias: bias = true } = config;
  const out = vectors * width;
  if (kind === "swiglu")
    return swiglu(scope, { in: width, hidden, out, bias, lastInits: zeroLinear });
  const isNarrow = kind === "lora" && vectors === blockVectors;
  const rank = config.modulationRank ?? Math.floor(width / 4);
  const narrow = isNarrow
    ? linear(scope.child(1), { in: width, out: rank, bias, ...xavierLinear(width, rank) })
    : (x: Tensor) => x;
  const project = linear(scope.child(isNarrow ? 2 : 1), {
    in: isNarrow ? rank : width,
    out,
    bias,
    ...zeroLinear(width, out),
  });
  return (condition) => {
    const y = project(narrow(silu(condition)));
    condition.trace.record(scope.path, y);
    return y;
  };
}

/** What the blocks of one pass share. */
interface Shared {
  rotation: Rotation;
  /** Additive, (B, 1, N, N). */
  mask?: Tensor;
  /** (B, N, 1): 0 at the padding. */
  isToken?: Tensor;
  /** (B, 6 width), added to the vectors of every block. */
  vectors?: Tensor;
}

function block(scope: ParamScope, config: FitConfig): AdaLnZeroBlock<Shared> {
  const { width, heads, mlpRatio = 4, qkvBias = true, mlpBias: bias = true } = config;
  const { mlp: kind = "swiglu", queryNorm = "layer", keyNorm = "layer", rotary = {} } = config;
  const place = scope.child("attn");
  const mix = fusedAttention(place, { width, heads, qkvBias });
  const normQuery = featureNorm(place.child("q_norm"), queryNorm, width / heads);
  const normKey = featureNorm(place.child("k_norm"), keyNorm, width / heads);
  const full = Math.floor(width * mlpRatio);
  const hidden = kind === "swiglu" ? Math.floor((2 * full) / 3) : full;
  const inside = scope.child("mlp");
  const project =
    kind === "gelu"
      ? mlp(inside, geluTanh, { in: width, hidden, bias })
      : swiglu(inside, { in: width, hidden, bias });
  const own = modulation(
    scope.child("adaLN_modulation"),
    config,
    blockVectors,
    3 * Math.floor(width / 4),
  );
  return adaLnZeroBlock(scope, {
    ...tokenNorm(config),
    modulation: (condition, { vectors }) =>
      vectors ? own(condition).add(vectors) : own(condition),
    attention: (x, { rotation, mask, isToken }) =>
      mix(x, {
        ...(mask && { mask }),
        ...(isToken && { finish: (mixed: Tensor) => mixed.mul(isToken) }),
        prepare: ([q, k, v]): Heads => [
          rotate(normQuery(q), rotation),
          rotate(normKey(k), rotation),
          rotary.values ? rotate(v, rotation) : v,
        ],
      }),
    mlp: project,
  });
}

/** Tokens see those with their own number: (B, N) -> (B, 1, N, N). */
function ownPicture(mask: Tensor): Tensor {
  const [B, N] = mask.shape as [number, number];
  const isOwn = equal(mask.reshape([B, 1, N, 1]), mask.reshape([B, 1, 1, N]));
  return where(isOwn, mask.trace.constant(0), kHidden);
}

/** s t / (1 + (s - 1) t), at most 1. */
function shiftedTimes(times: Tensor, { timeShift: s = 1 }: FitConfig): Tensor {
  const t = times.cast("f32");
  if (s === 1) return t;
  const stretched = t.mul(s - 1).add(1);
  return t.mul(s).div(stretched).minimum(1);
}

/** Channels of the values of one patch, and of what the network makes of them. */
const patchValues = ({ patch, channels = 4, sigma }: FitConfig): { in: number; out: number } => {
  const values = patch * patch * channels;
  return { in: values, out: sigma === "learned" ? 2 * values : values };
};

type Condition = Omit<FitInput, "x">;
type TokenPass = (tokens: Tensor, condition: Condition, call: Shared) => Tensor;

/** The vectors that all blocks share, where the modulation is "lora". */
function sharedVectors(scope: ParamScope, config: FitConfig): Layer | undefined {
  const { width, modulationBias: bias = true } = config;
  if ((config.modulation ?? "lora") !== "lora") return undefined;
  const out = blockVectors * width;
  const place = scope.child("global_adaLN_modulation").child(1);
  return linear(place, { in: width, out, bias, ...zeroLinear(width, out) });
}

/** Values of patches (B, N, in) -> (B, N, out). */
function tokenPass(config: FitConfig, scope: ParamScope): TokenPass {
  const { width, layers } = config;
  const values = patchValues(config);
  const embed = linear(scope.child("x_embedder").child("proj"), {
    in: values.in,
    out: width,
    ...xavierLinear(values.in, width),
  });
  const conditionOf = classCondition("fit", scope, config);
  const shared = sharedVectors(scope, config);
  const blocks = Array.from({ length: layers }, (_, i) =>
    block(scope.child("blocks").child(i), config),
  );
  const last = scope.child("final_layer");
  const place = last.child("adaLN_modulation");
  const finish = finalLayer(last, {
    ...tokenNorm(config),
    width,
    out: values.out,
    modulation: modulation(place, config, finalVectors, Math.floor(width / 2)),
  });
  return (tokens, told, call) => {
    const condition = conditionOf({ ...told, times: shiftedTimes(told.times, config) });
    const all = shared ? { ...call, vectors: shared(silu(condition)) } : call;
    const mixed = blocks.reduce((x, next) => next(x, condition, all), embed(tokens));
    return finish(mixed, condition);
  };
}

/** Of pictures of one size: every place is on one grid. */
const picturePass =
  (config: FitConfig, run: TokenPass) =>
  ({ x, ...condition }: FitInput): Tensor => {
    const { patch, channels = 4, width, heads, rotary } = config;
    const [, H, W] = x.shape as [number, number, number, number];
    if (x.rank !== 4 || x.shape[3] !== channels || H % patch !== 0 || W % patch !== 0) {
      throw new DiffusionError(
        "shape",
        `fit: expected x (B, H, W, ${channels}) with sides divisible by ${patch}, got ${formatShape(x.shape)}`,
      );
    }
    const grid: [number, number] = [H / patch, W / patch];
    const rotation = gridRotation(x.trace, grid, { ...rotary, width: width / heads });
    const tokens = run(toPatches(x, patch, "cpq"), condition, { rotation });
    return fromPatches(tokens, grid, patch, "cpq");
  };

/** Of pictures of several sizes in one sequence: each token says its place. */
const sequencePass =
  (config: FitConfig, run: TokenPass) =>
  ({ tokens, rows, columns, mask, ...condition }: FitTokens): Tensor => {
    const { width, heads, rotary = {} } = config;
    const values = patchValues(config).in;
    if (tokens.rank !== 3 || tokens.shape[2] !== values) {
      throw new DiffusionError(
        "shape",
        `fit: expected tokens (B, N, ${values}), got ${formatShape(tokens.shape)}`,
      );
    }
    if ((rotary.stretch ?? "none") !== "none") {
      throw new DiffusionError(
        "option",
        `fit: expected tokens with places in a model without rotary.stretch, got ${rotary.stretch}; use forward`,
      );
    }
    const [B, N] = mask.shape as [number, number];
    const isToken = where(equal(mask, 0), mask.trace.constant(0), 1).reshape([B, N, 1]);
    const rotation = placeRotation(rows, columns, kPlaces, { ...rotary, width: width / heads });
    return run(tokens, condition, { rotation, mask: ownPicture(mask), isToken }).mul(isToken);
  };

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function fit(config: FitConfig, scope: ParamScope = new ParamScope()): Fit {
  checkConfig(config);
  const run = tokenPass(config, scope);
  const forward = picturePass(config, run);
  return {
    config,
    parameters: scope.specs(),
    forward,
    forwardTokens: sequencePass(config, run),
    guided: classGuidance("fit", config, forward),
  };
}

const published = { patch: 2, classes: 1000 } as const;

/** Configurations of the published sizes. FiTv2-B has the depth that its published cost implies. */
export const fitConfigs = {
  "FiT-XL": {
    ...published,
    layers: 28,
    width: 1152,
    heads: 16,
    mlp: "wideSwiglu",
    sigma: "learned",
    modulation: "linear",
    queryNorm: "none",
    keyNorm: "none",
  },
  "FiTv2-B": { ...published, layers: 15, width: 768, heads: 12 },
  "FiTv2-XL": { ...published, layers: 36, width: 1152, heads: 16 },
  "FiTv2-3B": { ...published, layers: 40, width: 2304, heads: 24 },
} as const satisfies Readonly<Record<string, FitConfig>>;
