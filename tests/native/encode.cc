// The writer of lib/ir/encode.ts again, for tests of the reader.
#include <cstring>

#include "tests/native/graphs.h"

namespace smalti::test {
namespace {

class Writer {
 public:
  template <class T>
  void put(T value) {
    const auto* from = reinterpret_cast<const uint8_t*>(&value);
    bytes.insert(bytes.end(), from, from + sizeof value);
  }
  void count(size_t n) { put(static_cast<uint32_t>(n)); }
  void text(const std::string& value) {
    count(value.size());
    bytes.insert(bytes.end(), value.begin(), value.end());
  }
  void ids(const std::vector<int>& list) {
    count(list.size());
    for (const int id : list) put(static_cast<uint32_t>(id));
  }

  std::vector<uint8_t> bytes;
};

void put_attr(Writer& out, const Attr& attr) {
  out.text(attr.key);
  out.put(static_cast<uint8_t>(attr.value.index()));
  if (const auto* number = std::get_if<double>(&attr.value)) out.put(*number);
  if (const auto* text = std::get_if<std::string>(&attr.value)) out.text(*text);
  if (const auto* flag = std::get_if<bool>(&attr.value)) out.put(static_cast<uint8_t>(*flag));
  if (const auto* list = std::get_if<std::vector<double>>(&attr.value)) {
    out.count(list->size());
    for (const double number : *list) out.put(number);
  }
}

}  // namespace

std::vector<uint8_t> encode(const Graph& graph) {
  Writer out;
  out.bytes = {'S', 'M', 'L', 'G'};
  out.put(uint32_t{1});
  out.count(graph.values.size());
  for (const Value& value : graph.values) {
    out.put(static_cast<uint8_t>(value.spec.dtype));
    out.put(static_cast<uint8_t>(value.spec.shape.rank));
    for (int i = 0; i < value.spec.shape.rank; ++i) out.put(value.spec.shape[i]);
  }
  out.count(graph.nodes.size());
  for (const Node& node : graph.nodes) {
    out.text(node.op);
    out.text(node.scope);
    out.ids(node.inputs);
    out.ids(node.outputs);
    out.count(node.attrs.size());
    for (const Attr& attr : node.attrs) put_attr(out, attr);
  }
  out.count(graph.inputs.size());
  for (const GraphInput& input : graph.inputs) {
    out.text(input.name);
    out.put(static_cast<uint32_t>(input.value));
    out.put(static_cast<uint8_t>(input.role));
  }
  out.count(graph.outputs.size());
  for (const GraphOutput& output : graph.outputs) {
    out.text(output.name);
    out.put(static_cast<uint32_t>(output.value));
    out.put(static_cast<uint8_t>(output.updates.has_value()));
    if (output.updates) out.text(*output.updates);
  }
  return out.bytes;
}

}  // namespace smalti::test
