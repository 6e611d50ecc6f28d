// UNet2DModel and UNet2DConditionModel of huggingface/diffusers in plain loops, from their documented structure: what
// tensors they have (names and shapes of the checkpoints) and what they compute. Weights are asked for by name as they are
// needed, so that the same walk lists them: with a batch of 0 nothing is computed.
import {
  add,
  attention,
  concatChannels,
  conv,
  gelu,
  groupNorm,
  layerNorm,
  linear,
  map,
  mapOf,
  silu,
  sizeOf,
  tokens,
  twice,
  type Plain,
} from "./plain-ops.js";

/** Keys of config.json that matter here. */
export interface DiffusersUnetConfig {
  _class_name: "UNet2DModel" | "UNet2DConditionModel";
  sample_size: number;
  in_channels: number;
  out_channels: number;
  block_out_channels: readonly number[];
  down_block_types: readonly string[];
  up_block_types: readonly string[];
  layers_per_block: number;
  attention_head_dim: number | null | readonly number[];
  norm_num_groups: number;
  norm_eps: number;
  flip_sin_to_cos: boolean;
  freq_shift: number;
  downsample_padding: number;
  cross_attention_dim?: number;
  use_linear_projection?: boolean;
  transformer_layers_per_block?: number;
  num_class_embeds?: number | null;
}

export interface PlainInput {
  /** (B, C, H, W). */
  sample: Plain;
  times: readonly number[];
  /** (B, M, cross_attention_dim). */
  context?: Plain;
  labels?: readonly number[];
}

/** The weight of a name, which has this shape. */
export type Weights = (name: string, shape: readonly number[]) => Plain;

type Get = (name: string, ...shape: number[]) => Plain;

/** What every part needs. */
interface Call {
  config: DiffusersUnetConfig;
  get: Weights;
  temb: Plain;
  context: Plain | undefined;
  /** Names of attention over pixels: as before diffusers 0.15, or as today. */
  names: readonly [string, string, string, string];
}

export const attentionNames = {
  old: ["query", "key", "value", "proj_attn"],
  new: ["to_q", "to_k", "to_v", "to_out.0"],
} as const;

/** Weights below a name. */
const below =
  ({ get }: Pick<Call, "get">, place: string): Get =>
  (name, ...shape) =>
    get(`${place}.${name}`, shape);

const norm = (w: Get, name: string, x: Plain, groups: number, eps: number): Plain => {
  const C = x.shape[1]!;
  return groupNorm(x, w(`${name}.weight`, C), w(`${name}.bias`, C), groups, eps);
};

const project = (w: Get, name: string, x: Plain, out: number, hasBias = true): Plain =>
  linear(
    x,
    w(`${name}.weight`, out, x.shape.at(-1)!),
    hasBias ? w(`${name}.bias`, out) : undefined,
  );

const convolve = (
  w: Get,
  name: string,
  x: Plain,
  out: number,
  options: Parameters<typeof conv>[3] & { kernel?: number } = {},
): Plain => {
  const k = options.kernel ?? 3;
  return conv(x, w(`${name}.weight`, out, x.shape[1]!, k, k), w(`${name}.bias`, out), options);
};

function resnet(call: Call, place: string, x: Plain, out: number): Plain {
  const { norm_num_groups: groups, norm_eps: eps } = call.config;
  const w = below(call, place);
  const first = convolve(w, "conv1", silu(norm(w, "norm1", x, groups, eps)), out);
  const time = project(w, "time_emb_proj", silu(call.temb), out);
  const space = sizeOf(first.shape.slice(2));
  const timed = map(first, (value, i) => value + time.data[Math.floor(i / space)]!);
  const second = convolve(w, "conv2", silu(norm(w, "norm2", timed, groups, eps)), out);
  return add(second, x.shape[1] === out ? x : convolve(w, "conv_shortcut", x, out, { kernel: 1 }));
}

/** Attention over pixels. */
function pixels(call: Call, place: string, x: Plain): Plain {
  const { norm_num_groups: groups, norm_eps: eps, attention_head_dim: width } = call.config;
  const C = x.shape[1]!;
  const heads = width === null ? 1 : C / (width as number);
  const w = below(call, place);
  const flat = tokens(norm(w, "group_norm", x, groups, eps));
  const [q, k, v] = call.names.slice(0, 3).map((name) => project(w, name, flat, C)) as [Plain, Plain, Plain]; // prettier-ignore
  const mixed = attention(q, k, v, { heads, scale: 1 / Math.sqrt(C / heads) });
  return add(x, mapOf(project(w, call.names[3], mixed, C), x.shape));
}

/** Self-attention, cross-attention and a gated network on tokens. */
function transformerBlock(call: Call, place: string, x: Plain, heads: number): Plain {
  const w = below(call, place);
  const C = x.shape[2]!;
  const normed = (n: number, y: Plain): Plain =>
    layerNorm(y, 1e-5, w(`norm${n}.weight`, C), w(`norm${n}.bias`, C));
  const mix = (name: string, y: Plain, seen: Plain): Plain => {
    const q = project(w, `${name}.to_q`, y, C, false);
    const k = project(w, `${name}.to_k`, seen, C, false);
    const v = project(w, `${name}.to_v`, seen, C, false);
    return project(w, `${name}.to_out.0`, attention(q, k, v, { heads, scale: 1 / Math.sqrt(C / heads) }), C); // prettier-ignore
  };
  const self = normed(1, x);
  let y = add(x, mix("attn1", self, self));
  y = add(y, mix("attn2", normed(2, y), call.context!));
  const both = project(w, "ff.net.0.proj", normed(3, y), 8 * C);
  const part = (start: number): Plain => ({
    shape: [...y.shape.slice(0, 2), 4 * C],
    data: both.data.filter((_, i) => i % (8 * C) >= start && i % (8 * C) < start + 4 * C),
  });
  const gate = gelu(part(4 * C));
  const gated = map(part(0), (value, i) => value * gate.data[i]!);
  return add(y, project(w, "ff.net.2", gated, C));
}

