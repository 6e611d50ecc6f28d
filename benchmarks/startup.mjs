// From the start of a process to the first picture of a pipeline, one step: seconds, and the peak of resident memory.
// Usage: node benchmarks/startup.mjs [--quantize WAY] [pipeline ...]   (after npm run build); medians of 3 processes each.
// WAY: int8, int8-weights or f16-weights. --stages: what the time and memory until the first result of that U-Net's
// network, with its weights in a file, go to; least of 12 processes of SMALTI_THREADS threads.
// processor: seconds of all threads, for machines that are busy with other work. Without names: emoji-64, and the U-Net of CIFAR-10 with random weights as f32 and as f16.
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

const self = fileURLToPath(import.meta.url);
// Reading the system's certificates takes Node 40 ms at each start where this names them; nothing here uses them.
const env = { ...process.env, NODE_EXTRA_CA_CERTS: undefined };
const rounds = 3;
const stageRounds = 12;

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

/** The network alone: prints milliseconds, those of the processor, page faults and memory of each stage. */
async function measureStages(file, begin) {
  const stages = [];
  let last = { ms: begin, cpu: 0, faults: 0 };
  const mark = (stage) => {
    const { userCPUTime, systemCPUTime, minorPageFault: faults } = process.resourceUsage();
    const cpu = (userCPUTime + systemCPUTime) / 1000;
    const ms = performance.timeOrigin + performance.now();
    const mib = process.memoryUsage.rss() / 2 ** 20;
    stages.push([stage, ms - last.ms, cpu - last.cpu, faults - last.faults, mib]);
    last = { ms, cpu, faults };
  };
  mark("Node");
  const { compile, ddpmUnet, ddpmUnetConfigs, DeviceBuffer, openSafetensors, trace } =
    await import("../dist/index.js");
  mark("import");
  const { forward } = ddpmUnet(ddpmUnetConfigs.cifar10);
  const graph = trace((t) => {
    const times = t.input("times", { shape: [1], dtype: "i32" });
    t.output("y", forward({ x: t.input("x", { shape: [1, 32, 32, 3] }), times }));
  });
  mark("trace");
  const checkpoint = await openSafetensors(file);
  const weights = graph.inputs
    .filter(({ role }) => role === "weight")
    .map(({ name, value }) => {
      const source = { path: file, offset: checkpoint.tensors.get(name).offset, dtype: "f32" };
      return [name, DeviceBuffer.fromFile(source, graph.values[value].shape)];
    });
  await checkpoint.close();
  mark("open, buffers");
  const program = await compile(graph);
  mark("compile");
  const session = await program.bind(Object.fromEntries(weights));
  mark("bind");
  const inputs = { x: new Float32Array(32 * 32 * 3), times: Int32Array.of(500) };
  await session.run(inputs);
  mark("first run");
  await session.run(inputs);
  mark("second run");
  return stages;
}

async function reportStages() {
  const { ddpmUnet, ddpmUnetConfigs, initialValues, saveWeights } =
    await import("../dist/index.js");
  const folder = await mkdtemp(join(tmpdir(), "smalti-startup-"));
  try {
    const file = join(folder, "weights.safetensors");
    const { parameters } = ddpmUnet(ddpmUnetConfigs.cifar10);
    await saveWeights(file, parameters, initialValues(parameters, 1), "f32");
    const runs = [];
    for (let i = 0; i < stageRounds; ++i) {
      const begin = performance.timeOrigin + performance.now();
      const command = [self, "--one", "--stages", file, String(begin)];
      const { stdout } = await promisify(execFile)(process.execPath, command, { env });
      runs.push(JSON.parse(stdout));
    }
    runs[0].forEach(([stage], i) => {
      const least = (k) => Number(Math.min(...runs.map((run) => run[i][k])).toFixed(1));
      const row = { stage, ms: least(1), processor: least(2), faults: least(3), MiB: least(4) };
      console.log(JSON.stringify(row));
    });
  } finally {
    await rm(folder, { recursive: true });
  }
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

async function report(name, folder, quantize) {
  const runs = [];
  const command = [self, "--one", ...(quantize ? ["--quantize", quantize] : []), folder];
  for (let i = 0; i < rounds; ++i) {
    const { stdout } = await promisify(execFile)(process.execPath, command, { env });
    runs.push(JSON.parse(stdout));
  }
  const keys = Object.keys(runs[0]);
  const row = keys.map((key) => [key, Number(median(runs.map((run) => run[key])).toFixed(3))]);
  console.log(JSON.stringify({ name, quantize, ...Object.fromEntries(row) }));
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quantize: { type: "string" },
    one: { type: "boolean" },
    stages: { type: "boolean" },
  },
});
const { quantize } = values;
if (values.one && values.stages) {
  console.log(JSON.stringify(await measureStages(positionals[0], Number(positionals[1]))));
} else if (values.stages) {
  await reportStages();
} else if (values.one) {
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
