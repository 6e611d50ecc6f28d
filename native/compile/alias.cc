// Values that share memory: a reshape is its input; a slice of leading rows lies inside its input.
// Also marks what depends on weights and constants only: the setup computes it once for a session.
#include <algorithm>

#include "native/compile/stages.h"

namespace smalti {
namespace {

constexpr int64_t kAlignment = 64;

// Byte offset of a slice that is one contiguous, aligned piece of its input; -1 otherwise.
int64_t contiguous_offset(const Graph& graph, const Node& node) {
  const Shape& from = graph.in(node, 0).shape;
  const std::vector<int64_t> starts = node.integers("starts");
  const std::vector<int64_t> sizes = node.integers("sizes");
  const std::vector<int64_t> strides = node.integers("strides");
  int axis = 0;
  while (axis < from.rank && sizes[static_cast<size_t>(axis)] == 1) ++axis;
  int64_t offset = 0;
  for (int i = 0; i < from.rank; ++i) {
    const auto k = static_cast<size_t>(i);
    if (i > axis && sizes[k] != from[i]) return -1;
    if (strides[k] != 1 && sizes[k] != 1) return -1;
    offset = offset * from[i] + starts[k];
  }
  offset *= static_cast<int64_t>(dtype_bytes(graph.in(node, 0).dtype));
  return offset % kAlignment == 0 ? offset : -1;
}

bool is_constant_role(Role role) { return role == Role::weight; }

void mark_setup(Module& module) {
  Graph& graph = module.graph;
  module.is_setup.assign(graph.values.size(), false);
  const auto mark = [&](int value, bool is) { module.is_setup[static_cast<size_t>(value)] = is; };
  for (const GraphInput& input : graph.inputs) mark(input.value, is_constant_role(input.role));
  for (const Node& node : graph.nodes) {
    if (node.op == "input") continue;
    const bool is_setup = std::all_of(node.inputs.begin(), node.inputs.end(), [&](int value) {
      return module.is_setup[static_cast<size_t>(value)];
    });
    for (const int output : node.outputs) mark(output, is_setup);
  }
}

}  // namespace

int Module::add_value(const Spec& spec) {
  const int id = static_cast<int>(graph.values.size());
  graph.values.push_back({spec, -1, 0});
  aliases.push_back({id, 0});
  is_setup.push_back(false);
  return id;
}

void find_aliases(Module& module) {
  const Graph& graph = module.graph;
  module.aliases.clear();
  for (size_t i = 0; i < graph.values.size(); ++i)
    module.aliases.push_back({static_cast<int>(i), 0});
  for (const Node& node : graph.nodes) {
    const int64_t offset = node.op == "reshape" ? 0
                           : node.op == "slice" ? contiguous_offset(graph, node)
                                                : -1;
    if (offset < 0) continue;
    const Alias& source = module.aliases[static_cast<size_t>(node.inputs[0])];
    // A slice of a slice may be unaligned in all.
    if ((source.offset + offset) % kAlignment != 0) continue;
    module.aliases[static_cast<size_t>(node.outputs[0])] = {source.root, source.offset + offset};
  }
  mark_setup(module);
}

}  // namespace smalti
