// A published denoiser from its file to a picture by the commands alone, as a user would.
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeImage, readPngMetadata, writePng } from "../../lib/image/image-io.js";
import { foreignFile, foreignPart, posEmbed } from "../pipelines/foreign-parts.js";
import { tinySystems } from "../pipelines/tiny-diffusion.js";
import { runCli } from "./run-cli.js";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-cli-diffusion-"));
  const { dit } = tinySystems;
  const own = foreignPart(dit, "denoiser", "dit").set("pos_embed", posEmbed);
  await foreignFile(join(folder, "dit.safetensors"), own);
  const stage = foreignPart(dit, "firstStage", "compvis-autoencoder-kl");
  await foreignFile(join(folder, "kl.safetensors"), stage);
  await writePng(join(folder, "in.png"), {
    width: 16,
    height: 16,
    data: Uint8Array.from({ length: 768 }, (_, i) => (i * 31) % 256),
  });
});

afterAll(() => rm(folder, { recursive: true }));

const run = (...words: string[]) => runCli(words.join(" ").split(" "), folder);
const facts = "--set resolution=16 --set compvis-autoencoder-kl.groups=4 --set latentScale=0.5";

describe("a DiT and its autoencoder", () => {
  it("are asked for what is missing, then converted, sampled and repeated", async () => {
    const lone = await run("convert dit.safetensors lone --set heads=2 --set sigma=learned");
    expect(lone.code).toBe(2);
    expect(lone.stderr).toMatch(/expected the other parts of a pipeline.*--first-stage FILE/s);
    expect(existsSync(join(folder, "lone"))).toBe(false);
    const done = await run("convert dit.safetensors pipe --first-stage kl.safetensors --set heads=2 --set sigma=learned --set timesteps=40", facts); // prettier-ignore
    expect(done.code, done.stderr).toBe(0);
    expect(done.stdout).toMatch(/schedule = "linear": default of the original code/);
    expect(done.stdout).toMatch(/variance = "learnedRange": the network/);
    expect(done.stdout).toMatch(/smalti sample --model pipe\n$/);
    const made = await run("sample --model pipe --class 3 --sampler dpm-solver-2m --steps 5 --guidance 4 --count 2 --seed 1 --set guidanceRescale=0.5 --json"); // prettier-ignore
    expect(made.code, made.stderr).toBe(0);
    const { metadata } = JSON.parse(made.stdout) as { metadata: object[] };
    expect(metadata[1]).toMatchObject({ model: "pipe", settings: { class: "3", steps: 5, sampler: "dpm-solver-2m", guidanceRescale: 0.5, sample: 1 } }); // prettier-ignore
    expect(await readPngMetadata(join(folder, "sample-2.png"))).toEqual(metadata[1]);
    expect((await decodeImage(join(folder, "sample-1.png"))).width).toBe(16);
    const again = await run("repro sample-2.png --json");
    expect(JSON.parse(again.stdout)).toMatchObject({ identical: true });
    const wrong = await run("sample --model pipe --class 3 --sampler dpm-solver-2n");
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringMatching(/sampler to be one of/)]);
    const foreign = await run("sample --model pipe --class 3 --style plain");
    expect([foreign.code, foreign.stderr]).toEqual([2, expect.stringMatching(/"style"/)]);
  }, 60_000); // six processes

  it("reconstructs by an autoencoder alone and by a pipeline with one", async () => {
    const alone = await run("convert kl.safetensors kl", facts.replace(" --set latentScale=0.5", "")); // prettier-ignore
    expect(alone.code, alone.stderr).toBe(0);
    const back = await run("reconstruct in.png --model kl --json");
    expect(back.code, back.stderr).toBe(0);
    expect(JSON.parse(back.stdout)).toMatchObject({ psnr: expect.any(Number) as number });
    const whole = await run("reconstruct in.png --model pipe --json");
    expect(JSON.parse(whole.stdout)).toEqual(JSON.parse(back.stdout));
    const plain = await run("convert dit.safetensors networks --networks-only --set heads=2 --set sigma=learned"); // prettier-ignore
    expect(plain.code, plain.stderr).toBe(0);
    const none = await run("sample --model networks --class 1");
    expect([none.code, none.stderr]).toEqual([3, expect.stringMatching(/got kind "models" with components model/)]); // prettier-ignore
  }, 60_000); // six processes
});
