// Settings of the core that come from the environment.
import { afterEach, expect, it, vi } from "vitest";

afterEach(() => vi.unstubAllEnvs());

it.each(["abc", "0", "2.5", "1025"])("refuses SMALTI_THREADS=%s at every call", async (threads) => {
  vi.stubEnv("SMALTI_THREADS", threads);
  vi.resetModules();
  const { native } = await import("../../lib/runtime/native.js");
  const expected = `SMALTI_THREADS: expected a whole number from 1 to 1024, got "${threads}"`;
  expect(() => native()).toThrow(expected);
  expect(() => native()).toThrow(expected);
  vi.stubEnv("SMALTI_THREADS", "1");
  expect(native().describe().threads).toBe(1);
});
