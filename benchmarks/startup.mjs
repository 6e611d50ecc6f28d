// From the start of a process to the first picture of a pipeline, one step: seconds, and the peak of resident memory.
// Usage: node benchmarks/startup.mjs [--quantize WAY] [pipeline ...]   (after npm run build); medians of 3 processes each.
// WAY: int8, int8-weights or f16-weights.
// processor: seconds of all threads, for machines that are busy with other work. Without names: emoji-64, and the U-Net of CIFAR-10 with random weights as f32 and as f16.
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

const self = fileURLToPath(import.meta.url);
const rounds = 3;

/** In a process of its own, that imports no more than a user would. */
async function measure(folder, options) {
  const { loadPipeline } = await import("../dist/index.js");
  const imported = performance.now();
  const pipe = await loadPipeline(folder, options);
  const loaded = performance.now();
  await pipe.generate({ steps: 1 });
  const seconds = (from, to) => (to - from) / 1000;
  const { user, system } = process.cpuUsage();
  return {
    import: seconds(0, imported),
    load: seconds(imported, loaded),
    firstPicture: seconds(0, performance.now()),
    processor: (user + system) / 1e6,
    peakMiB: process.resourceUsage().maxRSS / 1024,
  };
}

/** The U-Net of DDPM for CIFAR-10 (Ho et al. 2020, arXiv:2006.11239), 35.7 M parameters, as a pipeline. */
async function writeUnet(folder, dtype) {
  const { initialValues } = await import("../dist/nn/init.js");
  const { ddpmUnet } = await import("../dist/models/ddpm-unet.js");
  const { ddpmUnetConfigs } = await import("../dist/models/ddpm-configs.js");
  const { saveDiffusion } = await import("../dist/pipelines/diffusion-folder.js");
  const config = ddpmUnetConfigs.cifar10;
  const weights = initialValues(ddpmUnet(config).parameters, 1);
  await saveDiffusion(folder, {
    ...{ name: "ddpm-cifar10", dtype },
    parts: { denoiser: { model: "ddpm-unet", config, weights } },
    settings: {
      process: { kind: "gaussian", chain: { timesteps: 1000 } },
      size: [32, 32],
      defaults: { sampler: "ddim", steps: 50, spacing: "leading", guidanceScale: 1, clamp: true },
    },
  });
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

async function report(name, folder, quantize) {
  const runs = [];
  const command = [self, "--one", ...(quantize ? ["--quantize", quantize] : []), folder];
  for (let i = 0; i < rounds; ++i) {
    const { stdout } = await promisify(execFile)(process.execPath, command);
    runs.push(JSON.parse(stdout));
  }
  const keys = Object.keys(runs[0]);
  const row = keys.map((key) => [key, Number(median(runs.map((run) => run[key])).toFixed(3))]);
  console.log(JSON.stringify({ name, quantize, ...Object.fromEntries(row) }));
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quantize: { type: "string" }, one: { type: "boolean" } },
});
const { quantize } = values;
if (values.one) {
  console.log(JSON.stringify(await measure(positionals[0], quantize ? { quantize } : {})));
} else if (positionals.length > 0) {
  for (const name of positionals) await report(name, name, quantize);
} else {
  await report("emoji-64", "emoji-64", quantize);
  const folder = await mkdtemp(join(tmpdir(), "smalti-startup-"));
  try {
    for (const dtype of ["f32", "f16"]) {
      await writeUnet(join(folder, dtype), dtype);
      await report(`ddpm-cifar10 ${dtype}`, join(folder, dtype), quantize);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
}
