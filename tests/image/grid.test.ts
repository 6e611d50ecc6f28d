// Sheets have the size that the options say, and the pictures are in their places.
import { describe, expect, it } from "vitest";
import { contactSheet, sideBySide, zoomNearest } from "../../lib/image/grid.js";
import type { ByteImage } from "../../lib/image/image-io.js";

const filled = (value: number, width = 2, height = 2): ByteImage => ({
  width,
  height,
  data: new Uint8Array(width * height * 3).fill(value),
});
const at = ({ width, data }: ByteImage, x: number, y: number): number => data[(y * width + x) * 3]!;

describe("zoomNearest", () => {
  it("repeats pixels", () => {
    const zoomed = zoomNearest(
      { width: 2, height: 1, data: Uint8Array.from([1, 1, 1, 2, 2, 2]) },
      2,
    );
    expect([zoomed.width, zoomed.height]).toEqual([4, 2]);
    expect([0, 1, 2, 3].map((x) => at(zoomed, x, 1))).toEqual([1, 1, 2, 2]);
    expect(() => zoomNearest(filled(0), 1.5)).toThrow(/whole factor/);
  });
});

describe("contactSheet", () => {
  it("puts pictures of different sizes in reading order", async () => {
    const sheet = await contactSheet([filled(10), filled(20, 4, 4), filled(30)], {
      columns: 2,
      gap: 1,
    });
    expect([sheet.width, sheet.height]).toEqual([11, 11]);
    expect(at(sheet, 0, 0)).toBe(255);
    expect(at(sheet, 2, 2)).toBe(10);
    expect(at(sheet, 6, 1)).toBe(20);
    expect(at(sheet, 2, 7)).toBe(30);
  });

  it("writes captions below, whatever they contain", async () => {
    const pictures = [filled(255, 64, 64), filled(255, 64, 64)];
    const captions = [
      '<b>&"\u0000\ud800',
      "a very long caption that cannot fit into two lines of text at all",
    ];
    const sheet = await contactSheet(pictures, { captions });
    expect(sheet.height).toBeGreaterThan(64 + 8);
    expect(Math.min(...sheet.data.subarray(66 * sheet.width * 3))).toBeLessThan(160);
    await expect(contactSheet(pictures, { captions: ["one"] })).rejects.toThrow(
      /2 captions, got 1/,
    );
    await expect(contactSheet([])).rejects.toThrow(/at least one image/);
  });

  it("shows before and after in pairs", async () => {
    const sheet = await sideBySide([filled(1), filled(2)], [filled(3), filled(4)], {
      gap: 0,
      zoom: 1,
    });
    expect([at(sheet, 0, 0), at(sheet, 2, 0), at(sheet, 0, 2), at(sheet, 2, 2)]).toEqual([
      1, 3, 2, 4,
    ]);
    await expect(sideBySide(filled(1), [])).rejects.toThrow(/as many images/);
    const labelled = await sideBySide(filled(1, 40, 40), filled(2, 40, 40), {
      labels: ["before", "after"],
    });
    expect(labelled.height).toBeGreaterThan(48);
  });
});
