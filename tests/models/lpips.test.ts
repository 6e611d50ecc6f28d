// LPIPS: the parameter count of VGG16's features with one weight a channel, identities of a distance, gradients where
// features vanish, and what is refused.
import { describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import type { Values } from "../../lib/golden/case.js";
import { lpips, lpipsColourScaling } from "../../lib/models/lpips.js";
import { tamingLpipsKeys, torchvisionVgg16Keys } from "../../lib/models/lpips.keys.js";
import { mapKey } from "../../lib/nn/key-map.js";
import { parameterCount } from "../../lib/nn/module.js";
import { trace } from "../../lib/trace/trace.js";
import { drawn, drawnParameters, run } from "./run-model.js";

const narrow = lpips({ widths: [4, 4, 6, 6, 8] });
const parameters = new Map<string, Values>([
  ...drawnParameters(narrow.parameters),
  ...[...lpipsColourScaling].map(([name, data]): [string, Values] => [name, { shape: [3], data }]),
]);
const x = drawn("x", [2, 16, 16, 3], 0.5);
const y = drawn("y", [2, 16, 16, 3], 0.5);

describe("LPIPS", () => {
  // 13 convolutions of VGG16 (14,714,688) and 64 + 128 + 256 + 512 + 512 weights
  it("has the published size", () => {
    expect(parameterCount(lpips().parameters)).toBe(14_714_688 + 1_472);
    expect(lpips().states.map(({ name }) => name)).toEqual([...lpipsColourScaling.keys()]);
  });

  it("is 0 for equal pictures, symmetric, and one number a pair", async () => {
    const out = await run(parameters, { x, y }, (_, { x: a, y: b }) => ({
      same: narrow.distance(a!, a!),
      forth: narrow.distance(a!, b!),
      back: narrow.distance(b!, a!),
    }));
    expect([...out["same"]!.data]).toEqual([0, 0]);
    expect(out["forth"]!.shape).toEqual([2]);
    out["forth"]!.data.forEach((value, i) => {
      expect(value).not.toBe(0);
      expect(out["back"]!.data[i]).toBeCloseTo(value, 6);
    });
  });

  // the reference gives NaN here: the derivative of a square root at 0
  it("has finite gradients where every channel is 0", async () => {
    const dead = new Map(
      [...parameters].map(([name, value]): [string, Values] => {
        const shift = name.endsWith("slice3.14.bias") ? -1e4 : undefined;
        return [name, shift === undefined ? value : { ...value, data: Float32Array.from(value.data, () => shift) }]; // prettier-ignore
      }),
    );
    const { gradient } = await run(dead, { x, y }, (_, { x: a, y: b }) => ({
      gradient: gradients(narrow.distance(a!, b!).sum(), [a!])[0]!,
    }));
    expect(gradient!.data.every(Number.isFinite)).toBe(true);
    expect(gradient!.data.some((value) => value !== 0)).toBe(true);
  });

  it("refuses other widths and sides", () => {
    expect(() => lpips({ widths: [64, 128] })).toThrow(/widths to be a list of 5 items/);
    trace((t) => {
      const small = t.input("small", { shape: [1, 8, 16, 3] });
      expect(() => narrow.features(small)).toThrow(/sides from 16, got/);
      t.output("y", small);
    });
  });

  it("takes its features from torchvision and its weights from PerceptualSimilarity", () => {
    const names = new Set(lpips().parameters.map(({ name }) => name));
    const places = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
    const found = places.flatMap((place) => [
      mapKey(torchvisionVgg16Keys, `features.${place}.weight`, [8, 8, 3, 3]),
      mapKey(torchvisionVgg16Keys, `features.${place}.bias`, [8]),
    ]);
    const weights = [0, 1, 2, 3, 4].map((stage) =>
      mapKey(tamingLpipsKeys, `lin${stage}.model.1.weight`, [1, 8, 1, 1]),
    );
    const all = [...found, ...weights].map((match) =>
      typeof match === "object" ? match.name : "",
    );
    expect(new Set(all)).toEqual(names);
    expect(mapKey(torchvisionVgg16Keys, "classifier.0.weight", [1, 1])).toBe("drop");
  });
});
