// What must not lose a run of hours: output folders that cannot be written, a full disk, long time limits, seeds.
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { timeLimit } from "../../lib/cli/train.js";
import { encodePng, writePng } from "../../lib/image/image-io.js";
import { tinyCodec, tinyPipeline, tinySettings } from "../pipelines/tiny.js";
import { runCli, startCli } from "./run-cli.js";

let folder: string;
let model: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-train-cli-"));
  model = await tinyPipeline();
  const pictures = join(folder, "pictures");
  for (let i = 0; i < 2; ++i) {
    const data = Uint8Array.from({ length: 768 }, (_, k) => (k * (i + 1) * 7) % 256);
    await writePng(join(pictures, `${i}.png`), { width: 16, height: 16, data });
  }
  const recipe = {
    kind: "tokenizer",
    name: "tiny",
    data: pictures,
    batchSize: 2,
    steps: 40,
    lr: 1e-3,
    seed: 7,
    model: tinyCodec,
  };
  await writeFile(join(folder, "recipe.json"), JSON.stringify(recipe));
});

afterAll(async () => {
  await rm(folder, { recursive: true });
  await rm(model, { recursive: true });
});

const train = ["train", "tokenizer", "--recipe", "recipe.json"];

describe("folders of runs", () => {
  it("keeps a run that is there, and begins none where one was to be resumed", async () => {
    const run = (...more: string[]) =>
      runCli([...train, "--out", "kept", "--steps", "1", ...more], folder);
    const early = await run("--resume");
    expect(early.stderr).toMatch(/expected a training state to resume in "kept", got none/);
    expect(early.code).toBe(2);
    expect(existsSync(join(folder, "kept"))).toBe(false);
    expect((await run()).code).toBe(0);
    const state = await readFile(join(folder, "kept", "state.safetensors"));
    const again = await run();
    expect(again.stderr).toMatch(/expected --out to be a new run, got "kept".*; add --resume/);
    expect(again.code).toBe(2);
    expect(await readFile(join(folder, "kept", "state.safetensors"))).toEqual(state);
    await rm(join(folder, "kept", "state.safetensors"));
    const other = await run();
    expect([other.code, other.stderr]).toEqual([2, expect.stringContaining("holds a pipeline")]);
  });
});

describe.runIf(process.platform === "linux")("folders that cannot be written", () => {
  it.each([
    ["train", "/etc/passwd/x", /train: expected to write "\/etc\/passwd\/x", got a parent that is a file \(EEXIST\)/],
    ["train", "/proc/x", /train: expected to write "\/proc\/x", got .* \(ENOENT\); choose another folder/],
    ["demo", "/etc/passwd/x", /demo: expected to write/],
    ["sample", "/etc/passwd/x/y.png", /sample: expected to write/],
    ["sample", "/proc/x/y.png", /sample: expected to write/],
    ["sample", "pictures", /sample: expected --out to name a file, got the folder/],
  ])("%s --out %s", async (command, out, message) => {
    const args = command === "train" ? train : [command, "--model", model];
    const { code, stderr } = await runCli([...args, "--out", out], folder);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(code).toBe(3);
  }); // prettier-ignore

  it("a full disk under the log: the state is saved first", async () => {
    const out = join(folder, "full");
    await mkdir(out);
    await symlink("/dev/full", join(out, "log.jsonl"));
    const { code, stderr } = await runCli([...train, "--out", out, "--steps", "100000"], folder);
    expect(stderr).toMatch(/got a full disk \(ENOSPC\);.*the state after step \d+ is saved/);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(code).toBe(3);
    expect(existsSync(join(out, "state.safetensors"))).toBe(true);
  });
});

describe("seed", () => {
  it.each([
    [[], 7],
    [["--seed", "0"], 0],
  ])("%j makes it %i", async (flags, seed) => {
    const out = join(folder, `seed-${seed}`);
    const { code } = await runCli([...train, "--out", out, "--steps", "1", ...flags], folder);
    expect(code).toBe(0);
    const file = JSON.parse(await readFile(join(out, "pipeline.json"), "utf8")) as unknown;
    expect(file).toMatchObject({ training: { recipe: { seed } } });
  });
});

