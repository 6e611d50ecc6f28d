// Instruction counts of this build against committed ones.

/** More than this is a regression. */
export const tolerance = 0.03;

/** One line for each case, and which of them need attention. A case without a counterpart counts as a regression. */
export function compareCounts(baseline, counts) {
  const names = [...new Set([...Object.keys(baseline), ...Object.keys(counts)])];
  return names.map((name) => {
    const [before, now] = [baseline[name], counts[name]];
    if (before === undefined || now === undefined) {
      const text = before === undefined ? "not in the baseline" : "not counted any more";
      return { name, verdict: "slower", text: `${name}: ${text}` };
    }
    const change = now / before - 1;
    const verdict = change > tolerance ? "slower" : change < -tolerance ? "faster" : "same";
    const percent = `${change >= 0 ? "+" : ""}${(100 * change).toFixed(1)} %`;
    return { name, verdict, text: `${name}: ${before} → ${now} instructions (${percent})` };
  });
}
