// The stream of batches: complete, repeatable, resumable, and never in the way of the event loop.
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { counterHash, epochOrder } from "../../lib/data/counter-hash.js";
import { memoryDataset, selectFrom, type ImageDataset } from "../../lib/data/dataset.js";
import { loadBatches, type Batch, type LoaderOptions } from "../../lib/data/loader.js";
import { leavesLoopFree } from "../runtime/loop-load.js";

function numbered(count: number, size = 2): ImageDataset {
  const pixels = new Uint8Array(count * size * size * 3);
  for (let i = 0; i < pixels.length; ++i) pixels[i] = Math.floor(i / (size * size * 3));
  const captions = Array.from({ length: count }, (_, i) => [`picture ${i}`, `number ${i}`, `${i}`]);
  return memoryDataset({ width: size, height: size, pixels, captions, labels: captions.map((_, i) => i % 3), classes: ["a", "b", "c"] }); // prettier-ignore
}

async function take(
  dataset: ImageDataset,
  options: LoaderOptions,
  count = Infinity,
): Promise<Batch[]> {
  const batches: Batch[] = [];
  for await (const batch of loadBatches(dataset, options)) {
    batches.push(batch);
    if (batches.length >= count) break;
  }
  return batches;
}
const indicesOf = (batches: Batch[]): number[] => batches.flatMap((batch) => [...batch.indices]);
const byNumber = (a: number, b: number): number => a - b;

describe("epochOrder", () => {
  const ones = new Float64Array(100).fill(1);

  it("visits everything once, in another order each epoch and seed", () => {
    const orders = [
      epochOrder(ones, 1, 0, true),
      epochOrder(ones, 1, 1, true),
      epochOrder(ones, 2, 0, true),
    ];
    for (const order of orders)
      expect([...order].sort(byNumber)).toEqual(Array.from(ones, (_, i) => i));
    expect(new Set(orders.map(String)).size).toBe(3);
    expect(epochOrder(ones, 1, 0, true)).toEqual(orders[0]);
    expect([...epochOrder(ones, 1, 0, false)]).toEqual(Array.from(ones, (_, i) => i));
  });

  it("visits by weight on average", () => {
    const weights = Float64Array.from([0, 0.2, 1, 2.5]);
    const counts = [0, 0, 0, 0];
    for (let epoch = 0; epoch < 2000; ++epoch)
      for (const i of epochOrder(weights, 5, epoch, true)) counts[i]! += 1;
    expect(counts.map((count) => count / 2000)).toEqual([
      0,
      expect.closeTo(0.2, 1),
      1,
      expect.closeTo(2.5, 1),
    ]);
  });

  it("shuffles evenly: every sample is first about equally often", () => {
    const firsts = new Array<number>(10).fill(0);
    const ten = new Float64Array(10).fill(1);
    for (let epoch = 0; epoch < 10000; ++epoch) firsts[epochOrder(ten, 0, epoch, true)[0]!]! += 1;
    const chiSquare = firsts.reduce((sum, count) => sum + (count - 1000) ** 2 / 1000, 0);
    expect(chiSquare).toBeLessThan(27.9); // 9 degrees of freedom, p = 0.001
  });

  it("hashes without collisions on small counters", () => {
    const seen = new Set<number>();
    for (let a = 0; a < 100; ++a) for (let b = 0; b < 100; ++b) seen.add(counterHash(0, a, b, 1));
    expect(seen.size).toBeGreaterThan(9980);
    expect(counterHash(2 ** 40, 0)).not.toBe(counterHash(0, 0));
  });
});

