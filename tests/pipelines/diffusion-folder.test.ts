// Folders of kind "diffusion": written, opened, and refused with what is wrong.
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { DiffusionError } from "../../lib/errors.js";
import {
  diffusionFile,
  openDiffusion,
  type NetworkConfig,
} from "../../lib/pipelines/diffusion-folder.js";
import { readPipelineFile } from "../../lib/pipelines/pipeline.js";
import { tinyDiffusion, tinyDit, tinySystems, type TinySystem } from "./tiny-diffusion.js";

const folders: string[] = [];

afterAll(async () => {
  for (const folder of folders) await rm(folder, { recursive: true });
});

const written = async (system: TinySystem): Promise<string> => {
  const folder = await tinyDiffusion(system);
  folders.push(folder);
  return folder;
};

describe("a diffusion folder", () => {
  it.each(Object.entries(tinySystems))("of %s opens as it was written", async (_, system) => {
    const folder = await written(system);
    const { settings, parts } = await openDiffusion(folder, await readPipelineFile(folder));
    expect(settings).toEqual(system.settings);
    expect(Object.keys(parts.weights)).toEqual(Object.keys(system.parts));
    for (const buffers of Object.values(parts.weights))
      buffers.forEach((buffer) => buffer.dispose());
  });

  it("says that its file is wrong, and which weights are", async () => {
    const folder = await written(tinySystems.dit);
    const path = join(folder, "pipeline.json");
    const text = await readFile(path, "utf8");
    await writeFile(path, text.replace('"width": 16', '"width": 32'));
    const open = async () => openDiffusion(folder, await readPipelineFile(folder));
    await expect(open()).rejects.toThrow(/denoiser\.safetensors: .*differences/);
    await writeFile(path, text.replace('"steps": 4', '"stepz": 4'));
    await expect(open()).rejects.toMatchObject({
      code: "checkpoint",
      message: expect.stringMatching(/pipeline\.json.*settings\.defaults.*did you mean "steps"/),
    });
  });

  const { dit, ddpm, text, diffusevae } = tinySystems;
  const { parts } = dit;
  it.each<[string, TinySystem, RegExp]>([
    ["an unknown part", { ...dit, parts: { ...parts, vea: parts.firstStage } as never }, /components: expected denoiser and others.*"vea"/],
    ["an unknown network", { ...dit, parts: { ...parts, denoiser: { model: "dti", config: {} } } }, /a network among dit.*"dti"/],
    ["an unknown option of a network", { ...dit, parts: { ...parts, denoiser: { model: "dit", config: { ...tinyDit, deep: 1 } } } }, /dit: .*"deep"/],
    ["no first stage", { ...dit, parts: { denoiser: parts.denoiser } }, /a firstStage for states of 4 channels/],
    ["no variance", { ...dit, settings: { ...dit.settings, process: { kind: "gaussian", chain: { timesteps: 40 } } } }, /variance: expected learned or learnedRange/],
    ["a size", { ...dit, settings: { ...dit.settings, size: [4, 8] } }, /settings\.size: expected \[8,8\], got \[4,8\]/],
    ["a stride", { ...ddpm, settings: { ...ddpm.settings, size: [7, 8] } }, /sides divisible by 2/],
    ["a spacing of paths", { ...ddpm, settings: { ...ddpm.settings, defaults: { ...ddpm.settings.defaults, spacing: "even" } } }, /spacing: expected one of trailing.*"even"/],
    ["a sampler of paths", { ...ddpm, settings: { ...ddpm.settings, defaults: { ...ddpm.settings.defaults, sampler: "flow-ode" } } }, /needs a path/],
    ["a sampler option", { ...ddpm, settings: { ...ddpm.settings, defaults: { ...ddpm.settings.defaults, samplerOptions: { ega: 1 } } } }, /ddim: .*did you mean "eta"/],
    ["more steps than the chain has", { ...ddpm, settings: { ...ddpm.settings, defaults: { ...ddpm.settings.defaults, steps: 41 } } }, /a count from 1 to 40/],
    ["no text encoder", { ...text, parts: { denoiser: text.parts.denoiser, firstStage: parts.firstStage } }, /a textEncoder or classEmbedder of width 16.*none/],
    ["classes without names for all", { ...dit, settings: { ...dit.settings, classes: ["a"] } }, /settings\.classes: expected 5 names, got 1/],
    ["a chain of no kind", { ...ddpm, settings: { ...ddpm.settings, process: { kind: "gaussian", chain: { timesteps: 40, schedule: "lienar" as never } } } }, /process\.chain: .*schedule/],
    ["formulation 2 without a vae", { ...ddpm, settings: { ...ddpm.settings, process: { ...diffusevae.settings.process } } }, /formulation: expected 1 without a vae/],
  ])("refuses %s", (_, system, message) => {
    const named = system.parts as Record<string, NetworkConfig>;
    expect(() => diffusionFile("x", named, system.settings)).toThrow(message);
  }); // prettier-ignore
});

/** Every place of plain data, as a path of keys. */
function* leaves(value: unknown, path: readonly string[] = []): Generator<readonly string[]> {
  if (path.length > 0) yield path;
  if (typeof value !== "object" || value === null) return;
  for (const [key, item] of Object.entries(value)) yield* leaves(item, [...path, key]);
}

function replaced(value: unknown, [key, ...rest]: readonly string[], by: unknown): unknown {
  if (key === undefined) return by;
  const copy = structuredClone(value) as Record<string, unknown>;
  copy[key] = replaced(copy[key], rest, by);
  return copy;
}

describe("pipeline.json of a stranger", () => {
  it.each(Object.entries(tinySystems))(
    "%s: any other value anywhere is accepted or refused with an error of ours",
    (_, system) => {
      let refused = 0;
      // what is above is checked when the file is read
      const inside = [...leaves(system)].filter(([top, ...rest]) => rest.length > (top === "parts" ? 2 : 0)); // prettier-ignore
      for (const path of inside)
        for (const wrong of [null, -1, 0.5, 1e9, "x", {}, [], [[]], true]) {
          const { parts, settings } = replaced(system, path, wrong) as TinySystem;
          try {
            diffusionFile("x", parts as Record<string, NetworkConfig>, settings);
          } catch (error) {
            ++refused;
            expect(error, `${path.join(".")} = ${JSON.stringify(wrong)}`).toBeInstanceOf(
              DiffusionError,
            );
          }
        }
      expect(refused).toBeGreaterThan(100);
    },
  );
});
