import { expect, it } from "vitest";
import { compile } from "../../lib/runtime/program.js";
import { trace } from "../../lib/trace/trace.js";
import { foreignTokens, mixWithNext } from "../../lib/trainers/token-mix.js";

it("rectangles fill a quarter to three quarters of each side, in a share of the pictures", () => {
  const [B, h, w] = [64, 8, 8] as const;
  const mask = foreignTokens(0.5, [B, h, w], { seed: 3, stream: "a" });
  expect(foreignTokens(0.5, [B, h, w], { seed: 3, stream: "a" })).toEqual(mask);
  const areas = Array.from({ length: B }, (_, b) => {
    const cells = [...mask.subarray(b * h * w, (b + 1) * h * w).entries()].filter(([, v]) => v === 1); // prettier-ignore
    const rows = new Set(cells.map(([i]) => Math.floor(i / w))).size;
    const columns = new Set(cells.map(([i]) => i % w)).size;
    expect(cells.length).toBe(rows * columns);
    expect(rows === 0 || (rows >= 2 && rows <= 6)).toBe(true);
    return cells.length;
  });
  const chosen = areas.filter((area) => area > 0).length;
  expect(chosen).toBeGreaterThan(16);
  expect(chosen).toBeLessThan(48);
});

it("puts the next picture where the mask is 1, enlarged to the pixels", async () => {
  const graph = trace((t) => {
    const x = t.input("x", { shape: [2, 4, 2, 1] });
    t.output("y", mixWithNext(x, t.input("foreign", { shape: [2, 2, 1] })));
  });
  using program = await compile(graph);
  using session = await program.bind({});
  const x = Float32Array.from({ length: 16 }, (_, i) => i);
  const { y } = await session.run({ x, foreign: Float32Array.of(0, 1, 1, 0) });
  expect([...(y as Float32Array)]).toEqual([
    0, 1, 2, 3, 12, 13, 14, 15, 0, 1, 2, 3, 12, 13, 14, 15,
  ]);
});
