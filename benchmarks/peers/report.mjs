// Lines of JSON of a comparison -> a table for a terminal, and tables in Markdown.

const fixed = (value, digits = 1) =>
  value === undefined || value === null ? "–" : value.toFixed(digits);
const digits = (value) => (value < 0.1 ? 3 : value < 10 ? 2 : value < 100 ? 1 : 0);
const ms = (value) => fixed(value, digits(value));
const percent = (value) => (value ? `${Math.round(100 * value)} %` : "–");

/** Lines of one workload on one number of threads together: the best peer first. */
export function grouped(lines) {
  const groups = new Map();
  for (const line of lines) {
    if (!line.workload) continue;
    const key = `${line.workload} b${line.batch} ${line.threads}`;
    groups.set(key, [...(groups.get(key) ?? []), line]);
  }
  return [...groups.values()].map((group) => group.toSorted((a, b) => b.is_best - a.is_best));
}

const peer = (group, name) => group.find((line) => line.peer.startsWith(name));
const unit = ({ unit }) => (unit === "MB" ? "MB" : "ms");

const cells = (group) => {
  const [best] = group;
  return {
    workload: `${best.workload} b${best.batch}`,
    threads: String(best.threads),
    ours: `${ms(best.ours_ms)} ${unit(best)}`,
    spread: best.unit === "MB" ? "" : `${ms(best.ours_min_ms)}–${ms(best.ours_max_ms)}`,
    "torch tuned": ms(peer(group, "torch tuned")?.peer_ms),
    "as installed": ms(peer(group, "torch installed")?.peer_ms),
    "ONNX Runtime": ms(peer(group, "onnxruntime")?.peer_ms),
    ratio: fixed(best.ratio, 2),
    goal: best.goal === null ? "" : fixed(best.goal, 2),
    met: best.is_met === null ? "" : best.is_met ? "yes" : "NO",
    bound: percent(best.share_of_bound),
  };
};

/** The table that a comparison ends with. */
export function textTable(lines) {
  const rows = grouped(lines).map(cells);
  if (rows.length === 0) return "nothing was compared";
  const names = Object.keys(rows[0]);
  const widths = names.map((name) =>
    Math.max(name.length, ...rows.map((row) => [...row[name]].length)),
  );
  const line = (texts) =>
    texts
      .map((text, i) => (i === 0 ? text.padEnd(widths[i]) : text.padStart(widths[i])))
      .join("  ");
  return [line(names), ...rows.map((row) => line(names.map((name) => row[name])))].join("\n");
}

const machineLine = ({ cpu, isa, threads, versions, date, limits }) =>
  `${cpu} (${isa}), ${threads.join(" and ")} threads, ${versions.join(", ")}; ${date}. ` +
  `Measured limits: ${limits.map((l) => `${l.gflops.toFixed(0)} GFLOP/s and ${l.memory.toFixed(0)} GB/s on ${l.threads}`).join(", ")}.`;

const markdown = (heads, rows) =>
  [heads, heads.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");

/**
 * The README's table: medians with their spread, and ratios to the best peer and to torch as installed, on the most
 * threads; what was measured on fewer only stands there with their number.
 */
export function readmeTable(lines) {
  const most = Math.max(...lines[0].threads);
  const limits = lines[0].limits.filter(({ threads }) => threads === most);
  const onMost = new Set(lines.filter((l) => l.threads === most).map((l) => l.workload));
  const rows = grouped(lines)
    .filter(([{ threads, workload }]) => threads === most || !onMost.has(workload))
    .map((group) => {
      const c = cells(group);
      const fewer =
        group[0].threads === most ? "" : `, ${c.threads} thread${c.threads === "1" ? "" : "s"}`;
      const installed = peer(group, "torch installed");
      const times = (line) => (line.unit === "MB" ? 1 / line.ratio : line.ratio);
      return [
        c.workload + fewer,
        c.spread ? `${c.ours} (${c.spread})` : c.ours,
        c["torch tuned"],
        c["as installed"],
        c["ONNX Runtime"],
        `**${fixed(times(group[0]), 2)}**`,
        installed ? fixed(times(installed), 1) : "–",
      ];
    });
  const heads = ["work", "smalti (min–max)", "torch, tuned", "torch, as installed"];
  const more = ["ONNX Runtime", "best peer / ours", "torch as installed / ours"];
  return `${machineLine({ ...lines[0], threads: [most], limits })}\n\n${markdown([...heads, ...more], rows)}`;
}

/** The table of docs/performance.md: how near each workload is to what the machine could do. */
export function boundTable(lines) {
  const rows = grouped(lines)
    .filter(([{ share_of_bound: share }]) => share)
    .map(([line]) => [
      `${line.workload} b${line.batch}`,
      line.threads,
      ms(line.ours_ms),
      line.gflops ? fixed(line.gflops, 0) : "–",
      percent(line.share_of_direct_bound),
      percent(line.share_of_bound),
      line.ours_peak_mb ? fixed(line.ours_peak_mb, 0) : "–",
    ]);
  const heads = [
    "work",
    "threads",
    "ms",
    "GFLOP/s",
    "of the direct bound",
    "of the bound",
    "peak MB",
  ];
  return `${machineLine(lines[0])}\n\n${markdown(heads, rows)}`;
}

/** Puts text between <!-- NAME --> and <!-- /NAME -->. Throws when the marks are not there. */
export function between(document, name, text) {
  const [start, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const from = document.indexOf(start);
  const to = document.indexOf(end);
  if (from < 0 || to < from)
    throw new Error(`report: expected the marks ${start} and ${end}, got none`);
  return `${document.slice(0, from + start.length)}\n\n${text}\n\n${document.slice(to)}`;
}
