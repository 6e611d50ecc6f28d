// Entropy-constrained choice of codes against its definition in float64, and the options it refuses.
import { expect, it } from "vitest";
import { vectorQuantizer } from "../../lib/models/vector-quantizer.js";
import { ParamScope } from "../../lib/nn/module.js";
import { uniformStream } from "../../lib/nn/random.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { trace } from "../../lib/trace/trace.js";

const [K, D, N] = [24, 5, 300] as const;
const draws = uniformStream(11, "rate", (K + N) * D + K);
const codebook = Float32Array.from(draws.subarray(0, K * D));
const latents = Float32Array.from(draws.subarray(K * D, (K + N) * D));
const counts = Float32Array.from(draws.subarray((K + N) * D), (u) => 1000 * u ** 6);

async function chosen(rateWeight: number): Promise<number[]> {
  const model = vectorQuantizer(new ParamScope(), {
    codes: K,
    width: D,
    codebook: "ema",
    rateWeight,
  });
  const graph = trace((t) =>
    t.output("codes", model.indices(t.input("latents", { shape: [N, D] }))),
  );
  const values: Record<string, Float32Array> = {
    [model.codebook.name]: codebook,
    [model.averages!.counts.name]: counts,
  };
  const states = graph.inputs.filter(({ role }) => role === "state").map(({ name }) => name);
  using program = await compile(graph);
  using session = await program.bind(
    Object.fromEntries(
      states.map((name) => [
        name,
        Buffer.fromArray(values[name]!, "f32", name === model.codebook.name ? [K, D] : [K]),
      ]),
    ),
  );
  return [...(await session.run({ latents }))["codes"]!];
}

function expected(rateWeight: number): number[] {
  const total = counts.reduce((sum, n) => sum + n, 0);
  const bits = Array.from(counts, (n) => -Math.log2(Math.max(n / total, 0.01 / K)));
  return Array.from({ length: N }, (_, i) => {
    const costs = bits.map((b, k) => {
      let cost = rateWeight * b;
      for (let d = 0; d < D; ++d) cost += (latents[i * D + d]! - codebook[k * D + d]!) ** 2;
      return cost;
    });
    return costs.indexOf(Math.min(...costs));
  });
}

it.each([0, 0.02, 0.2])("rateWeight %d chooses the cheapest code", async (rateWeight) => {
  expect(await chosen(rateWeight)).toEqual(expected(rateWeight));
});

it("lets fewer codes be used the more a bit is worth", async () => {
  const used = async (rateWeight: number): Promise<number> =>
    new Set(await chosen(rateWeight)).size;
  expect(await used(0.2)).toBeLessThan(await used(0));
});

it.each([{ codebook: "gradient" }, { codebook: "ema", metric: "cosine" }] as const)(
  "refuses rateWeight with %o",
  (options) => {
    const config = { codes: K, width: D, rateWeight: 1, ...options };
    expect(() => vectorQuantizer(new ParamScope(), config)).toThrow(
      /vectorQuantizer: expected codebook "ema" and metric "euclidean"/,
    );
  },
);
