// Typed access to attributes, with errors that name the op and the attribute.
#include "native/ir/graph.h"

#include <cmath>

#include "native/core/error.h"

namespace smalti {
namespace {

[[noreturn]] void fail_attr(const Node& node, std::string_view key, const char* expected) {
  throw Error(ErrorCode::option,
              node.op + ": expected attribute " + std::string(key) + " to be " + expected +
                  ", got " + (node.find(key) == nullptr ? "none" : "another type or value"));
}

constexpr double kLargestInteger = 9007199254740992.0;

int64_t to_integer(const Node& node, std::string_view key, double value) {
  if (!(std::abs(value) <= kLargestInteger) || value != std::floor(value))
    fail_attr(node, key, "a whole number");
  return static_cast<int64_t>(value);
}

}  // namespace

const AttrValue* Node::find(std::string_view key) const {
  for (const Attr& attr : attrs) {
    if (attr.key == key) return &attr.value;
  }
  return nullptr;
}

double Node::number(std::string_view key) const {
  const AttrValue* value = find(key);
  const double* number = value == nullptr ? nullptr : std::get_if<double>(value);
  if (number == nullptr) fail_attr(*this, key, "a number");
  return *number;
}

int64_t Node::integer(std::string_view key) const { return to_integer(*this, key, number(key)); }

bool Node::flag(std::string_view key) const {
  const AttrValue* value = find(key);
  const bool* flag = value == nullptr ? nullptr : std::get_if<bool>(value);
  if (flag == nullptr) fail_attr(*this, key, "a boolean");
  return *flag;
}

const std::string& Node::text(std::string_view key) const {
  const AttrValue* value = find(key);
  const std::string* text = value == nullptr ? nullptr : std::get_if<std::string>(value);
  if (text == nullptr) fail_attr(*this, key, "a string");
  return *text;
}

const std::vector<double>& Node::numbers(std::string_view key) const {
  const AttrValue* value = find(key);
  const std::vector<double>* list =
      value == nullptr ? nullptr : std::get_if<std::vector<double>>(value);
  if (list == nullptr) fail_attr(*this, key, "a list of numbers");
  return *list;
}

std::vector<int64_t> Node::integers(std::string_view key) const {
  std::vector<int64_t> result;
  for (const double value : numbers(key)) result.push_back(to_integer(*this, key, value));
  return result;
}

int64_t Node::integer_or(std::string_view key, int64_t fallback) const {
  return find(key) ? integer(key) : fallback;
}
bool Node::flag_or(std::string_view key, bool fallback) const {
  return find(key) ? flag(key) : fallback;
}

Dtype parse_dtype(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(Dtype::boolean); ++i) {
    if (name == dtype_name(static_cast<Dtype>(i))) return static_cast<Dtype>(i);
  }
  throw Error(ErrorCode::dtype,
              "dtype: expected f32, f64, f16, bf16, i32, u8 or bool, got " + std::string(name));
}

}  // namespace smalti
