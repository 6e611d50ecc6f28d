// What the kernels of an op allow, where stages would otherwise have to know ops by name.
#include <map>

#include "native/compile/stages.h"

namespace smalti {

Traits traits_of(const std::string& op) {
  static const std::map<std::string, Traits> traits = {
      {"matmul", {true, false, true, false, true}},
      {"conv2d", {true, false, true, false, false}},
      {"conv2dGradInput", {true, false, true, false, false}},
      {"groupNorm", {true, true, false, true, true}},
  };
  const auto found = traits.find(op);
  return found == traits.end() ? Traits{} : found->second;
}

}  // namespace smalti
