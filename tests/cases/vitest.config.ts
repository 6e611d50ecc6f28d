// The exporter as a vitest project of its own: scripts/test-arm64.sh and scripts/test-sanitize.sh run it, `npm test`
// does not.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["tests/cases/export-cases.ts"], pool: "forks", testTimeout: 600_000 },
});
