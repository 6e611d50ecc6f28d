// Which instruction sets this build carries and this machine can run.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "native/kernels/table.h"

namespace smalti {

// Table of "amx", "avx512", "avx2", "neon" or "scalar"; null when this build or this machine lacks
// it.
const KernelTable* cpu_table(std::string_view name);
// Usable names, best first.
std::vector<std::string> available_isas();
std::string best_isa();
// The processor's own name for people.
std::string cpu_name();

}  // namespace smalti
