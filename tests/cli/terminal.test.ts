// The bar on a terminal: it begins with its first update, follows the total, and gives the cursor back when a command fails.
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { fail, progress } from "../../lib/cli/terminal.js";
import { DiffusionError } from "../../lib/errors.js";

const hidden = "\x1b[?25l";
const shown = "\x1b[?25h";
let written = "";
const { isTTY } = process.stderr;

beforeEach(() => {
  written = "";
  process.stderr.isTTY = true;
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    written += String(text);
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  process.stderr.isTTY = isTTY;
  process.exitCode = undefined;
});

it("shows the cursor again when a command fails", () => {
  const bar = progress("sample");
  expect(written).toBe("");
  bar.update(1, 4);
  expect(written).toContain(hidden);
  expect(written).not.toContain(shown);
  fail(new DiffusionError("aborted", "sampling: stopped by its signal"));
  expect(written.indexOf(shown)).toBeGreaterThan(written.indexOf(hidden));
  expect(written.indexOf("stopped by its signal")).toBeGreaterThan(written.indexOf(shown));
  bar.stop(); // once more does no harm
});

it("follows a total that changes", () => {
  const bar = progress("emoji");
  bar.update(1, 4, "first");
  bar.update(9, 20, "second");
  bar.stop();
  expect(written).toMatch(/9\/20 second/);
});
