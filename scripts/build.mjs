// Builds what is out of date: the addon through cmake-js into build/Release, the library through tsc into build/library
// and from there, in fewer and larger files, into dist/.
// --native: the addon only; --quiet: print nothing when there is nothing to do.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { bundle } from "./bundle.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const flags = new Set(process.argv.slice(2));
const addon = join(root, "build", "Release", "smalti.node");

function filesBelow(path) {
  if (!existsSync(path)) return [];
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path)
    .sort()
    .flatMap((name) => filesBelow(join(path, name)));
}

/** One hash of the contents of all sources of a part. */
function fingerprint(paths) {
  const hash = createHash("sha256").update(process.version).update(process.arch);
  for (const path of paths.flatMap((p) => filesBelow(join(root, p))))
    hash.update(path.slice(root.length)).update(readFileSync(path));
  return hash.digest("hex");
}

const stampPath = (name) => join(root, "build", `${name}.stamp`);
const isCurrent = (name, print, product) =>
  existsSync(product) &&
  existsSync(stampPath(name)) &&
  readFileSync(stampPath(name), "utf8") === print;

function stop(message) {
  console.error(message);
  process.exit(1);
}

const has = (command) => spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;

function expectTools() {
  const compilers = [process.env.CXX, "c++", "g++", "clang++"].filter(Boolean);
  const hint =
    process.platform === "darwin"
      ? "xcode-select --install; brew install cmake"
      : "apt-get install cmake g++";
  if (!has("cmake")) stop(`build: expected cmake on the path, got none; install it (${hint})`);
  if (!compilers.some(has))
    stop(`build: expected a C++ compiler on the path, got none; install one (${hint})`);
}

function run(command, args) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: "inherit", env: process.env });
  if (status !== 0) stop(`build: ${command} ${args[0] ?? ""} failed`);
}

async function build(name, sources, product, work) {
  const print = fingerprint(sources);
  if (isCurrent(name, print, product)) return;
  const start = performance.now();
  console.error(`building ${name} …`);
  await work();
  mkdirSync(join(root, "build"), { recursive: true });
  writeFileSync(stampPath(name), print);
  console.error(`built ${name} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}

const bin = (name) => join(root, "node_modules", ".bin", name);

await build("the native core", ["native", "bindings", "CMakeLists.txt"], addon, () => {
  expectTools();
  // The addon uses Node-API only: cmake-js takes the headers from node-api-headers and downloads nothing.
  run(bin("cmake-js"), [
    "build",
    "--log-level",
    "warn",
    "--parallel",
    String(availableParallelism()),
  ]);
});
if (!flags.has("--native")) {
  await build(
    "the library",
    ["lib", "scripts", "tsconfig.json", "tsconfig.build.json"],
    join(root, "dist", "library", "library.cache"),
    async () => {
      run(bin("tsc"), ["-p", "tsconfig.build.json"]);
      await bundle(join(root, "build", "library"), join(root, "dist"));
    },
  );
}
if (!flags.has("--quiet")) console.error("build: up to date");
