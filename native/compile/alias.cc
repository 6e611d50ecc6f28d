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

// Which values attention alone reads, as queries, keys or values: they may be columns of a wider
// tensor.
class AttentionViews {
 public:
  explicit AttentionViews(const Graph& graph) : graph_(graph), users_(graph.values.size()) {
    for (const Node& node : graph.nodes) {
      for (size_t i = 0; i < node.inputs.size(); ++i)
        users_[at(node.inputs[i])].push_back({&node, i});
    }
    for (const GraphOutput& output : graph.outputs)
      users_[at(output.value)].push_back({nullptr, 0});
  }

  // Where in its input the slice takes columns of tokens, or of heads, for attention; offset -1 if
  // it takes anything else.
  Alias columns(const Node& slice) const {
    const Shape& from = graph_.in(slice, 0).shape;
    const Shape& to = graph_.out(slice).shape;
    bool takes_columns = from.rank == 3 || from.rank == 4;
    for (int i = 0; i < from.rank - 1; ++i) takes_columns = takes_columns && from[i] == to[i];
    for (const double stride : slice.numbers("strides"))
      takes_columns = takes_columns && stride == 1;
    if (!takes_columns || !is_read_as_heads(slice.outputs[0], to.product(2, to.rank)))
      return {-1, -1};
    const int64_t start = slice.integers("starts").back();
    return {slice.inputs[0], start * static_cast<int64_t>(dtype_bytes(graph_.out(slice).dtype)),
            from.product(2, from.rank), from.rank == 3 ? 0 : from[3]};
  }

 private:
  struct User {
    const Node* node;  // null: returned
    size_t operand;
  };
  static size_t at(int value) { return static_cast<size_t>(value); }

  bool is_read_as_heads(int value, int64_t columns) const {
    const Shape& shape = graph_.spec(value).shape;
    for (const User& user : users_[at(value)]) {
      if (user.node == nullptr) return false;
      const std::string& op = user.node->op;
      const bool is_head = (op == "attention" || op == "attentionGrad") && user.operand < 3 &&
                           shape[2] * shape[3] == columns;
      const bool goes_on = op == "reshape" && shape.rank == 3 &&
                           graph_.out(*user.node).shape.rank == 4 &&
                           is_read_as_heads(user.node->outputs[0], columns);
      if (!is_head && !goes_on) return false;
    }
    return true;
  }

  const Graph& graph_;
  std::vector<std::vector<User>> users_;
};

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
  const AttentionViews views(graph);
  for (const Node& node : graph.nodes) {
    if (node.op != "reshape" && node.op != "slice") continue;
    const Alias& source = module.aliases[static_cast<size_t>(node.inputs[0])];
    Alias& alias = module.aliases[static_cast<size_t>(node.outputs[0])];
    if (node.op == "reshape") {
      alias = source;
      continue;
    }
    const int64_t offset = contiguous_offset(graph, node);
    // A slice of a slice may be unaligned in all.
    if (offset >= 0 && (source.offset + offset) % kAlignment == 0) {
      alias = {source.root, source.offset + offset};
    } else if (Alias columns = views.columns(node); columns.offset >= 0) {
      columns.root = source.root;
      columns.offset += source.offset;
      alias = columns;
    }
  }
  mark_setup(module);
}

}  // namespace smalti
