// Order and consistency of a graph, and every node against the inference rule of its op.
#include <algorithm>
#include <set>

#include "native/core/error.h"
#include "native/ir/graph.h"
#include "native/ir/infer.h"

namespace smalti {
namespace {

// Largest dimension or list entry that arithmetic on shapes may meet.
constexpr int64_t kMaxElements = int64_t{1} << 42;

const InferTable& rules() {
  static const InferTable* const table = [] {
    auto* t = new InferTable;
    add_pointwise_rules(*t);
    add_tensor_rules(*t);
    add_linear_rules(*t);
    add_fused_rules(*t);
    return t;
  }();
  return *table;
}

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorCode::internal, "verify: " + message);
}

void verify_order(const Graph& graph) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const int input : graph.nodes[i].inputs) {
      const int maker = graph.values[static_cast<size_t>(input)].node;
      if (maker < 0 || maker >= static_cast<int>(i)) {
        fail("expected inputs of node " + std::to_string(i) + " (" + graph.nodes[i].op +
             ") to be made before it, got %" + std::to_string(input));
      }
    }
  }
}

// Far beyond any machine, far below what sums of byte counts can hold.
void verify_size(const Graph& graph) {
  constexpr int64_t kMaxTotalBytes = int64_t{1} << 48;
  int64_t total = 0;
  for (const Value& value : graph.values) {
    total += value.spec.bytes();
    if (total > kMaxTotalBytes)
      throw Error(ErrorCode::memory,
                  "verify: expected tensors of at most 2^48 bytes in all, got more");
  }
}

void verify_node(const Graph& graph, const Node& node) {
  Specs inputs;
  Specs declared;
  for (const int input : node.inputs) inputs.push_back(graph.spec(input));
  for (const int output : node.outputs) declared.push_back(graph.spec(output));
  const Specs inferred = infer(node, inputs, declared);
  if (inferred == declared) return;
  std::string expected;
  std::string got;
  for (const Spec& spec : inferred) expected += " " + format_spec(spec);
  for (const Spec& spec : declared) got += " " + format_spec(spec);
  throw Error(ErrorCode::shape, node.op + ": expected outputs" + expected + ", got" + got);
}

const Node* maker_of(const Graph& graph, int value) {
  const int node = graph.values[static_cast<size_t>(value)].node;
  return node < 0 ? nullptr : &graph.nodes[static_cast<size_t>(node)];
}

void verify_interface(const Graph& graph) {
  std::set<std::string> names;
  std::set<int> listed;
  for (const GraphInput& input : graph.inputs) {
    const Node* maker = maker_of(graph, input.value);
    if (maker == nullptr || maker->op != "input")
      fail("expected graph input " + input.name + " to come from an input node");
    if (!names.insert(input.name).second)
      fail("expected distinct graph inputs, got " + input.name + " twice");
    if (!listed.insert(input.value).second)
      fail("expected distinct graph inputs, got the value of " + input.name + " twice");
  }
  for (const Node& node : graph.nodes) {
    if (node.op == "input" && listed.count(node.outputs.front()) == 0)
      fail("expected every input node to be listed");
  }
  std::set<std::string> updated;
  for (const GraphOutput& output : graph.outputs) {
    if (maker_of(graph, output.value) == nullptr)
      fail("expected output " + output.name + " to be made by a node");
    if (!output.updates) continue;
    const auto state =
        std::find_if(graph.inputs.begin(), graph.inputs.end(), [&](const GraphInput& input) {
          return input.role == Role::state && input.name == *output.updates;
        });
    if (state == graph.inputs.end())
      fail("expected output " + output.name + " to update a state, got " + *output.updates);
    if (graph.spec(state->value) != graph.spec(output.value)) {
      fail("expected the update of " + *output.updates + " to be " +
           format_spec(graph.spec(state->value)) + ", got " +
           format_spec(graph.spec(output.value)));
    }
    if (!updated.insert(*output.updates).second)
      fail("expected one update of " + *output.updates + ", got two");
  }
}

}  // namespace

void InferCase::fail(ErrorCode code, const std::string& expected) const {
  std::string got;
  for (const Spec& spec : in) got += " " + format_spec(spec);
  throw Error(code,
              node.op + ": expected " + expected + ", got" + (got.empty() ? " no inputs" : got));
}

void InferCase::expect(bool is_true, const std::string& expected) const {
  if (!is_true) fail(ErrorCode::shape, expected);
}

void InferCase::expect_arity(size_t least, size_t most) const {
  expect(in.size() >= least && in.size() <= most,
         std::to_string(least) + " to " + std::to_string(most) + " inputs");
}

void InferCase::expect_real(size_t i) const {
  const Dtype dtype = in[i].dtype;
  if (dtype != Dtype::f32 && dtype != Dtype::f64)
    fail(ErrorCode::dtype, "f32 or f64 in input " + std::to_string(i));
}

void InferCase::expect_number(size_t i) const {
  if (in[i].dtype != Dtype::i32) expect_real(i);
}

void InferCase::expect_dtype(size_t i, Dtype dtype) const {
  if (in[i].dtype != dtype)
    fail(ErrorCode::dtype, std::string(dtype_name(dtype)) + " in input " + std::to_string(i));
}

void InferCase::expect_rank(size_t i, int least, int most) const {
  const int rank = in[i].shape.rank;
  expect(rank >= least && rank <= most, "rank " + std::to_string(least) + " to " +
                                            std::to_string(most) + " in input " +
                                            std::to_string(i));
}

void InferCase::expect_spec(size_t i, const Spec& spec) const {
  expect(i < in.size() && in[i] == spec, format_spec(spec) + " in input " + std::to_string(i));
}

int64_t InferCase::bounded(std::string_view key, int64_t low, int64_t high) const {
  const int64_t value = node.integer(key);
  expect(value >= low && value <= high,
         std::string(key) + " from " + std::to_string(low) + " to " + std::to_string(high));
  return value;
}

std::vector<int64_t> InferCase::bounded_list(std::string_view key, size_t length, int64_t low,
                                             int64_t high) const {
  std::vector<int64_t> list = node.integers(key);
  bool is_good = list.size() == length;
  for (const int64_t value : list) is_good = is_good && value >= low && value <= high;
  expect(is_good, std::to_string(length) + " numbers " + std::string(key) + " from " +
                      std::to_string(low) + " to " + std::to_string(high));
  return list;
}

Shape InferCase::shape_attr() const {
  const std::vector<int64_t> dims = node.integers("shape");
  expect(dims.size() <= kMaxShapeRank, "a shape of rank at most 8");
  Shape shape;
  int64_t elements = 1;
  for (const int64_t dim : dims) {
    expect(dim >= 1 && dim <= kMaxElements / elements, "dimensions of at least 1");
    elements *= dim;
    shape.push(dim);
  }
  return shape;
}

Specs infer(const Node& node, const Specs& inputs, const Specs& declared) {
  const auto rule = rules().find(node.op);
  if (rule == rules().end())
    throw Error(ErrorCode::internal, "verify: expected a known op, got " + node.op);
  return rule->second({node, inputs, declared});
}

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for (const auto& [name, rule] : rules()) names.push_back(name);
  return names;
}

void verify(const Graph& graph) {
  verify_order(graph);
  verify_size(graph);
  for (const Node& node : graph.nodes) {
    if (node.outputs.empty()) fail("expected outputs of " + node.op + ", got none");
    verify_node(graph, node);
  }
  verify_interface(graph);
}

}  // namespace smalti
