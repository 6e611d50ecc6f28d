// Never slower in silence: counts the instructions of the hot kernels with valgrind's callgrind, which are the same on every
// run, and compares them with benchmarks/baseline/. Counts of AVX2 and scalar kernels: valgrind 3.19 knows no AVX-512.
// npm run bench:check [-- --write] (after a change that is meant, or on another compiler)
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { caseFile, caseNames } from "./instructions/cases.mjs";
import { compareCounts } from "./instructions/compare.mjs";

const root = resolve(import.meta.dirname, "..");
const build = join(root, "build");
const runner = join(build, "smalti_run_cases");
const isas = process.arch === "x64" ? ["avx2", "scalar"] : ["scalar"];

const versionOf = (command, ...args) => {
  const { status, stdout } = spawnSync(command, args, { encoding: "utf8" });
  return status === 0 ? stdout.trim().split("\n")[0] : undefined;
};

/** Counts depend on the compiler, not on the CPU. */
const compiler = () => {
  const version = versionOf(process.env.CXX ?? "c++", "-dumpfullversion", "-dumpversion");
  return `${process.platform}-${process.arch}-gcc-${version}`;
};

function buildRunner() {
  const quiet = { cwd: root, stdio: ["ignore", "ignore", "inherit"] };
  execFileSync("cmake", ["-S", ".", "-B", build, "-DSMALTI_CASE_RUNNER=ON"], quiet);
  execFileSync("cmake", ["--build", build, "--target", "smalti_run_cases"], quiet);
}

/** On one core, so that no other thread waits for work; a dump after each case, when its session ends. */
function count(isa, folder) {
  const out = join(folder, `${isa}.out`);
  const valgrind = [
    "valgrind",
    "--tool=callgrind",
    "--toggle-collect=smalti::Session::run(*",
    "--dump-after=smalti::Session::~Session()",
    `--callgrind-out-file=${out}`,
    runner,
    join(folder, "cases.bin"),
    isa,
  ];
  const { status, stderr } = spawnSync("taskset", ["-c", "0", ...valgrind], { encoding: "utf8" });
  if (status !== 0)
    throw new Error(`bench:check: ${stderr.trim().split("\n").slice(-5).join("\n")}`);
  const total = (i) => Number(/^summary: (\d+)$/m.exec(readFileSync(`${out}.${i + 1}`, "utf8"))[1]);
  return Object.fromEntries(caseNames.map((name, i) => [`${isa} ${name}`, total(i)]));
}

function countAll() {
  const folder = mkdtempSync(join(tmpdir(), "smalti-instructions-"));
  try {
    writeFileSync(join(folder, "cases.bin"), caseFile());
    return Object.assign({}, ...isas.map((isa) => count(isa, folder)));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function report(baselineFile, counts) {
  const rows = compareCounts(JSON.parse(readFileSync(baselineFile, "utf8")), counts);
  rows.forEach(({ verdict, text }) => console.log(`${verdict.padEnd(7)} ${text}`));
  const slower = rows.filter(({ verdict }) => verdict === "slower").length;
  const faster = rows.filter(({ verdict }) => verdict === "faster").length;
  if (faster > 0) console.log(`${faster} faster: keep it with npm run bench:check -- --write`);
  console.log(`${rows.length} counts, ${slower} slower`);
  process.exitCode = slower > 0 ? 1 : 0;
}

function main() {
  if (!versionOf("valgrind", "--version") || !versionOf("taskset", "--version"))
    return console.log("bench:check: skipped, no valgrind here (apt-get install valgrind)");
  const file = join(import.meta.dirname, "baseline", `${compiler()}.json`);
  const isWriting = process.argv.includes("--write");
  if (!isWriting && !existsSync(file))
    return console.log(`bench:check: skipped, no counts of this compiler in ${file}; see --write`);
  buildRunner();
  const counts = countAll();
  if (!isWriting) return report(file, counts);
  mkdirSync(join(file, ".."), { recursive: true });
  writeFileSync(file, `${JSON.stringify(counts, null, 2)}\n`);
  console.log(`wrote ${Object.keys(counts).length} counts to ${file}`);
}

main();
