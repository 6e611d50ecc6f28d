import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSafetensors } from "../../lib/checkpoint/safetensors.js";
import { decodeImage, writePng } from "../../lib/image/image-io.js";
import { tinyCodec, tinyPipeline } from "../pipelines/tiny.js";
import { runCli, startCli } from "./run-cli.js";

let folder: string;
let model: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-cli-"));
  model = await tinyPipeline();
});

afterAll(async () => {
  await rm(folder, { recursive: true });
  await rm(model, { recursive: true });
});

const commands = ["demo", "sample", "reconstruct", "tokens", "repro", "train tokenizer", "train vq-diffusion", "data emoji", "inspect", "convert", "doctor", "bench", "parity"]; // prettier-ignore

/** 30 lines of 80 columns. */
function fitsScreen(help: string): void {
  const lines = help.trimEnd().split("\n");
  expect(lines.length).toBeLessThanOrEqual(30);
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
}

describe("help and errors", () => {
  it.each(commands)("%s --help fits a screen and knows the common options", async (command) => {
    const { code, stdout } = await runCli([...command.split(" "), "--help"], folder);
    expect(code).toBe(0);
    fitsScreen(stdout);
    for (const option of ["--json", "--seed <n>", "--threads <n>"])
      expect(stdout).toContain(option);
  });

  it.each(["", "train", "data"])("smalti %s --help fits a screen", async (command) => {
    const { code, stdout } = await runCli(
      [...command.split(" ").filter(Boolean), "--help"],
      folder,
    );
    expect(code).toBe(0);
    fitsScreen(stdout);
  });

  it("says what a prompt is", async () => {
    const { stdout } = await runCli(["sample", "--help"], folder);
    expect(stdout).toMatch(/\n {2}prompt +what to make pictures of/);
  });

  it("says when an option has no effect, in the help and when it is given", async () => {
    const help = await runCli(["doctor", "--help"], folder);
    expect(help.stdout).toMatch(/--seed <n> +no effect here: nothing is drawn/);
    const { code, stdout, stderr } = await runCli(["doctor", "--seed", "1", "--json"], folder);
    expect([code, stderr]).toEqual([0, "note: --seed has no effect here: nothing is drawn\n"]);
    expect(JSON.parse(stdout)).toHaveProperty("backends");
    expect((await runCli(["doctor"], folder)).stderr).toBe("");
  });

  it("suggests a command and exits with the code for usage", async () => {
    const { code, stderr } = await runCli(["sampel"], folder);
    expect(code).toBe(2);
    expect(stderr).toContain("sample");
  });

  it.each([
    [["sample", "x", "--steps", "many"], 2, /expected a whole number/],
    [["data", "emoji", "--size", "3"], 2, /expected a whole number from 16 to 64, got 3/],
    [["bench", "--filter", "nothing"], 2, /bench: expected a filter that is part of cifar_unet/],
    [["sample", "x", "--model", "nowhere"], 3, /loadPipeline: expected a folder/],
    [["inspect", "nowhere"], 3, /does not exist/],
    [["repro", "nowhere.png"], 3, /nowhere\.png/],
    [["train", "tokenizer", "--recipe", "nowhere.json"], 2, /expected a recipe/],
    [["train", "tokenizer", "--data", "nowhere", "--out", "run"], 3, /nowhere/],
  ])("%j exits with %i", async (args, expected, message) => {
    const { code, stdout, stderr } = await runCli(args, folder);
    expect(code).toBe(expected);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(stdout).toBe("");
  });
});

