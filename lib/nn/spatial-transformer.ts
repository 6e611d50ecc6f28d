// Transformer over the pixels of a map with cross-attention to a condition, as in CompVis/latent-diffusion
// ldm/modules/attention.py (SpatialTransformer). Source: Rombach et al. 2021, arXiv:2112.10752, section 3.3.
import type { Tensor } from "../trace/tensor.js";
import { geglu } from "./activation.js";
import { attention } from "./attention.js";
import type { AttentionLayer } from "./attention.js";
import { zeros } from "./init.js";
import { linear } from "./linear.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";
import { groupNorm, layerNorm } from "./norm.js";

export interface SpatialTransformerOptions {
  channels: number;
  heads: number;
  /** Width of a head; heads * headWidth need not be `channels`. */
  headWidth: number;
  /** Transformer blocks. */
  depth: number;
  /** Width of the condition's tokens. */
  contextWidth: number;
  groups: number;
}

/** (map (B, H, W, C), condition (B, M, contextWidth), additive mask) -> (B, H, W, C). */
export type SpatialTransformer = (x: Tensor, context?: Tensor, mask?: Tensor) => Tensor;

const names = { query: "to_q", key: "to_k", value: "to_v", out: "to_out.0" };
const kHidden = 4; // width of the gated network in widths

function feedForward(scope: ParamScope, width: number): Layer {
  const up = linear(scope.child("net.0.proj"), { in: width, out: 2 * kHidden * width });
  const down = linear(scope.child("net.2"), { in: kHidden * width, out: width });
  return (x) => {
    const y = down(geglu(up(x)));
    x.trace.record(scope.path, y);
    return y;
  };
}

/** x += attn1(norm1 x); x += attn2(norm2 x, condition); x += ff(norm3 x), on tokens (B, N, width). */
function block(scope: ParamScope, width: number, options: SpatialTransformerOptions) {
  const { heads, contextWidth } = options;
  const mix = (name: string, from: number): AttentionLayer =>
    attention(scope.child(name), {
      width,
      heads,
      contextWidth: from,
      projectionBias: false,
      names,
    });
  const mixSelf = mix("attn1", width);
  const forward = feedForward(scope.child("ff"), width);
  const mixContext = mix("attn2", contextWidth);
  const norms = [1, 2, 3].map((i) => layerNorm(scope.child(`norm${i}`), { width })) as [
    Layer,
    Layer,
    Layer,
  ];
  return (x: Tensor, context?: Tensor, mask?: Tensor): Tensor => {
    let h = x.add(mixSelf(norms[0](x)));
    h = h.add(mixContext(norms[1](h), context, mask));
    const y = h.add(forward(norms[2](h)));
    x.trace.record(scope.path, y);
    return y;
  };
}

/** Norm (eps 1e-6), 1x1 in, blocks on the pixels as tokens, 1x1 out that starts at zero, residual. */
export function spatialTransformer(
  scope: ParamScope,
  options: SpatialTransformerOptions,
): SpatialTransformer {
  const { channels, heads, headWidth, depth, groups } = options;
  const width = heads * headWidth;
  const norm = groupNorm(scope.child("norm"), { channels, groups });
  const projectIn = linear(scope.child("proj_in"), { in: channels, out: width });
  const blocks = Array.from({ length: depth }, (_, i) =>
    block(scope.child("transformer_blocks").child(i), width, options),
  );
  const projectOut = linear(scope.child("proj_out"), {
    in: width,
    out: channels,
    weightInit: zeros,
    biasInit: zeros,
  });
  return (x, context, mask) => {
    const [B, H, W] = x.shape as [number, number, number, number];
    const tokens = projectIn(norm(x)).reshape([B, H * W, width]);
    const mixed = blocks.reduce((h, run) => run(h, context, mask), tokens);
    const y = x.add(projectOut(mixed.reshape([B, H, W, width])));
    x.trace.record(scope.path, y);
    return y;
  };
}
