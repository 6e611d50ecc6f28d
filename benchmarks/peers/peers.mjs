// Which other libraries are here, and how their workers are started.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

const here = import.meta.dirname;
export const cache = resolve(here, "../../.cache/peers");
const ortVersion = "1.30.0";
const openBlas = "/usr/lib/x86_64-linux-gnu/openblas-openmp/libopenblas.so.0";

/** Installs ONNX Runtime in a folder of its own, without running its install script (which downloads). */
export function install() {
  mkdirSync(cache, { recursive: true });
  const args = ["install", "--prefix", cache, "--ignore-scripts", "--no-audit", "--no-fund"];
  execFileSync("npm", [...args, `onnxruntime-node@${ortVersion}`], { stdio: "inherit" });
}

const preload = existsSync(openBlas) ? { LD_PRELOAD: openBlas } : {};

/** Prints its version, and whether it multiplies by reference BLAS: that takes 5 to 30 times as long and is no comparison. */
const torchProbe = [
  "import os, torch",
  'maps = "/proc/self/maps"',
  'libraries = open(maps).read() if os.path.exists(maps) else ""',
  'print(torch.__version__, "/blas/libblas" in libraries and "openblas" not in libraries)',
].join("\n");

function probePython(python) {
  const env = { ...process.env, ...preload };
  const { status, stdout } = spawnSync(python, ["-c", torchProbe], { encoding: "utf8", env });
  if (status !== 0) return undefined;
  const [version, isReference] = stdout.trim().split(" ");
  return { python, version, hasReferenceBlas: isReference === "True" };
}

/** A Python that has torch, by SMALTI_PEER_PYTHON or in the usual places. */
function findTorch() {
  for (const python of [process.env.SMALTI_PEER_PYTHON, "/usr/bin/python3", "python3"]) {
    const torch = python && probePython(python);
    if (torch) return torch;
  }
  return undefined;
}

const findOrt = () => {
  const manifest = join(cache, "node_modules", "onnxruntime-node", "package.json");
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")).version : undefined;
};

/** What is installed; a peer that is missing is named in `missing` with the way to get it. */
export function findPeers() {
  const found = findTorch();
  const torch = found?.hasReferenceBlas ? undefined : found;
  const ort = findOrt();
  const missing = [];
  if (found && !torch) missing.push("torch, for want of OpenBLAS (libopenblas0-openmp)");
  if (!found)
    missing.push("torch (Debian: apt-get install python3-torch python3-onnx libopenblas0-openmp)");
  if (!ort) missing.push("ONNX Runtime (npm run bench:peers -- --install)");
  if (ort && !torch) missing.push("ONNX Runtime's models, which torch exports");
  return { torch, ort: torch && ort, missing };
}

const hasAvx512 = () => {
  try {
    return readFileSync("/proc/cpuinfo", "utf8").includes("avx512f");
  } catch {
    return false;
  }
};

/** glibc keeps large blocks instead of giving them back at every free. */
const keepBlocks = {
  MALLOC_MMAP_THRESHOLD_: "4294967296",
  MALLOC_TRIM_THRESHOLD_: "8589934592",
  MALLOC_TOP_PAD_: "268435456",
};

const avx2Only = {
  DNNL_MAX_CPU_ISA: "AVX2",
  ATEN_CPU_CAPABILITY: "avx2",
  OPENBLAS_CORETYPE: "Haswell",
};

/** Environments of torch: as installed (with an OpenBLAS whose threads are torch's own), and tuned. */
export function torchEnvironments(threads, isa) {
  const common = {
    OMP_NUM_THREADS: String(threads),
    OPENBLAS_NUM_THREADS: String(threads),
    ...preload,
    ...(isa === "avx2" && avx2Only),
  };
  const wide = isa !== "avx2" && hasAvx512() ? { ATEN_CPU_CAPABILITY: "avx512" } : {};
  return { installed: common, tuned: { ...common, ...keepBlocks, ...wide } };
}

const script = join(here, "worker.py");

export const torchWorker = (python, env, { name, batch }, variant) => ({
  command: python,
  args: [script, name, String(batch), variant],
  env,
});

/** Milliseconds of each variant; also writes the ONNX model, when a path is given. */
export function probeTorch(python, env, { name, batch, torch }, onnx) {
  const args = [script, name, String(batch), "--probe", torch.join(",")];
  const { status, stdout, stderr } = spawnSync(
    python,
    [...args, ...(onnx ? ["--onnx", onnx] : [])],
    {
      env: { ...process.env, ...env },
      encoding: "utf8",
    },
  );
  if (status !== 0) throw new Error(`torch: ${stderr.trim().split("\n").at(-1)}`);
  return JSON.parse(stdout.trim().split("\n").at(-1));
}

export const ortWorker = (model, threads) => ({
  command: process.execPath,
  args: [join(here, "ort.mjs"), cache, model, String(threads)],
  env: {},
});

export const ourWorker = ({ name, batch }, threads, isa, more = []) => ({
  command: process.execPath,
  args: [join(here, "ours.mjs"), name, String(batch), ...more],
  env: { SMALTI_THREADS: String(threads), ...(isa && { SMALTI_ISA: isa }) },
});
