// Usage: node .ci/failing-tests.mjs REPORT   the failing tests of a vitest JSON report, one a line, with what went wrong first.
import { readFileSync } from "node:fs";
import { relative } from "node:path";

const { testResults } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const failures = testResults.flatMap(({ name, status, message, assertionResults }) => {
  const tests = assertionResults.filter((test) => test.status === "failed");
  if (status === "failed" && tests.length === 0) return [[name, message]]; // the file itself
  return tests.map((test) => [`${name} > ${test.fullName}`, test.failureMessages[0] ?? ""]);
});
for (const [name, message] of failures)
  console.log(`${relative("tests", name)}: ${message.trim().split("\n", 1)[0]}`);
