// Runs golden cases of a folder and reports how far our numbers are from the references'.
import { performance } from "node:perf_hooks";
import { listCases, readCase } from "./case.js";
import type { CaseHeader, GoldenCase, Values } from "./case.js";
import { DiffusionError, nearestName, throwIfAborted } from "../errors.js";
import { compareValues } from "./compare.js";
import type { Difference } from "./compare.js";
import { evaluator } from "./evaluate.js";
import type { Evaluate, GoldenRunner } from "./evaluate.js";
import { runners } from "./runners.js";

export interface ParityOptions {
  /** Only cases whose name contains this, or matches it when it has "*". */
  filter?: string;
  /** Instruction set; default the best. */
  isa?: string;
  /** Writes the report as one JSON document at the end instead of a line for each case; default false. */
  json?: boolean;
  /** Takes each line, or the document; default standard output. */
  write?: (line: string) => void;
  signal?: AbortSignal;
}

export interface CaseReport {
  name: string;
  kind: string;
  /** "unsupported": its kind has no runner. */
  status: "passed" | "failed" | "unsupported";
  /** Why a case failed before anything could be compared, or is unsupported. */
  reason?: string;
  ms: number;
  /** Of the tensor nearest to, or furthest beyond, its tolerance. */
  worst?: Difference;
  differences: Difference[];
}

export interface ParityReport {
  cases: CaseReport[];
  passed: number;
  failed: number;
  unsupported: number;
  unsupportedKinds: string[];
}

const isGiven = (role: string): boolean => role === "input" || role === "const";

/** Every output of the case, and every further way of computing one: `name@way`. */
function compareCase(golden: GoldenCase, actual: Record<string, Values>): Difference[] {
  const expected = [...golden.io].filter(([, { role }]) => !isGiven(role)).map(([name]) => name);
  const ways = Object.keys(actual).filter((name) => name.includes("@"));
  if (expected.length === 0)
    throw new DiffusionError("data", `parity: expected outputs in case ${golden.name}, got none`);
  return [...expected, ...ways].map((name) =>
    compareValues(name, golden.io.get(name.split("@")[0]!)!, actual[name], golden.rtol),
  );
}

const worstOf = (differences: readonly Difference[]): Difference | undefined =>
  differences.reduce<Difference | undefined>(
    (worst, next) =>
      worst === undefined || !(next.ofTolerance <= worst.ofTolerance) ? next : worst,
    undefined,
  );

async function runCase(
  header: CaseHeader,
  runner: GoldenRunner,
  evaluate: Evaluate,
): Promise<CaseReport> {
  const { name, kind } = header;
  const start = performance.now();
  try {
    const golden = await readCase(header);
    const differences = compareCase(golden, await runner(golden, evaluate));
    const worst = worstOf(differences);
    return {
      name,
      kind,
      status: differences.every(({ passed }) => passed) ? "passed" : "failed",
      ms: performance.now() - start,
      ...(worst && { worst }),
      differences,
    };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { name, kind, status: "failed", reason, ms: performance.now() - start, differences: [] };
  }
}

const writeLine = (line: string): void => void process.stdout.write(`${line}\n`);

function isWanted(name: string, filter: string): boolean {
  if (!filter.includes("*")) return name.includes(filter);
  const escaped = filter.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${escaped.join(".*")}$`).test(name);
}

async function wantedCases(folder: string, filter: string): Promise<CaseHeader[]> {
  const headers = await listCases(folder);
  const wanted = headers.filter(({ name }) => isWanted(name, filter));
  if (wanted.length > 0) return wanted;
  const near = nearestName(
    filter,
    headers.map(({ name }) => name),
  );
  throw new DiffusionError(
    "data",
    headers.length === 0
      ? `parity: expected golden cases in ${folder}, got none`
      : `parity: expected a filter that matches some of ${headers.length} cases in ${folder}, got "${filter}"${near ? `; the nearest name is ${near}` : ""}`,
  );
}

const unsupportedCase = ({ name, kind }: CaseHeader): CaseReport => ({
  name,
  kind,
  status: "unsupported",
  reason: `no runner for ${kind}`,
  ms: 0,
  differences: [],
});

/**
 * Runs every golden case below `folder` that a runner knows; the others are unsupported and their kinds
 * listed. Throws "data" when there is no case, or none that the filter matches.
 */
export async function runParity(
  folder: string,
  options: ParityOptions = {},
): Promise<ParityReport> {
  const { filter = "", isa = "", json = false, write = writeLine, signal } = options;
  const evaluate = evaluator(isa);
  const cases: CaseReport[] = [];
  for (const header of await wantedCases(folder, filter)) {
    throwIfAborted(signal, "parity");
    const runner = runners[header.kind];
    const report = runner ? await runCase(header, runner, evaluate) : unsupportedCase(header);
    cases.push(report);
    if (!json) write(formatCase(report));
  }
  const report = summarise(cases);
  if (json) write(JSON.stringify(report, null, 2));
  else formatTotals(report).forEach(write);
  return report;
}

function summarise(cases: CaseReport[]): ParityReport {
  const count = (status: CaseReport["status"]): number =>
    cases.filter((report) => report.status === status).length;
  const kinds = cases.filter(({ status }) => status === "unsupported").map(({ kind }) => kind);
  return {
    cases,
    passed: count("passed"),
    failed: count("failed"),
    unsupported: count("unsupported"),
    unsupportedKinds: [...new Set(kinds)],
  };
}

const percent = (share: number): string =>
  Number.isFinite(share) ? `${(100 * share).toFixed(1)} % of tolerance` : "beyond";

/** One line of text for a case. */
function formatCase({ name, status, reason, worst, differences, ms }: CaseReport): string {
  if (status === "unsupported") return `unsupported  ${name}: ${reason}`;
  if (reason !== undefined) return `FAIL  ${name}: ${reason}`;
  const head = `${status === "passed" ? "ok  " : "FAIL"}  ${name}: ${differences.length} tensors, ${Math.round(ms)} ms`;
  if (!worst) return head;
  const why = worst.reason === undefined ? "" : `, ${worst.reason}`;
  const figures = `abs ${worst.absolute.toExponential(1)}, rel ${worst.relative.toExponential(1)}, ${percent(worst.ofTolerance)}`;
  const failed = differences.filter(({ passed }) => !passed).map((difference) => difference.name);
  const list =
    failed.length === 0
      ? ""
      : `; failed: ${failed.slice(0, 8).join(", ")}${failed.length > 8 ? ", …" : ""}`;
  return `${head}; worst ${worst.name} (${figures}${why})${list}`;
}

/** Last lines of a report. */
const formatTotals = ({
  passed,
  failed,
  unsupported,
  unsupportedKinds,
}: ParityReport): string[] => [
  ...(unsupportedKinds.length === 0 ? [] : [`unsupported kinds: ${unsupportedKinds.join(", ")}`]),
  `${passed} passed, ${failed} failed, ${unsupported} unsupported`,
];
