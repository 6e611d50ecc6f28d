#!/usr/bin/env bash
# Native tests, and every op case and gradient of tests/ops, under AddressSanitizer and UndefinedBehaviorSanitizer; then
# pool and executor under ThreadSanitizer. Arguments: instruction sets for the cases (default avx2 or neon); kernels of
# avx512, zen4 and amx are built only when one of them is named: they take minutes, and most of their sources are avx2's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build() {  # build FOLDER SANITIZERS KERNELS TARGET [OPTION...]
  cmake -S . -B "$1" -DCMAKE_BUILD_TYPE=None -DSMALTI_NATIVE_TESTS=ON -DSMALTI_SANITIZE="$2" -DSMALTI_KERNELS="$3" \
    "${@:5}" --log-level=WARNING >/dev/null
  cmake --build "$1" --parallel "$(nproc)" --target smalti_tests "$4"
}

case "$(uname -m)" in
  aarch64 | arm64) isas=("${@:-neon}") ;;
  *) isas=("${@:-avx2}") ;;
esac
kernels=avx2
[[ " ${isas[*]} " =~ " avx512 "|" zen4 "|" amx " ]] && kernels=all

node scripts/build.mjs --native --quiet
build build-asan address,undefined "$kernels" smalti_run_cases -DSMALTI_CASE_RUNNER=ON
SMALTI_CASES=build-asan/cases.bin node_modules/.bin/vitest run --config tests/cases/vitest.config.ts --reporter=dot
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ASAN_OPTIONS=detect_leaks=0
./build-asan/smalti_tests
for isa in "${isas[@]}"; do
  ./build-asan/smalti_run_cases build-asan/cases.bin "$isa"
done
build build-tsan thread scalar smalti_tests # the same work items
TSAN_OPTIONS=halt_on_error=1 ./build-tsan/smalti_tests pool_
TSAN_OPTIONS=halt_on_error=1 ./build-tsan/smalti_tests executor_
