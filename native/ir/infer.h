// What the inference rules share: the table type and the checks that make errors read alike.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "native/core/error.h"
#include "native/ir/graph.h"

namespace smalti {

using Specs = std::vector<Spec>;

// `declared` are the specs that the graph states; only random ops take their dtype from there.
struct InferCase {
  const Node& node;
  const Specs& in;
  const Specs& declared;

  [[noreturn]] void fail(ErrorCode code, const std::string& expected) const;
  void expect(bool is_true, const std::string& expected) const;  // shape error
  void expect_arity(size_t least, size_t most) const;
  void expect_real(size_t i) const;    // f32 or f64
  void expect_number(size_t i) const;  // f32, f64 or i32
  void expect_dtype(size_t i, Dtype dtype) const;
  void expect_rank(size_t i, int least, int most) const;
  void expect_spec(size_t i, const Spec& spec) const;
  // Integer attribute within bounds.
  int64_t bounded(std::string_view key, int64_t low, int64_t high) const;
  std::vector<int64_t> bounded_list(std::string_view key, size_t length, int64_t low,
                                    int64_t high) const;
  Shape shape_attr() const;
};

using InferRule = Specs (*)(const InferCase& c);
using InferTable = std::map<std::string, InferRule, std::less<>>;

void add_pointwise_rules(InferTable& table);
void add_tensor_rules(InferTable& table);
void add_linear_rules(InferTable& table);
void add_fused_rules(InferTable& table);

}  // namespace smalti
