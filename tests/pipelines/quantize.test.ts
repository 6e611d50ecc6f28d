// Pipelines on 8-bit integers or narrow weights: near the pictures in floats, repeatable, and said by the pictures themselves.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { readPngMetadata } from "../../lib/image/image-io.js";
import { psnr } from "../../lib/metrics/psnr.js";
import { loadPipeline, type Pipeline } from "../../lib/pipelines/load-pipeline.js";
import { Program } from "../../lib/runtime/program.js";
import { runCli } from "../cli/run-cli.js";
import { tinyDiffusion, tinyDit, tinySystems } from "./tiny-diffusion.js";

let folder: string;
let model: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-quantize-"));
  const { dit } = tinySystems;
  const config = { ...tinyDit, width: 64 }; // wide enough for integers
  model = await tinyDiffusion({ ...dit, parts: { ...dit.parts, denoiser: { model: "dit", config } } }); // prettier-ignore
});

afterAll(async () => {
  for (const each of [folder, model]) await rm(each, { recursive: true });
});

const pictures = async (pipe: Pipeline, batchSize: number) =>
  (await pipe.generate({ prompt: "", seed: 3, count: 2, steps: 3, batchSize })).images;

describe.each([
  ["emoji-64", 3, "int8"], // what the text decides, and two graphs of steps: "purity" reveals, then fills
  ["dit", 1, "int8"],
  ["dit", 1, "int8-weights"],
  ["dit", 1, "f16-weights"],
] as const)("%s in %s graphs of steps with %s", (name, steps, quantize) => {
  const source = () => (name === "dit" ? model : name);

  it("draws nearly what floats draw, whatever the batch", async () => {
    using floats = await loadPipeline(source());
    using narrow = await loadPipeline(source(), { quantize });
    expect([floats.quantize, narrow.quantize]).toEqual([undefined, quantize]);
    const expected = await pictures(floats, 2);
    const found = await pictures(narrow, 2);
    const alone = await pictures(narrow, 1);
    expect(alone.map(({ data }) => data)).toEqual(found.map(({ data }) => data));
    found.forEach(({ data }, i) => {
      expect(data).not.toEqual(expected[i]!.data);
      if (name === "dit") expect(psnr(data, expected[i]!.data)).toBeGreaterThan(30);
    });
  });

  it("computes steps alone so", async () => {
    const bound = vi.spyOn(Program.prototype, "bind");
    using narrow = await loadPipeline(source(), { quantize });
    await pictures(narrow, 2);
    const programs = bound.mock.contexts as Program[];
    const inSteps = programs.filter((program) => program.print().includes(` ${quantize} `));
    bound.mockRestore();
    expect(programs.length).toBeGreaterThan(steps);
    expect(inSteps).toHaveLength(steps);
  });

  it("says so in its pictures, which only it makes again", async () => {
    using narrow = await loadPipeline(source(), { quantize });
    const [image] = await pictures(narrow, 1);
    const path = join(folder, `${name}.png`);
    await image!.save(path);
    const metadata = (await readPngMetadata(path))!;
    expect(metadata.settings).toMatchObject({ quantize });
    expect((await narrow.regenerate(metadata)).data).toEqual(image!.data);
    using floats = await loadPipeline(source());
    await expect(floats.regenerate(metadata)).rejects.toMatchObject({
      code: "data",
      message: expect.stringMatching(
        new RegExp(`with no quantize .*got one with quantize "${quantize}"`),
      ),
    });
    const [plain] = await pictures(floats, 1);
    expect(plain!.metadata.settings).not.toHaveProperty("quantize");
    await expect(narrow.regenerate(plain!.metadata)).rejects.toThrow(/got one with no quantize/);
  });
});

describe("the command", () => {
  it.each(["int8", "f16-weights"])("samples on %s, and repro finds that out", async (way) => {
    const ask = ["sample", "--model", model, "--quantize", way, "--out", "i.png"];
    const { code, stderr } = await runCli(ask, folder);
    expect(code, stderr).toBe(0);
    const again = await runCli(["repro", "i.png", "--model", model, "--json"], folder);
    expect(JSON.parse(again.stdout)).toMatchObject({ identical: true });
  });

  it("refuses other types by name", async () => {
    const { code, stderr } = await runCli(["sample", "--quantize", "int4"], folder);
    expect(code).toBe(2);
    expect(stderr).toMatch(/loadPipeline: expected quantize "int8", .* or none, got "int4"/);
  });
});
