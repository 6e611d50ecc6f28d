// Products and convolutions as sums over all pairs of places.
import { at, gridOf, placeOf, sizeOf } from "./grid.js";
import type { Grid, Meaning } from "./grid.js";
import type { Attrs } from "../../lib/ir/graph.js";

const matmul: Meaning = ([a, b], { transposeA, transposeB }, [spec]) => {
  const K = a!.shape.at(transposeA ? -2 : -1)!;
  const entry = (x: Grid, batch: number[], row: number, column: number): number =>
    at(x, [...(x.shape.length > 2 ? batch : []), row, column]);
  return [
    gridOf(spec!.shape, (index) => {
      const batch = index.slice(0, -2);
      const [m, n] = index.slice(-2) as [number, number];
      let sum = 0;
      for (let k = 0; k < K; k++) {
        const left = transposeA ? entry(a!, batch, k, m) : entry(a!, batch, m, k);
        const right = transposeB ? entry(b!, batch, n, k) : entry(b!, batch, k, n);
        sum += left * right;
      }
      return sum;
    }),
  ];
};

interface Sizes {
  x: readonly number[]; // (B, H, W, C)
  w: readonly number[]; // (KH, KW, C / groups, O)
  y: readonly number[]; // (B, OH, OW, O)
}

/** Visits every product of a convolution: places in x, w and y. */
function visitProducts(
  { x, w, y }: Sizes,
  attrs: Attrs,
  visit: (inX: number, inW: number, inY: number) => void,
): void {
  const [strideH, strideW] = attrs.stride as [number, number];
  const [top, , left] = attrs.padding as number[];
  const upsample = (attrs.upsample as number | undefined) ?? 1;
  const [, H, W] = x as [number, number, number, number];
  const [KH, KW, depth, O] = w as [number, number, number, number];
  const perGroup = O / (attrs.groups as number);
  gridOf(y, ([b, oh, ow, o]: number[], inY) => {
    const group = Math.floor(o! / perGroup);
    for (let kh = 0; kh < KH; kh++) {
      for (let kw = 0; kw < KW; kw++) {
        const h = Math.floor((oh! * strideH + kh - top!) / upsample);
        const v = Math.floor((ow! * strideW + kw - left!) / upsample);
        if (h < 0 || h >= H || v < 0 || v >= W) continue;
        for (let c = 0; c < depth; c++) {
          visit(placeOf([b!, h, v, group * depth + c], x), placeOf([kh, kw, c, o!], w), inY);
        }
      }
    }
    return 0;
  });
}

const zeros = (shape: readonly number[]): number[] => new Array<number>(sizeOf(shape)).fill(0);

const conv2d: Meaning = ([x, w], attrs, [spec]) => {
  const data = zeros(spec!.shape);
  const sizes = { x: x!.shape, w: w!.shape, y: spec!.shape };
  visitProducts(sizes, attrs, (i, j, k) => (data[k]! += x!.data[i]! * w!.data[j]!));
  return [{ shape: spec!.shape, data }];
};

const conv2dGradInput: Meaning = ([dy, w], attrs, [spec]) => {
  const data = zeros(spec!.shape);
  const sizes = { x: spec!.shape, w: w!.shape, y: dy!.shape };
  visitProducts(sizes, attrs, (i, j, k) => (data[i]! += dy!.data[k]! * w!.data[j]!));
  return [{ shape: spec!.shape, data }];
};

const conv2dGradWeight: Meaning = ([x, dy], attrs, [spec]) => {
  const data = zeros(spec!.shape);
  const sizes = { x: x!.shape, w: spec!.shape, y: dy!.shape };
  visitProducts(sizes, attrs, (i, j, k) => (data[j]! += x!.data[i]! * dy!.data[k]!));
  return [{ shape: spec!.shape, data }];
};

export const linearMeaning: Record<string, Meaning> = {
  matmul,
  conv2d,
  conv2dGradInput,
  conv2dGradWeight,
};
