// Graphs made in C++, and their bytes as lib/ir/encode.ts writes them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "native/ir/graph.h"

namespace smalti::test {

inline Spec f32(std::initializer_list<int64_t> dims) {
  Spec spec{Dtype::f32, {}};
  for (const int64_t dim : dims) spec.shape.push(dim);
  return spec;
}

class GraphMaker {
 public:
  int input(const std::string& name, Role role, const Spec& spec) {
    const int value = add("input", {}, spec, {{"name", name}});
    graph.inputs.push_back({name, value, role});
    return value;
  }
  int add(const std::string& op, std::vector<int> inputs, const Spec& spec,
          std::vector<Attr> attrs = {}) {
    const int value = static_cast<int>(graph.values.size());
    graph.values.push_back({spec, static_cast<int>(graph.nodes.size()), 0});
    graph.nodes.push_back({op, "", std::move(inputs), {value}, std::move(attrs)});
    return value;
  }
  void output(const std::string& name, int value) {
    graph.outputs.push_back({name, value, std::nullopt});
  }
  void update(const std::string& state, int value) {
    graph.outputs.push_back({state, value, state});
  }

  Graph graph;
};

// p += tanh(x w) summed over rows; y = sum of it: products, epilogue, reduction, state.
inline Graph sample_graph(int64_t rows = 64, int64_t width = 48, int depth = 1) {
  GraphMaker g;
  int x = g.input("x", Role::input, f32({rows, width}));
  const int w = g.input("w", Role::weight, f32({width, width}));
  const int p = g.input("p", Role::state, f32({width}));
  for (int i = 0; i < depth; ++i) {
    const int product =
        g.add("matmul", {x, w}, f32({rows, width}), {{"transposeA", false}, {"transposeB", false}});
    x = g.add("tanh", {product}, f32({rows, width}));
  }
  const int sum =
      g.add("sum", {x}, f32({width}), {{"axes", std::vector<double>{0}}, {"keepDims", false}});
  g.update("p", g.add("add", {p, sum}, f32({width})));
  g.output("y", sum);
  return g.graph;
}

std::vector<uint8_t> encode(const Graph& graph);

}  // namespace smalti::test
