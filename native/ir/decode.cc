// Bytes -> graph (the format is described in lib/ir/encode.ts). Every length, count, rank and id is
// checked against what is left and what exists; memory is taken only in proportion to the bytes
// given.
#include <cstring>

#include "native/core/error.h"
#include "native/ir/graph.h"

namespace smalti {
namespace {

constexpr uint32_t kVersion = 1;
// Elements of one tensor: far beyond any machine, far below overflow of byte counts.
constexpr int64_t kMaxElements = int64_t{1} << 42;

class Reader {
 public:
  explicit Reader(Span<const uint8_t> bytes) : bytes_(bytes) {}

  template <class T>
  T read() {
    need(sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  // A count of things that take at least `least` bytes each.
  uint32_t count(size_t least, const char* what) {
    const auto n = read<uint32_t>();
    if (n > left() / least) fail(what);
    return n;
  }

  std::string text() {
    const uint32_t length = count(1, "length of a string");
    std::string value(reinterpret_cast<const char*>(bytes_.data()) + at_, length);
    at_ += length;
    return value;
  }

  // An index below `limit`.
  int id(size_t limit, const char* what) {
    const auto value = read<uint32_t>();
    if (value >= limit) fail(what);
    return static_cast<int>(value);
  }

  size_t left() const { return bytes_.size() - at_; }

  [[noreturn]] void fail(const char* what) const {
    throw Error(ErrorCode::internal, "decode: expected a valid " + std::string(what) +
                                         ", got damage near byte " + std::to_string(at_));
  }

 private:
  void need(size_t n) const {
    if (left() < n) fail("length of the graph");
  }

  Span<const uint8_t> bytes_;
  size_t at_ = 0;
};

Value read_value(Reader& reader) {
  Value value;
  const auto dtype = reader.read<uint8_t>();
  if (dtype > static_cast<uint8_t>(Dtype::boolean)) reader.fail("dtype");
  value.spec.dtype = static_cast<Dtype>(dtype);
  const auto rank = reader.read<uint8_t>();
  if (rank > kMaxShapeRank) reader.fail("rank");
  int64_t elements = 1;
  for (int i = 0; i < rank; ++i) {
    const auto dim = reader.read<int64_t>();
    if (dim < 1 || dim > kMaxElements / elements) reader.fail("dimension (at least 1)");
    elements *= dim;
    value.spec.shape.push(dim);
  }
  return value;
}

AttrValue read_attr_value(Reader& reader) {
  switch (reader.read<uint8_t>()) {
    case 0:
      return reader.read<double>();
    case 1:
      return reader.text();
    case 2:
      return reader.read<uint8_t>() != 0;
    case 3: {
      std::vector<double> list(reader.count(sizeof(double), "length of a list"));
      for (double& element : list) element = reader.read<double>();
      return list;
    }
    default:
      reader.fail("attribute tag");
  }
}

std::vector<int> read_ids(Reader& reader, size_t limit) {
  std::vector<int> ids(reader.count(4, "count of values"));
  for (int& id : ids) id = reader.id(limit, "value id");
  return ids;
}

Node read_node(Reader& reader, size_t value_count) {
  Node node;
  node.op = reader.text();
  node.scope = reader.text();
  node.inputs = read_ids(reader, value_count);
  node.outputs = read_ids(reader, value_count);
  const uint32_t attrs = reader.count(6, "count of attributes");
  for (uint32_t i = 0; i < attrs; ++i) {
    std::string key = reader.text();
    node.attrs.push_back({std::move(key), read_attr_value(reader)});
  }
  return node;
}

void read_values_and_nodes(Reader& reader, Graph& graph) {
  const uint32_t values = reader.count(2, "count of values");
  for (uint32_t i = 0; i < values; ++i) graph.values.push_back(read_value(reader));
  const uint32_t nodes = reader.count(20, "count of nodes");
  for (uint32_t i = 0; i < nodes; ++i) {
    graph.nodes.push_back(read_node(reader, values));
    const Node& node = graph.nodes.back();
    for (size_t k = 0; k < node.outputs.size(); ++k) {
      Value& value = graph.values[static_cast<size_t>(node.outputs[k])];
      if (value.node >= 0) reader.fail("output (made by one node only)");
      value.node = static_cast<int>(i);
      value.output = static_cast<int>(k);
    }
  }
}

}  // namespace

Graph decode(Span<const uint8_t> bytes) {
  Reader reader(bytes);
  if (reader.read<uint32_t>() != 0x474c4d53u) reader.fail("signature SMLG");  // "SMLG"
  if (reader.read<uint32_t>() != kVersion) reader.fail("version 1");
  Graph graph;
  read_values_and_nodes(reader, graph);
  const size_t values = graph.values.size();
  const uint32_t inputs = reader.count(9, "count of inputs");
  for (uint32_t i = 0; i < inputs; ++i) {
    std::string name = reader.text();
    const int value = reader.id(values, "input value");
    const auto role = reader.read<uint8_t>();
    if (role > static_cast<uint8_t>(Role::state)) reader.fail("role");
    graph.inputs.push_back({std::move(name), value, static_cast<Role>(role)});
  }
  const uint32_t outputs = reader.count(9, "count of outputs");
  for (uint32_t i = 0; i < outputs; ++i) {
    std::string name = reader.text();
    const int value = reader.id(values, "output value");
    std::optional<std::string> updates;
    if (reader.read<uint8_t>() != 0) updates = reader.text();
    graph.outputs.push_back({std::move(name), value, std::move(updates)});
  }
  if (reader.left() != 0) reader.fail("end of the graph");
  return graph;
}

}  // namespace smalti
