// Which tokens of a picture stay under a mask, and that the signal reaches the tokenizer.
import { expect, it } from "vitest";
import type { Codec } from "../../lib/pipelines/codec.js";
import { knownTokens } from "../../lib/pipelines/known-tokens.js";

const image = { width: 4, height: 4, data: new Uint8Array(48) };

it("makes masked cells anew and passes the signal on", async () => {
  const asked: unknown[] = [];
  const codec = {
    config: { resolution: 4 },
    grid: [2, 2],
    encode: (_images: unknown, options: unknown) => {
      asked.push(options);
      return Promise.resolve(Int32Array.of(5, 6, 7, 8));
    },
  } as unknown as Codec;
  const mask = new Uint8Array(16);
  mask[3] = 1; // right of the first row: the second cell
  const { signal } = new AbortController();
  expect([...(await knownTokens(codec, { image, mask, signal }))!]).toEqual([5, -1, 7, 8]);
  expect(asked).toEqual([{ signal }]);
  await expect(knownTokens(codec, { image })).rejects.toThrow("image and mask together");
});
