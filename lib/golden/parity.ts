// Runs golden cases of a folder and reports how far our numbers are from the references'.
import { performance } from "node:perf_hooks";
import { listCases, readCase } from "./case.js";
import type { CaseHeader, GoldenCase, Values } from "./case.js";
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
  /** Lines are JSON, one object a case and one of totals; default false. */
  json?: boolean;
  /** Takes each line; default standard output. */
  write?: (line: string) => void;
  signal?: AbortSignal;
}

export interface CaseReport {
  name: string;
  kind: string;
  status: "passed" | "failed" | "skipped";
  /** Why a case failed before anything could be compared, or was skipped. */
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
  skipped: number;
  unsupportedKinds: string[];
}

const isGiven = (role: string): boolean => role === "input" || role === "const";

/** Every output of the case, and every further way of computing one: `name@way`. */
function compareCase(golden: GoldenCase, actual: Record<string, Values>): Difference[] {
  const expected = [...golden.io].filter(([, { role }]) => !isGiven(role)).map(([name]) => name);
  const ways = Object.keys(actual).filter((name) => name.includes("@"));
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

/**
 * Runs every golden case below `folder` that a runner knows; the others are skipped and their kinds
 * listed.
 */
export async function runParity(
  folder: string,
  options: ParityOptions = {},
): Promise<ParityReport> {
  const { filter = "", isa = "", json = false, write = writeLine, signal } = options;
  const headers = (await listCases(folder)).filter(({ name }) => isWanted(name, filter));
  const evaluate = evaluator(isa);
  const cases: CaseReport[] = [];
  for (const { name, kind, folder: path } of headers) {
    signal?.throwIfAborted();
    const runner = runners[kind];
    const report: CaseReport = runner
      ? await runCase({ name, kind, folder: path }, runner, evaluate)
      : { name, kind, status: "skipped", reason: `no runner for ${kind}`, ms: 0, differences: [] };
    cases.push(report);
    write(json ? JSON.stringify(report) : formatCase(report));
  }
  const report = summarise(cases);
  if (json) write(JSON.stringify({ ...report, cases: undefined }));
  else formatTotals(report).forEach(write);
  return report;
}

function summarise(cases: CaseReport[]): ParityReport {
  const count = (status: CaseReport["status"]): number =>
    cases.filter((report) => report.status === status).length;
  const unsupported = cases.filter(({ status }) => status === "skipped").map(({ kind }) => kind);
  return {
    cases,
    passed: count("passed"),
    failed: count("failed"),
    skipped: count("skipped"),
    unsupportedKinds: [...new Set(unsupported)],
  };
}

const percent = (share: number): string =>
  Number.isFinite(share) ? `${(100 * share).toFixed(1)} % of tolerance` : "beyond";

/** One line of text for a case. */
export function formatCase({ name, status, reason, worst, differences, ms }: CaseReport): string {
  if (status === "skipped") return `skip  ${name}: ${reason}`;
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
export const formatTotals = ({
  passed,
  failed,
  skipped,
  unsupportedKinds,
}: ParityReport): string[] => [
  ...(unsupportedKinds.length === 0
    ? []
    : [`kinds without a runner: ${unsupportedKinds.join(", ")}`]),
  `${passed} passed, ${failed} failed, ${skipped} skipped`,
];
