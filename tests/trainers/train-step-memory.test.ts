// A training step that does not fit says which of its buffers was too much.
import { afterEach, expect, it } from "vitest";
import { native } from "../../lib/runtime/native.js";
import { TrainStep } from "../../lib/trainers/train-step.js";

afterEach(() => native().setAllocationLimit(0));

it("names the buffer", async () => {
  const shape = [512, 512];
  const spec = { name: "proj.weight", shape, init: { kind: "zeros" } } as const;
  const step = TrainStep.create(
    {
      inputs: { x: { shape: [1, 512] } },
      loss: (t, { x }) => ({ loss: x!.matmul(t.parameter(spec)).square().mean() }),
      parameters: [spec],
    },
    new Map([[spec.name, (native().setAllocationLimit(2_500_000), new Float32Array(512 * 512))]]),
  );
  await expect(step).rejects.toMatchObject({ code: "memory" });
  await expect(step).rejects.toThrow("v.proj.weight f32[512, 512]");
});
