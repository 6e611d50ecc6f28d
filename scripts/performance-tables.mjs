// Writes the tables of README.md and docs/performance.md between their marks, from the lines of a comparison:
// npm run bench:peers -- --json > peers.jsonl && node scripts/performance-tables.mjs peers.jsonl [ANOTHER_MACHINE.jsonl]
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { between, boundTable, readmeTable } from "../benchmarks/peers/report.mjs";

const [file, other] = process.argv.slice(2);
if (!file) {
  console.error("usage: node scripts/performance-tables.mjs PEERS.jsonl [ANOTHER_MACHINE.jsonl]");
  process.exit(2);
}
const read = (path) => readFileSync(path, "utf8").trim().split("\n").map(JSON.parse);
const lines = read(file);
const root = join(import.meta.dirname, "..");
const rewrite = (path, name, text) => {
  const document = readFileSync(join(root, path), "utf8");
  writeFileSync(join(root, path), between(document, name, text));
};
rewrite("README.md", "speed", readmeTable(lines));
rewrite("docs/performance.md", "bounds", boundTable(lines));
if (other) {
  rewrite("docs/performance.md", "other-machine", readmeTable(read(other)));
  rewrite("docs/performance.md", "other-bounds", boundTable(read(other)));
}
