// Deterministic text of a graph, byte for byte that of lib/ir/print.ts.
#include <charconv>
#include <cmath>

#include "native/ir/graph.h"

namespace smalti {
namespace {

std::string digits_of(std::string_view text, int& exponent) {
  const size_t e = text.find('e');
  exponent = 0;
  std::string_view power = text.substr(e + 1);
  if (power.front() == '+') power.remove_prefix(1);
  std::from_chars(power.data(), power.data() + power.size(), exponent);
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c != '.') digits += c;
  }
  return digits;
}

// ECMA-262, Number::toString for radix 10, from the shortest digits that round trip.
std::string format_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  if (value == 0) return "0";
  if (value < 0) return "-" + format_number(-value);
  char text[40];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific);
  int exponent = 0;
  const std::string digits = digits_of({text, static_cast<size_t>(end.ptr - text)}, exponent);
  const int k = static_cast<int>(digits.size());
  const int n = exponent + 1;  // value = 0.digits * 10^n
  if (k <= n && n <= 21) return digits + std::string(static_cast<size_t>(n - k), '0');
  if (0 < n && n <= 21)
    return digits.substr(0, static_cast<size_t>(n)) + "." + digits.substr(static_cast<size_t>(n));
  if (-6 < n && n <= 0) return "0." + std::string(static_cast<size_t>(-n), '0') + digits;
  const std::string fraction = k == 1 ? "" : "." + digits.substr(1);
  return digits.substr(0, 1) + fraction + "e" + (n - 1 < 0 ? "-" : "+") +
         std::to_string(std::abs(n - 1));
}

struct AttrPrinter {
  std::string operator()(double value) const { return format_number(value); }
  std::string operator()(const std::string& value) const { return '"' + value + '"'; }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(const std::vector<double>& list) const {
    std::string text = "[";
    for (size_t i = 0; i < list.size(); ++i) text += (i > 0 ? "," : "") + format_number(list[i]);
    return text + "]";
  }
};

std::string print_node(const Graph& graph, const Node& node) {
  std::string line;
  for (size_t i = 0; i < node.outputs.size(); ++i)
    line += (i > 0 ? ", %" : "%") + std::to_string(node.outputs[i]);
  line += " = " + node.op;
  for (const int input : node.inputs) line += " %" + std::to_string(input);
  for (size_t i = 0; i < node.attrs.size(); ++i) {
    line += (i > 0 ? ", " : " {") + node.attrs[i].key + "=" +
            std::visit(AttrPrinter{}, node.attrs[i].value);
  }
  if (!node.attrs.empty()) line += "}";
  line += " : ";
  for (size_t i = 0; i < node.outputs.size(); ++i)
    line += (i > 0 ? ", " : "") + format_spec(graph.spec(node.outputs[i]));
  if (!node.scope.empty()) line += " # " + node.scope;
  return line + "\n";
}

}  // namespace

std::string print(const Graph& graph) {
  std::string text;
  for (const Node& node : graph.nodes) text += print_node(graph, node);
  text += "return";
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    const GraphOutput& output = graph.outputs[i];
    text += (i > 0 ? ", " : " ") + output.name + "=%" + std::to_string(output.value);
    if (output.updates) text += " -> " + *output.updates;
  }
  return text;
}

}  // namespace smalti
