#!/usr/bin/env bash
# The NEON kernels under emulation: every op case and gradient of tests/ops, run by an arm64 executable under qemu.
# Arguments: instruction sets (default neon).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
  if ! command -v "$tool" >/dev/null; then
    echo "test-arm64: expected $tool on the path, got none; apt-get install g++-aarch64-linux-gnu qemu-user" >&2
    exit 1
  fi
done

node scripts/build.mjs --native --quiet
cmake -S . -B build-arm64 -DCMAKE_BUILD_TYPE=Release -DSMALTI_CASE_RUNNER=ON \
  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  -DCMAKE_EXE_LINKER_FLAGS=-static --log-level=WARNING >/dev/null
cmake --build build-arm64 --parallel "$(nproc)" --target smalti_run_cases
SMALTI_CASES=build-arm64/cases.bin node_modules/.bin/vitest run --config tests/cases/vitest.config.ts --reporter=dot

status=0
for isa in "${@:-neon}"; do
  qemu-aarch64 build-arm64/smalti_run_cases build-arm64/cases.bin "$isa" || status=1
done
exit "$status"