describe("loadBatches", () => {
  it("gives floats, labels, captions and indices that belong together", async () => {
    const [batch] = await take(numbered(10), { batchSize: 4, seed: 3 }, 1);
    expect(batch!.shape).toEqual([4, 2, 2, 3]);
    batch!.indices.forEach((index, i) => {
      expect(batch!.images[i * 12]).toBeCloseTo(index / 127.5 - 1, 6);
      expect(batch!.labels[i]).toBe(index % 3);
      expect(batch!.captions[i]).toMatch(new RegExp(`(^| )${index}$`));
    });
  });

  it("resumes exactly, at any batch, with every tail", async () => {
    const dataset = selectFrom(numbered(23), [
      0,
      1,
      2,
      3,
      4,
      ...Array.from({ length: 17 }, (_, i) => i + 6),
    ]);
    const cases = fc.record({
      batchSize: fc.integer({ min: 1, max: 30 }),
      seed: fc.nat(1000),
      tail: fc.constantFrom("continue" as const, "short" as const),
      stop: fc.integer({ min: 1, max: 6 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ stop, ...rest }) => {
        const options = { ...rest, augment: { flip: true, shift: 1 } };
        const whole = await take(dataset, options, stop + 3);
        const resumed = await take(dataset, { ...options, from: whole[stop - 1]!.cursor }, 3);
        expect(resumed).toEqual(whole.slice(stop));
      }),
      { numRuns: 60 },
    );
  });

  it("does not depend on prefetching", async () => {
    const options = { batchSize: 3, seed: 9, augment: { flip: true } };
    const [none, some] = [await take(numbered(8), { ...options, prefetch: 0 }, 7), await take(numbered(8), { ...options, prefetch: 5 }, 7)]; // prettier-ignore
    expect(some).toEqual(none);
  });

  it("ends epochs as asked", async () => {
    const sizes = async (tail: LoaderOptions["tail"]): Promise<number[]> =>
      (await take(numbered(10), { batchSize: 4, epochs: 2, ...(tail && { tail }) })).map(
        ({ size }) => size,
      );
    expect(await sizes("drop")).toEqual([4, 4, 4, 4]);
    expect(await sizes("short")).toEqual([4, 4, 2, 4, 4, 2]);
    expect(await sizes("continue")).toEqual([4, 4, 4, 4, 4]);
    const all = indicesOf(await take(numbered(10), { batchSize: 4, epochs: 2 }));
    expect(all.slice(0, 10).sort(byNumber)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it("fills batches larger than the set", async () => {
    const [batch] = await take(numbered(3), { batchSize: 8 }, 1);
    expect(batch!.size).toBe(8);
    expect(batch!.cursor).toEqual({ epoch: 2, position: 2 });
  });

  it("mirrors and shifts pictures, repeating the edge", async () => {
    const pixels = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const one = memoryDataset({ width: 3, height: 3, channels: 1, pixels });
    const seen = new Set<string>();
    for (const batch of await take(one, { batchSize: 1, augment: { flip: true, shift: 1 } }, 400))
      seen.add(Array.from(batch.images, (x) => Math.round((x + 1) * 127.5)).join(""));
    expect(seen.size).toBe(18);
    for (const picture of ["123456789", "321654987", "112445778", "123123456", "112112445"])
      expect([...seen]).toContain(picture);
  });

  it("chooses captions by counters", async () => {
    const captions = (await take(numbered(1), { batchSize: 1 }, 300)).flatMap(
      (batch) => batch.captions,
    );
    for (const text of ["picture 0", "number 0", "0"])
      expect(captions.filter((caption) => caption === text).length).toBeGreaterThan(60);
  });

  it("refuses empty sets and bad options", async () => {
    const empty = selectFrom(numbered(2), []);
    await expect(take(empty, { batchSize: 1 }, 1)).rejects.toMatchObject({ code: "data" });
    await expect(take(numbered(2), { batchSize: 0 }, 1)).rejects.toThrow(
      /batchSize.*at least 1, got 0/,
    );
    await expect(take(numbered(2), { batchSize: 4, tail: "drop" }, 1)).rejects.toThrow(
      /smaller batchSize/,
    );
    await expect(take(numbered(2), { batchSize: 1, sead: 4 } as never, 1)).rejects.toThrow(/sead/);
    const weightless = { ...numbered(2), weight: () => 0 };
    await expect(take(weightless, { batchSize: 1 }, 1)).rejects.toThrow(/weights/);
  });

  it("stops on the signal, and passes on decoding errors", async () => {
    const stop = new AbortController();
    const batches = loadBatches(numbered(4), { batchSize: 2, signal: stop.signal });
    await batches.next();
    stop.abort();
    await expect(batches.next()).rejects.toMatchObject({ code: "aborted" });
    const broken = { ...numbered(4), pixels: () => Promise.reject(new Error("damaged")) };
    await expect(take(broken, { batchSize: 2 }, 1)).rejects.toThrow("damaged");
    const small = { ...numbered(4), pixels: () => new Uint8Array(3) };
    await expect(take(small, { batchSize: 2 }, 1)).rejects.toThrow(/2x2x3 bytes/);
  });

  it("prepares nothing for a reader who has left", async () => {
    const whole = numbered(64, 64);
    let reads = 0;
    const dataset = { ...whole, pixels: (index: number) => ((reads += 1), whole.pixels(index)) };
    for await (const batch of loadBatches(dataset, { batchSize: 8, prefetch: 4 }))
      if (batch.size === 8) break;
    const before = reads;
    await sleep(100);
    expect(reads - before).toBeLessThanOrEqual(8);
  });

  it("leaves the event loop free", async () => {
    const large = numbered(64, 256);
    const load = async (): Promise<void> => {
      for await (const batch of loadBatches(large, { batchSize: 64, augment: { shift: 3 } })) {
        expect(batch.size).toBe(64);
        if (batch.cursor.epoch > 1) break;
      }
    };
    expect(await leavesLoopFree(load, 20)).toBe(true);
  });
});
