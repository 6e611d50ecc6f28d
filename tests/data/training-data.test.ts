import { expect, it } from "vitest";
import { openTrainingData } from "../../lib/data/training-data.js";

it("refuses Fashion-MNIST for a model of another size", async () => {
  await expect(openTrainingData("fashion-mnist", 64)).rejects.toMatchObject({
    code: "data",
    message: "fashion-mnist: expected a model of pictures of 32 pixels, got 64",
  });
});
