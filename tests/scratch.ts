// The temporary files of one run of the tests lie in one folder, which is removed when the run ends.
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export default function setup(): () => void {
  const folder = mkdtempSync(join(tmpdir(), "smalti-tests-"));
  chmodSync(folder, 0o755); // one test runs as another user
  process.env["TMPDIR"] = folder;
  return () => rmSync(folder, { recursive: true, force: true });
}
