// Draws the curves of one or more training logs (JSON lines written by `smalti train`) into one PNG.
// Usage: node scripts/loss-curves.mjs OUT.png LOG.jsonl[:metric] ...
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import sharp from "sharp";

const [out, ...sources] = process.argv.slice(2);
if (!out || sources.length === 0) {
  console.error("usage: node scripts/loss-curves.mjs OUT.png LOG.jsonl[:metric] ...");
  process.exit(2);
}

const width = 520;
const height = 300;
const margin = { left: 58, right: 14, top: 34, bottom: 34 };

function readCurve(source) {
  const [file, metric = "loss"] = source.split(":");
  const points = readFileSync(file, "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line))
    .filter((event) => event.type === "step")
    .map((event) => [event.step, event[metric] ?? event.metrics?.[metric]])
    .filter(([, value]) => Number.isFinite(value) && value > 0);
  return { title: `${basename(file, ".jsonl")}: ${metric} (log scale)`, points };
}

/** Exponential average, as a person reads a noisy curve. */
function smooth(points, decay = 0.95) {
  let mean;
  return points.map(([x, y]) => [
    x,
    (mean = mean === undefined ? y : decay * mean + (1 - decay) * y),
  ]);
}

function panel({ title, points }, index) {
  const xs = points.map(([x]) => x);
  const logs = points.map(([, y]) => Math.log10(y));
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const [y0, y1] = [Math.min(...logs), Math.max(...logs)];
  const px = (x) =>
    margin.left + ((x - x0) / (x1 - x0 || 1)) * (width - margin.left - margin.right);
  const py = (y) =>
    height -
    margin.bottom -
    ((Math.log10(y) - y0) / (y1 - y0 || 1)) * (height - margin.top - margin.bottom);
  const path = (curve) =>
    curve.map(([x, y], i) => `${i ? "L" : "M"}${px(x).toFixed(1)},${py(y).toFixed(1)}`).join("");
  const labels = [y0, (y0 + y1) / 2, y1].map((y) => {
    const value = 10 ** y;
    return `<text x="${margin.left - 6}" y="${py(value) + 4}" text-anchor="end">${value.toPrecision(3)}</text>`;
  });
  return `<g transform="translate(0,${index * height})" font-family="sans-serif" font-size="12" fill="#333">
    <text x="${margin.left}" y="20" font-size="14">${title}</text>
    <rect x="${margin.left}" y="${margin.top}" width="${width - margin.left - margin.right}"
      height="${height - margin.top - margin.bottom}" fill="none" stroke="#bbb"/>
    <path d="${path(points)}" fill="none" stroke="#9ecae1" stroke-width="1"/>
    <path d="${path(smooth(points))}" fill="none" stroke="#08519c" stroke-width="2"/>
    ${labels.join("")}
    <text x="${margin.left}" y="${height - 14}">step ${x0}</text>
    <text x="${width - margin.right}" y="${height - 14}" text-anchor="end">${x1}</text>
  </g>`;
}

const panels = sources.map(readCurve).map(panel);
const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height * panels.length}">
  <rect width="100%" height="100%" fill="white"/>${panels.join("")}</svg>`;
await sharp(Buffer.from(svg)).png().toFile(out);