describe("a pipeline", () => {
  it("samples, and repro says that no byte differs", async () => {
    const args = [
      "sample",
      "a red heart",
      "--model",
      model,
      "--style",
      "fancy",
      "--seed",
      "3",
      "--out",
      "heart.png",
      "--json",
    ];
    const { code, stdout } = await runCli(args, folder);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ files: ["heart.png"] });
    const again = await runCli(
      ["repro", "heart.png", "--model", model, "--threads", "1", "--json"],
      folder,
    );
    expect(JSON.parse(again.stdout)).toMatchObject({ identical: true, differing: 0 });
    expect(again.code).toBe(0);
  });

  it("turns an image into tokens and back", async () => {
    const image = { width: 16, height: 16, data: new Uint8Array(768).fill(99) };
    await writePng(join(folder, "grey.png"), image);
    expect(
      (await runCli(["tokens", "grey.png", "--model", model, "--out", "grey.npy"], folder)).code,
    ).toBe(0);
    const json = await runCli(["tokens", "grey.png", "--model", model], folder);
    expect(JSON.parse(json.stdout)).toMatchObject({ shape: [4, 4] });
    expect(
      (await runCli(["tokens", "grey.npy", "--model", model, "--out", "back.png"], folder)).code,
    ).toBe(0);
    expect(existsSync(join(folder, "back.png"))).toBe(true);
    const { stdout } = await runCli(
      ["reconstruct", "grey.png", "--model", model, "--json"],
      folder,
    );
    expect((JSON.parse(stdout) as { psnr: number }).psnr).toBeGreaterThan(0);
  });

  it("keeps of a picture what is black in a mask", async () => {
    const paint = (name: string, side: number, value: (i: number) => number) =>
      writePng(join(folder, name), {
        ...{ width: side, height: side },
        data: Uint8Array.from({ length: 3 * side * side }, (_, i) => value(i)),
      });
    await paint("whole.png", 16, (i) => (i * 37) % 256);
    await paint("black.png", 16, () => 100);
    await paint("small.png", 8, () => 255);
    const run = async (...words: string[]) => runCli([...words, "--model", model], folder);
    const sampled = (mask: string) =>
      run("sample", "--image", "whole.png", "--mask", mask, "--out", "some/where/kept.png");
    const wrong = await sampled("small.png");
    expect([wrong.code, wrong.stderr]).toEqual([3, expect.stringMatching(/a mask of 16 x 16/)]);
    expect(existsSync(join(folder, "some"))).toBe(false);
    expect((await sampled("black.png")).code).toBe(0);
    await run("tokens", "whole.png", "--out", "whole.json");
    await run("tokens", "whole.json", "--out", "decoded.png");
    const [kept, decoded] = await Promise.all(
      ["some/where/kept.png", "decoded.png"].map((name) => decodeImage(join(folder, name))),
    );
    expect(kept!.data).toEqual(decoded!.data);
  });

  it.each([["a"], [4294967301], [-1], [1.5], [null]])("refuses %j as a token", async (wrong) => {
    await writeFile(join(folder, "wrong.json"), JSON.stringify({ shape: [1], tokens: [0, wrong] }));
    const { code, stderr } = await runCli(["tokens", "wrong.json", "--model", model], folder);
    expect(code).toBe(3);
    expect(stderr).toContain(`got ${JSON.stringify(wrong)} at 1`);
  });

  it("hints at --model when the pipeline of a picture is gone", async () => {
    const image = { width: 16, height: 16, data: new Uint8Array(768) };
    await writePng(join(folder, "foreign.png"), image, { model: "nowhere", code: "0", seed: 1 });
    const { code, stderr } = await runCli(["repro", "foreign.png"], folder);
    expect(code).toBe(3);
    expect(stderr).toMatch(/"nowhere".*--model/);
  });

  it("inspects a folder and a file", async () => {
    const whole = await runCli(["inspect", model, "--json"], folder);
    expect(JSON.parse(whole.stdout)).toMatchObject({
      pipeline: { kind: "vq-diffusion", name: "tiny" },
    });
    const file = await runCli(["inspect", join(model, "codec.safetensors")], folder);
    expect(file.stdout).toContain("quantize.embedding.weight");
    expect(file.stdout).toContain("[20, 4]");
    const brief = await runCli(["inspect", model, "--brief"], folder);
    expect(brief.stdout).toContain("codec.safetensors: safetensors");
    expect(brief.stdout).not.toContain("quantize.embedding.weight");
  });

  it.each([
    [["sample", "--seed", ""], /expected a whole number from 0/],
    [["tokens", "nowhere.json"], /tokens in nowhere\.json, got ENOENT/],
    [["repro", "cut.png"], /cut\.png: expected a whole chunk at byte \d+/],
  ])("says what is wrong with %j", async (args, message) => {
    const image = { width: 16, height: 16, data: new Uint8Array(768) };
    await writePng(join(folder, "cut.png"), image, { model });
    await truncate(join(folder, "cut.png"), 60);
    const { code, stderr } = await runCli([...args, "--model", model], folder);
    expect(stderr).toMatch(message);
    expect(code).toBe(args[0] === "sample" ? 2 : 3);
  });
});

describe("doctor", () => {
  it("prints only JSON, with the threads asked for", async () => {
    const { code, stdout } = await runCli(["doctor", "--threads", "3", "--json"], folder);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      cpu: { threads: 3 },
      backends: [
        { name: "cpu", usable: true },
        { name: "cuda", usable: false },
      ],
    });
  });
});

describe("train", () => {
  const recipe = {
    kind: "tokenizer",
    name: "tiny",
    data: "",
    batchSize: 2,
    steps: 40,
    lr: 1e-3,
    warmup: 2,
    schedule: "constant", // the same for any number of steps
    model: tinyCodec,
  };

  beforeAll(async () => {
    const pictures = join(folder, "pictures");
    for (let i = 0; i < 4; ++i) {
      const data = Uint8Array.from({ length: 768 }, (_, k) => (k * (i + 1) * 7) % 256);
      await writePng(join(pictures, `${i}.png`), { width: 16, height: 16, data });
    }
    await writeFile(join(folder, "recipe.json"), JSON.stringify({ ...recipe, data: pictures }));
  });

  const train = (out: string, ...more: string[]) => [
    "train",
    "tokenizer",
    "--recipe",
    "recipe.json",
    "--out",
    out,
    ...more,
  ];
  /** How many steps a training state holds. */
  async function stepsOf(state: string): Promise<number> {
    using file = await openSafetensors(state);
    return (JSON.parse(file.metadata["smalti.training"]!) as { done: number }).done;
  }

  it("continues bit for bit after SIGKILL", async () => {
    const { child, finished } = startCli(
      train("killed", "--steps", "1000000", "--save-minutes", "0"),
      folder,
    );
    const state = join(folder, "killed", "state.safetensors");
    while (!existsSync(state)) await new Promise((done) => setTimeout(done, 5));
    await new Promise((done) => setTimeout(done, 40));
    child.kill("SIGKILL");
    expect((await finished).code).toBe(null);
    const steps = ["--steps", String((await stepsOf(state)) + 50)];
    expect((await runCli(train("whole", ...steps), folder)).code).toBe(0);
    const resumed = await runCli(train("killed", ...steps, "--resume"), folder);
    expect(resumed.code).toBe(0);
    const weights = (out: string) => readFile(join(folder, out, "codec.safetensors"));
    expect((await weights("killed")).equals(await weights("whole"))).toBe(true);
  });

  it("saves and says so at Ctrl-C", async () => {
    const { child, finished } = startCli(train("stopped", "--steps", "1000000"), folder);
    await new Promise((done) => child.stderr!.once("data", done)); // the first progress line
    child.kill("SIGINT");
    const { code, stderr } = await finished;
    expect(code).toBe(0);
    expect(stderr).toMatch(/saved after step \d+; continue with --resume/);
    expect((await runCli(["inspect", join("stopped", "codec.safetensors")], folder)).code).toBe(0);
  });
});