function transformer(call: Call, place: string, x: Plain, heads: number): Plain {
  const { norm_num_groups: groups, use_linear_projection: isLinear } = call.config;
  const { transformer_layers_per_block: depth = 1 } = call.config;
  const w = below(call, place);
  const C = x.shape[1]!;
  const normed = norm(w, "norm", x, groups, 1e-6);
  let y = isLinear
    ? project(w, "proj_in", tokens(normed), C)
    : tokens(convolve(w, "proj_in", normed, C, { kernel: 1 }));
  for (let i = 0; i < depth; ++i)
    y = transformerBlock(call, `${place}.transformer_blocks.${i}`, y, heads);
  const out = isLinear
    ? mapOf(project(w, "proj_out", y, C), x.shape)
    : convolve(w, "proj_out", mapOf(y, x.shape), C, { kernel: 1 });
  return add(x, out);
}

/** Attention of a level, or none. */
function attend(call: Call, place: string, x: Plain, level: number, type: string): Plain {
  const { attention_head_dim: heads } = call.config;
  if (type.startsWith("CrossAttn"))
    return transformer(call, place, x, Array.isArray(heads) ? (heads[level] as number) : (heads as number)); // prettier-ignore
  return type.startsWith("Attn") ? pixels(call, place, x) : x;
}

function embedTimes(
  { config, get }: Pick<Call, "config" | "get">,
  times: readonly number[],
): Plain {
  const { flip_sin_to_cos: isFlipped, freq_shift: shift } = config;
  const C = config.block_out_channels[0]!;
  const half = C / 2;
  const rows = times.flatMap((t) => {
    const angles = Array.from({ length: half }, (_, i) => t * Math.exp((-Math.log(10000) * i) / (half - shift))); // prettier-ignore
    const [sin, cos] = [angles.map(Math.sin), angles.map(Math.cos)];
    return isFlipped ? [...cos, ...sin] : [...sin, ...cos];
  });
  const w = below({ get }, "time_embedding");
  const features = { shape: [times.length, C], data: Float64Array.from(rows) };
  return project(w, "linear_2", silu(project(w, "linear_1", features, 4 * C)), 4 * C);
}

function downPath(call: Call, sample: Plain): Plain[] {
  const { config, get } = call;
  const w: Get = (name, ...shape) => get(name, shape);
  const kept = [convolve(w, "conv_in", sample, config.block_out_channels[0]!)];
  config.block_out_channels.forEach((width, l) => {
    const place = `down_blocks.${l}`;
    for (let i = 0; i < config.layers_per_block; ++i) {
      const x = resnet(call, `${place}.resnets.${i}`, kept.at(-1)!, width);
      kept.push(attend(call, `${place}.attentions.${i}`, x, l, config.down_block_types[l]!));
    }
    if (l === config.block_out_channels.length - 1) return;
    const padding = config.downsample_padding === 0 ? [0, 1, 0, 1] : [1, 1, 1, 1];
    kept.push(convolve(w, `${place}.downsamplers.0.conv`, kept.at(-1)!, width, { stride: 2, padding })); // prettier-ignore
  });
  return kept;
}

/** The prediction (B, out_channels, H, W). */
export function plainDiffusersUnet(
  config: DiffusersUnetConfig,
  get: Weights,
  { sample, times, context, labels }: PlainInput,
  names: Call["names"] = attentionNames.new,
): Plain {
  const w: Get = (name, ...shape) => get(name, shape);
  const widths = config.block_out_channels;
  const levels = widths.length;
  let temb = embedTimes({ config, get }, times);
  if (config.num_class_embeds) {
    const E = 4 * widths[0]!;
    const table = w("class_embedding.weight", config.num_class_embeds, E);
    temb = map(temb, (v, i) => v + table.data[labels![Math.floor(i / E)]! * E + (i % E)]!);
  }
  const call: Call = { config, get, temb, context, names };
  const kept = downPath(call, sample);
  const widest = widths[levels - 1]!;
  const type = config._class_name === "UNet2DModel" ? "Attn" : "CrossAttn";
  let x = resnet(call, "mid_block.resnets.0", kept.at(-1)!, widest);
  x = attend(call, "mid_block.attentions.0", x, levels - 1, type);
  x = resnet(call, "mid_block.resnets.1", x, widest);
  for (let j = 0; j < levels; ++j) {
    const l = levels - 1 - j;
    const place = `up_blocks.${j}`;
    for (let i = 0; i <= config.layers_per_block; ++i) {
      x = resnet(call, `${place}.resnets.${i}`, concatChannels(x, kept.pop()!), widths[l]!);
      x = attend(call, `${place}.attentions.${i}`, x, l, config.up_block_types[j]!);
    }
    if (j < levels - 1) x = convolve(w, `${place}.upsamplers.0.conv`, twice(x), widths[l]!);
  }
  const last = silu(norm(w, "conv_norm_out", x, config.norm_num_groups, config.norm_eps));
  return convolve(w, "conv_out", last, config.out_channels);
}