it("a VAE, its refiner, and pictures of both", { timeout: 60_000 }, async () => {
  const write = (name: string, recipe: object): Promise<void> =>
    writeFile(join(folder, name), JSON.stringify({ name, data: join(folder, "pictures"), batchSize: 2, steps: 2, lr: 1e-3, ...recipe }));
  const widths = { encoderChannels: "16:64,4:16,1:8", decoderChannels: "16:8,4:16,1:8" };
  const strings = { encoder: "16d4,16t4,4d4,4t1,1x1", decoder: "1x1,1u4,1t4,4u4,4t16,16x1" };
  await write("vae.json", { kind: "vae", model: { resolution: 16, ...strings, ...widths } });
  await write("refiner.json", {
    kind: "denoiser", resolution: 16, network: "diffusevae-unet",
    model: { resolution: 16, channels: 8, multipliers: [1, 2], residualBlocks: 1, attentionFactors: [2], groups: 4 },
    process: { kind: "gaussian", chain: { timesteps: 20 }, formulation: 2 },
    sampling: { sampler: "ddim", steps: 2, spacing: "trailing", guidanceScale: 1 },
  });
  const run = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await runCli(args, folder);
    expect(code, stderr).toBe(0);
    return stderr;
  };
  await run("train", "vae", "--recipe", "vae.json", "--out", "vae");
  await run("reconstruct", "pictures/0.png", "--model", "vae", "--out", "back.png");
  expect(existsSync(join(folder, "back.png"))).toBe(true);
  await run("train", "denoiser", "--recipe", "refiner.json", "--vae", "vae", "--out", "refined");
  await run("train", "denoiser", "--recipe", "refiner.json", "--vae", "vae", "--out", "refined", "--resume", "--steps", "3");
  await run("sample", "--model", "refined", "--out", "refined.png");
  expect(existsSync(join(folder, "refined.png"))).toBe(true);
  const log = await readFile(join(folder, "refined", "log.jsonl"), "utf8");
  expect(log).toMatch(/"step":3.*"error":/);
}); // prettier-ignore

it("a refused training leaves no empty folder", async () => {
  const recipe = {
    kind: "vae",
    data: join(folder, "nowhere"),
    name: "x",
    batchSize: 2,
    steps: 2,
    lr: 1e-3,
  };
  const strings = { encoder: "16d4,16t4,4d4,4t1,1x1", decoder: "1x1,1u4,1t4,4u4,4t16,16x1" };
  const widths = { encoderChannels: "16:64,4:16,1:8", decoderChannels: "16:8,4:16,1:8" };
  const model = { resolution: 16, ...strings, ...widths };
  await writeFile(join(folder, "no-data.json"), JSON.stringify({ ...recipe, model }));
  const args = ["train", "vae", "--recipe", "no-data.json", "--out", "refused"];
  const { code, stderr } = await runCli(args, folder);
  expect(stderr).toMatch(/nowhere/);
  expect(code).not.toBe(0);
  expect(existsSync(join(folder, "refused"))).toBe(false);
});

/**
 * Ctrl-C right after the first lines, of progress and then of stopping, before anything else goes on: a signal of the
 * system would come at any time, also when all is over.
 */
const stopAtLines = (count: number): string => `
  const { write } = process.stderr;
  let left = ${count};
  process.stderr.write = function (...args) {
    if (left-- > 0) queueMicrotask(() => process.emit("SIGINT"));
    return write.apply(this, args);
  };`;

it("a training that is stopped while it tokenises, once or twice, leaves no folder", async () => {
  const pictures = join(folder, "many");
  await mkdir(pictures);
  const png = await encodePng({ width: 16, height: 16, data: new Uint8Array(768).fill(50) });
  for (let i = 0; i < 400; ++i) await writeFile(join(pictures, `${i}.png`), png);
  const recipe = {
    ...{ kind: "vq-diffusion", name: "many", data: pictures },
    ...{ batchSize: 2, steps: 2, lr: 1e-3, condition: { kind: "none" } },
    transformer: { width: 8, layers: 1, heads: 2 },
    process: { timesteps: 12 },
    sampling: { ...tinySettings.defaults, guidanceScale: 1 },
  };
  await writeFile(join(folder, "many.json"), JSON.stringify(recipe));
  const args = ["--recipe", "many.json", "--tokenizer", model, "--out", "stopped/early"];
  for (const [times, end] of [/error \[aborted\]/, /at once\n$/].entries()) {
    const preload = stopAtLines(times + 1);
    const { finished } = startCli(["train", "vq-diffusion", ...args], folder, preload);
    const { code, stderr } = await finished;
    expect(stderr).toMatch(/^tokenise: 64\/400\nstopping; press Ctrl-C again/);
    expect(stderr).toMatch(end);
    expect(code).toBe(130);
    expect(existsSync(join(folder, "stopped"))).toBe(false);
  }
});

it("a wrong flag exits with the code for usage", async () => {
  const { code, stderr } = await runCli([...train, "--steps", "x"], folder);
  expect(stderr).toMatch(/expected a whole number/);
  expect(code).toBe(2);
});

describe("a time limit", () => {
  afterEach(() => void vi.useRealTimers());

  it("holds for longer than one timer can", () => {
    vi.useFakeTimers();
    const signal = timeLimit(40_000);
    vi.advanceTimersByTime(39_999 * 60_000);
    expect(signal.aborted).toBe(false);
    vi.advanceTimersByTime(2 * 60_000);
    expect(signal.aborted).toBe(true);
  });
});
