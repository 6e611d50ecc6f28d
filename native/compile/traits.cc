// What the kernels of an op allow, where stages would otherwise have to know ops by name.
#include <map>

#include "native/compile/stages.h"

namespace smalti {

Traits traits_of(const std::string& op) {
  static const std::map<std::string, Traits> traits = {
      {"matmul", {true, false}},
      {"conv2d", {true, false}},
      {"conv2dGradInput", {true, false}},
      {"groupNorm", {true, true}},
  };
  const auto found = traits.find(op);
  return found == traits.end() ? Traits{false, false} : found->second;
}

}  // namespace smalti
