// Cases of matrix products, convolutions and the gradients of convolutions.
import type { OpCase } from "./cases.js";
import { real } from "./operand.js";

/** M, N, K around the sizes of a register tile and of a panel, and both ways of broadcasting the batch. */
const products: { batchA: number[]; batchB: number[]; M: number; N: number; K: number }[] = [
  { batchA: [], batchB: [], M: 1, N: 1, K: 1 },
  { batchA: [], batchB: [], M: 5, N: 7, K: 3 },
  { batchA: [], batchB: [], M: 33, N: 49, K: 67 },
  { batchA: [], batchB: [], M: 1, N: 40, K: 129 },
  { batchA: [2], batchB: [2], M: 6, N: 17, K: 9 },
  { batchA: [2, 3], batchB: [2, 3], M: 4, N: 5, K: 8 },
  { batchA: [2, 3], batchB: [], M: 7, N: 19, K: 5 },
  { batchA: [], batchB: [3], M: 5, N: 6, K: 11 },
];

const flags = [false, true];

const matmulCases: OpCase[] = products.flatMap(({ batchA, batchB, M, N, K }) =>
  flags.flatMap((transposeA) =>
    flags.map((transposeB) => ({
      op: "matmul",
      inputs: [
        real([...batchA, ...(transposeA ? [K, M] : [M, K])]),
        real([...batchB, ...(transposeB ? [N, K] : [K, N])]),
      ],
      attrs: { transposeA, transposeB },
    })),
  ),
);

const longProducts: OpCase[] = [
  {
    op: "matmul",
    inputs: [real([70, 600]), real([600, 35])],
    attrs: { transposeA: false, transposeB: false },
    isSmooth: false,
  },
];

interface Convolution {
  x: [number, number, number, number];
  /** Output channels and kernel. */
  O: number;
  kernel: [number, number];
  stride?: [number, number];
  padding?: [number, number, number, number];
  groups?: number;
  upsample?: number;
}

const convolutions: Convolution[] = [
  { x: [1, 5, 7, 3], O: 4, kernel: [3, 3], padding: [1, 1, 1, 1] },
  { x: [2, 9, 8, 16], O: 20, kernel: [3, 3], padding: [1, 1, 1, 1] },
  { x: [2, 4, 5, 17], O: 33, kernel: [1, 1] },
  { x: [1, 8, 8, 3], O: 5, kernel: [4, 4], stride: [2, 2], padding: [1, 1, 1, 1] },
  { x: [2, 7, 9, 6], O: 8, kernel: [3, 3], stride: [2, 2], padding: [0, 1, 0, 1] },
  { x: [1, 8, 6, 4], O: 3, kernel: [3, 3], stride: [2, 1], padding: [1, 0, 2, 1] },
  { x: [2, 6, 5, 8], O: 12, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 4 },
  { x: [1, 5, 5, 6], O: 6, kernel: [3, 3], padding: [1, 1, 1, 1], groups: 6 },
  { x: [1, 3, 4, 5], O: 7, kernel: [3, 3], padding: [1, 1, 1, 1], upsample: 2 },
  { x: [2, 3, 3, 18], O: 17, kernel: [3, 3], padding: [1, 1, 1, 1], upsample: 2 },
  { x: [1, 4, 4, 2], O: 3, kernel: [1, 3], padding: [0, 0, 1, 1] },
  { x: [1, 12, 13, 32], O: 32, kernel: [3, 3], padding: [1, 1, 1, 1] }, // wide enough for Winograd
  { x: [1, 1, 1, 3], O: 2, kernel: [3, 3], padding: [1, 1, 1, 1] },
  { x: [1, 9, 9, 3], O: 4, kernel: [7, 7], padding: [3, 3, 3, 3] },
  { x: [1, 11, 11, 4], O: 3, kernel: [3, 3], stride: [3, 3] },
];

function convolutionCases(c: Convolution): OpCase[] {
  const { x, O, kernel, stride = [1, 1], padding = [0, 0, 0, 0], groups = 1, upsample = 1 } = c;
  const [B, H, W, C] = x;
  const outSize = (size: number, axis: 0 | 1): number => {
    const padded = size * upsample + padding[2 * axis]! + padding[2 * axis + 1]!;
    return Math.floor((padded - kernel[axis]) / stride[axis]) + 1;
  };
  const w = real([...kernel, C / groups, O]);
  const dy = real([B, outSize(H, 0), outSize(W, 1), O]);
  const attrs = { stride, padding, groups };
  return [
    { op: "conv2d", inputs: [real(x), w], attrs: { ...attrs, upsample } },
    { op: "conv2dGradWeight", inputs: [real(x), dy], attrs: { ...attrs, kernel, upsample } },
    ...(upsample === 1
      ? [{ op: "conv2dGradInput", inputs: [dy, w], attrs: { ...attrs, inputSize: [H, W] } }]
      : []),
  ];
}

export const linearCases: readonly OpCase[] = [
  ...matmulCases,
  ...longProducts,
  ...convolutions.flatMap(convolutionCases),
];
