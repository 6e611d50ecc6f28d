// Detection of instruction sets. Asking for a table runs no code of its set: the tables are
// constants.
#include "native/cpu/isa.h"

#include <cstdio>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(SMALTI_HAS_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace smalti {

namespace scalar {
const KernelTable& kernels();
}
#if defined(SMALTI_AVX2_KERNELS)
namespace avx2 {
const KernelTable& kernels();
}
#if defined(SMALTI_AVX512_KERNELS)
namespace avx512 {
const KernelTable& kernels();
}
#endif
#if defined(SMALTI_HAS_AMX)
namespace amx {
KernelTable with_tiles(KernelTable table);
}
#endif
#elif defined(SMALTI_NEON_KERNELS)
namespace neon {
const KernelTable& kernels();
}
#endif

#if defined(SMALTI_HAS_DOT)
namespace dot {
const Kernel<Int8ConvArgs>& int8_conv();
}
#endif

namespace {

#if defined(SMALTI_HAS_DOT)
bool has_dot() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avxvnni");
#elif defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return true;  // every ARM processor that runs macOS
#endif
}
#endif

// The table, with products of bytes in one instruction where the CPU has it.
template <const KernelTable& (*kTable)()>
const KernelTable& with_dot() {
  static const KernelTable table = [] {
    KernelTable copy = kTable();
#if defined(SMALTI_HAS_DOT)
    if (has_dot()) copy.int8_conv = dot::int8_conv();
#endif
    return copy;
  }();
  return table;
}

struct Entry {
  const char* name;
  bool is_supported;
  const KernelTable& (*kernels)();
};

#if defined(SMALTI_AVX512_KERNELS)
const KernelTable& avx512_kernels() {
  static const KernelTable table = [] {
    KernelTable copy = avx512::kernels();
    copy.paired = {};
    return copy;
  }();
  return table;
}

// With pairs of terms, which pay where vectors are added and multiplied in the same cycle.
const KernelTable& zen4_kernels() {
  static const KernelTable table = [] {
    KernelTable copy = avx512::kernels();
    copy.name = "zen4";
    return copy;
  }();
  return table;
}
#endif

#if defined(SMALTI_HAS_AMX)
// Whether the CPU multiplies tiles of bytes and the system lets this process (Linux 5.16 and
// later).
bool has_amx() {
  constexpr unsigned kTiles = 1u << 24 | 1u << 25;  // CPUID leaf 7, EDX: registers, bytes
  constexpr int kAskForState = 0x1023;              // ARCH_REQ_XCOMP_PERM
  constexpr int kTileState = 18;                    // of XSAVE
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTiles) != kTiles) return false;
  static const bool is_granted = syscall(SYS_arch_prctl, kAskForState, kTileState) == 0;
  return is_granted;
}

const KernelTable& amx_kernels() {
  static const KernelTable table = amx::with_tiles(avx512_kernels());
  return table;
}
#endif

std::vector<Entry> entries() {
  std::vector<Entry> list;
#if defined(SMALTI_AVX2_KERNELS)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("f16c");
#if defined(SMALTI_AVX512_KERNELS)
  const bool has_avx512 =
      has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni");
#if defined(SMALTI_HAS_AMX)
  list.push_back({"amx", has_avx512 && has_amx(), amx_kernels});
#endif
  const bool is_amd = __builtin_cpu_is("amd") != 0;
  if (is_amd) list.push_back({"zen4", has_avx512, zen4_kernels});
  list.push_back({"avx512", has_avx512, avx512_kernels});
  if (!is_amd) list.push_back({"zen4", has_avx512, zen4_kernels});
#endif
  list.push_back({"avx2", has_avx2, with_dot<avx2::kernels>});
#elif defined(SMALTI_NEON_KERNELS)
  list.push_back({"neon", true, with_dot<neon::kernels>});
#endif
  list.push_back({"scalar", true, scalar::kernels});
  return list;
}

}  // namespace

const KernelTable* cpu_table(std::string_view name) {
  for (const Entry& entry : entries()) {
    if (entry.name == name && entry.is_supported) return &entry.kernels();
  }
  return nullptr;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Entry& entry : entries()) {
    if (entry.is_supported) names.emplace_back(entry.name);
  }
  return names;
}

std::string best_isa() { return available_isas().front(); }

std::string cpu_name() {
  std::string name = "unknown";
  if (std::FILE* file = std::fopen("/proc/cpuinfo", "r")) {
    char line[256];
    char text[200];
    while (std::fgets(line, sizeof line, file) != nullptr) {
      if (std::sscanf(line, "model name : %199[^\n]", text) == 1) {
        name = text;
        break;
      }
    }
    std::fclose(file);
  }
  return name;
}

}  // namespace smalti
