// The graph on this side: the same arrays as lib/ir/graph.ts, plus the functions that make, check
// and print one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "native/core/shape.h"
#include "native/core/span.h"

namespace smalti {

using AttrValue = std::variant<double, std::string, bool, std::vector<double>>;

struct Attr {
  std::string key;
  AttrValue value;
};

struct Value {
  Spec spec;
  int node = -1;  // that makes it
  int output = 0;
};

struct Node {
  std::string op;
  std::string scope;
  std::vector<int> inputs;
  std::vector<int> outputs;
  std::vector<Attr> attrs;

  const AttrValue* find(std::string_view key) const;
  // Attributes by type; throw Error(option) when missing or of another type.
  double number(std::string_view key) const;
  int64_t integer(std::string_view key) const;
  bool flag(std::string_view key) const;
  const std::string& text(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;
  const std::vector<double>& numbers(std::string_view key) const;
  // As above with a value for a missing attribute.
  int64_t integer_or(std::string_view key, int64_t fallback) const;
  bool flag_or(std::string_view key, bool fallback) const;
};

enum class Role : uint8_t { input = 0, weight = 1, state = 2 };

struct GraphInput {
  std::string name;
  int value;
  Role role;
};

struct GraphOutput {
  std::string name;
  int value;
  std::optional<std::string> updates;
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<GraphInput> inputs;
  std::vector<GraphOutput> outputs;

  const Spec& spec(int value) const { return values[static_cast<size_t>(value)].spec; }
  // Spec of a node's input or output.
  const Spec& in(const Node& node, size_t i) const { return spec(node.inputs[i]); }
  const Spec& out(const Node& node, size_t i = 0) const { return spec(node.outputs[i]); }
};

// Bytes of lib/ir/encode.ts -> graph. Trusts nothing: throws Error(internal) for anything
// malformed.
Graph decode(Span<const uint8_t> bytes);

// Order, arity, dtypes, shapes and attributes of every node, so that no kernel can be made to leave
// its tensors.
void verify(const Graph& graph);

// What the op `op` makes from inputs of these specs; throws when it does not accept them.
std::vector<Spec> infer(const Node& node, const std::vector<Spec>& inputs,
                        const std::vector<Spec>& declared);

// Names of all ops that `infer` knows, sorted.
std::vector<std::string> op_names();

// The same text as lib/ir/print.ts.
std::string print(const Graph& graph);

// A dtype by its name; throws Error(dtype).
Dtype parse_dtype(std::string_view name);

}  // namespace smalti
