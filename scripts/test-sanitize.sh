#!/usr/bin/env bash
# Native tests under AddressSanitizer and UndefinedBehaviorSanitizer, then pool and executor under ThreadSanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build() {  # build FOLDER SANITIZERS [OPTION...]
  cmake -S . -B "$1" -DCMAKE_BUILD_TYPE=None -DSMALTI_NATIVE_TESTS=ON -DSMALTI_SANITIZE="$2" "${@:3}" --log-level=WARNING >/dev/null
  cmake --build "$1" --parallel "$(nproc)" --target smalti_tests
}

build build-asan address,undefined
UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ASAN_OPTIONS=detect_leaks=0 ./build-asan/smalti_tests
build build-tsan thread -DSMALTI_SCALAR_ONLY=ON # the same work items
TSAN_OPTIONS=halt_on_error=1 ./build-tsan/smalti_tests pool_
TSAN_OPTIONS=halt_on_error=1 ./build-tsan/smalti_tests executor_
