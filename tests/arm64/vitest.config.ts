// The exporter as a vitest project of its own: scripts/test-arm64.sh runs it, `npm test` does not.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["tests/arm64/export-cases.ts"], pool: "forks", testTimeout: 600_000 },
});
