// Layering: a file may import from its own folder and from folders with a strictly lower number (docs/architecture.md).
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "..");

const layers: Record<string, number> = {
  errors: 0, version: 0, files: 1, ir: 1, trace: 2, autodiff: 3, runtime: 3, nn: 4, optim: 4, processes: 4, text: 4, image: 4,
  kernels: 5, models: 5, samplers: 5, data: 5, checkpoint: 5, trainers: 6, metrics: 6, pipelines: 7, golden: 8, server: 8,
  cli: 9, index: 10,
}; // prettier-ignore

// Folders that may use node:* or packages.
const outsideWorld = new Set(["files", "runtime", "text", "checkpoint", "image", "data", "metrics", "server", "cli", "golden", "trainers", "pipelines"]); // prettier-ignore

const nativeLayers: Record<string, string[]> = {
  core: ["core"],
  kernels: ["core", "kernels"],
  ref: ["core", "kernels", "ref"],
  cpu: ["core", "kernels", "cpu", "ref"],
  ir: ["core", "ir"],
  compile: ["core", "kernels", "ir", "compile", "cpu/isa.h"],
  runtime: ["core", "kernels", "ir", "compile", "runtime", "cpu/isa.h"],
  bindings: ["core", "kernels", "ir", "compile", "runtime", "cpu/isa.h", "bindings"],
};

function filesBelow(folder: string, endings: string[]): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return filesBelow(path, endings);
    return endings.some((ending) => name.endsWith(ending)) ? [path] : [];
  });
}

const folderOf = (path: string): string => {
  const parts = relative(join(root, "lib"), path).split("/");
  return parts.length === 1 ? parts[0]!.replace(/\.ts$/, "") : parts[0]!;
};

function importsOf(path: string): string[] {
  const text = readFileSync(path, "utf8");
  return [...text.matchAll(/(?:from|import)\s+"([^"]+)"|import\("([^"]+)"\)/g)].map(
    (m) => m[1] ?? m[2]!,
  );
}

describe("layering", () => {
  const files = filesBelow(join(root, "lib"), [".ts"]);

  it("finds the library", () => expect(files.length).toBeGreaterThan(20));

  it.each(files.map((file) => [relative(root, file), file]))(
    "%s imports only downwards",
    (_, file) => {
      const from = folderOf(file);
      expect(layers, `folder ${from} has no layer`).toHaveProperty(from);
      const bad = importsOf(file).filter((specifier) => {
        if (!specifier.startsWith(".")) return !outsideWorld.has(from);
        const to = folderOf(resolve(dirname(file), specifier.replace(/\.js$/, ".ts")));
        return to !== from && !(layers[to]! < layers[from]!);
      });
      expect(bad).toEqual([]);
    },
  );

  it("has no import cycles", () => {
    const graph = new Map(
      files.map((file) => [
        file,
        importsOf(file)
          .filter((s) => s.startsWith("."))
          .map((s) => resolve(dirname(file), s.replace(/\.js$/, ".ts"))),
      ]),
    );
    const state = new Map<string, "open" | "done">();
    const cycles: string[] = [];
    const visit = (file: string): void => {
      if (state.get(file) === "done") return;
      if (state.get(file) === "open") return void cycles.push(relative(root, file));
      state.set(file, "open");
      graph.get(file)?.forEach(visit);
      state.set(file, "done");
    };
    files.forEach(visit);
    expect(cycles).toEqual([]);
  });
});

// Counts tracked files: not where there is no repository, as in a package.
describe.skipIf(!existsSync(join(root, ".git")))("line budget", () => {
  it("no folder is over its ceiling", () => {
    const { stdout, stderr } = spawnSync(process.execPath, ["scripts/size.mjs"], {
      cwd: root,
      encoding: "utf8",
    });
    expect(stdout + stderr).toMatch(/^lib +\d+ of \d+$/m);
    expect(stdout).not.toContain("OVER");
  });
});

describe("native layering", () => {
  const sources = ["native", "bindings"].flatMap((folder) =>
    filesBelow(join(root, folder), [".h", ".cc", ".inc"]),
  );

  it.each(sources.map((file) => [relative(root, file), file]))(
    "%s includes only downwards",
    (_, file) => {
      const path = relative(root, file).split("/");
      const from = path[0] === "bindings" ? "bindings" : path[1]!;
      const allowed = nativeLayers[from];
      expect(allowed, `folder ${from} has no layer`).toBeDefined();
      const bad = [
        ...readFileSync(file, "utf8").matchAll(/#include "((?:native|bindings)\/[^"]+)"/g),
      ]
        .map((m) => m[1]!.replace(/^native\//, ""))
        .filter((to) => !allowed!.some((prefix) => to === prefix || to.startsWith(`${prefix}/`)));
      expect(bad).toEqual([]);
      const usesNapi = /#include <napi\.h>/.test(readFileSync(file, "utf8"));
      expect(usesNapi && from !== "bindings").toBe(false);
    },
  );
});
