// Runs all tests, or those whose name contains the argument.
#include <cstring>

#include "tests/native/check.h"

int main(int argc, char** argv) {
  int count = 0;
  for (const smalti::test::Test& test : smalti::test::tests()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    std::printf("%s\n", test.name);
    std::fflush(stdout);
    test.run();
    ++count;
  }
  std::printf("%d passed, 0 failed\n", count);
  return 0;
}
