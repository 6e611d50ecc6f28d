// Graph -> smaller graph: nodes that change nothing are dropped, equal nodes merged, transposes and
// broadcasts folded into their consumers, what nobody reads removed. Value ids stay.
#include <algorithm>
#include <cstdio>
#include <map>

#include "native/compile/stages.h"

namespace smalti {
namespace {

class Canonicaliser {
 public:
  explicit Canonicaliser(const Graph& graph) : graph_(graph), replacement_(graph.values.size()) {
    for (size_t i = 0; i < replacement_.size(); ++i) replacement_[i] = static_cast<int>(i);
  }

  Graph run() {
    for (Node& node : graph_.nodes) {
      for (int& input : node.inputs) input = replacement_[static_cast<size_t>(input)];
      fold_operands(node);
      join_pads(node);
      const int same = equivalent(node);
      if (same >= 0) replacement_[static_cast<size_t>(node.outputs[0])] = same;
      if (same < 0) merge_equal(node);
    }
    for (GraphOutput& output : graph_.outputs)
      output.value = replacement_[static_cast<size_t>(output.value)];
    remove_dead();
    return std::move(graph_);
  }

 private:
  const Node* maker(int value) const {
    const int node = graph_.values[static_cast<size_t>(value)].node;
    return node < 0 ? nullptr : &graph_.nodes[static_cast<size_t>(node)];
  }

  const Shape& shape(int value) const { return graph_.spec(value).shape; }

  // The number that all elements have, if the graph says so.
  const double* splat(int value) const {
    return is_splat(graph_, value) ? &maker(value)->numbers("values")[0] : nullptr;
  }

  // A value that equals the node's only output, or -1.
  int equivalent(const Node& node) const {
    if (node.inputs.empty() || node.outputs.size() != 1) return -1;
    const int first = node.inputs[0];
    const bool is_same_spec = graph_.spec(first) == graph_.out(node);
    if (node.op == "stopGradient") return first;
    if (is_same_spec && is_identity(node)) return first;
    return neutral_operand(node);
  }

  bool is_identity(const Node& node) const {
    static const char* const keep_when_same_shape[] = {"reshape",     "slice", "pad",
                                                       "broadcastTo", "cast",  "concat"};
    for (const char* op : keep_when_same_shape) {
      if (node.op == op) return node.op != "slice" || is_forward(node);
    }
    if (node.op != "transpose") return false;
    const std::vector<int64_t> permutation = node.integers("permutation");
    return std::is_sorted(permutation.begin(), permutation.end());
  }

  // A slice of the whole input may still reverse it.
  static bool is_forward(const Node& node) {
    const std::vector<int64_t> strides = node.integers("strides");
    return std::all_of(strides.begin(), strides.end(), [](int64_t s) { return s > 0; });
  }

  // x + 0, x * 1 and the like.
  int neutral_operand(const Node& node) const {
    if (node.inputs.size() != 2) return -1;
    const bool is_sum = node.op == "add" || node.op == "sub";
    const bool is_product = node.op == "mul" || node.op == "div";
    if (!is_sum && !is_product) return -1;
    const bool commutes = node.op == "add" || node.op == "mul";
    for (size_t k = commutes ? 0 : 1; k < 2; ++k) {
      const double* value = splat(node.inputs[k]);
      const int other = node.inputs[1 - k];
      if (value == nullptr || *value != (is_sum ? 0 : 1) || graph_.spec(other) != graph_.out(node))
        continue;
      return other;
    }
    return -1;
  }

  void fold_operands(Node& node) {
    if (node.op == "reshape") {
      while (maker(node.inputs[0]) != nullptr && maker(node.inputs[0])->op == "reshape") {
        node.inputs[0] = maker(node.inputs[0])->inputs[0];
      }
    }
    if (node.op == "matmul") {
      fold_transpose(node, 0, "transposeA");
      fold_transpose(node, 1, "transposeB");
    }
    if (node.op == "sum") {  // one pass without the squares in memory
      const Node* square = maker(node.inputs[0]);
      if (square != nullptr && square->op == "square" && graph_.out(*square).dtype != Dtype::i32) {
        node.op = "sumSquares";
        node.inputs[0] = square->inputs[0];
      }
    }
    if (is_pointwise(node.op)) {
      for (int& input : node.inputs) {
        while (is_repeated(input)) input = maker(input)->inputs[0];
      }
    }
  }

  // A broadcast, or a reshape of equal elements: elementwise programs read the source just as well.
  bool is_repeated(int value) const {
    const Node* node = maker(value);
    if (node == nullptr) return false;
    return node->op == "broadcastTo" ||
           (node->op == "reshape" && is_splat(graph_, node->inputs[0]));
  }

  void fold_transpose(Node& node, size_t operand, const char* flag) {
    const Node* transpose = maker(node.inputs[operand]);
    if (transpose == nullptr || transpose->op != "transpose") return;
    std::vector<int64_t> permutation = transpose->integers("permutation");
    std::swap(permutation[permutation.size() - 1], permutation[permutation.size() - 2]);
    if (!std::is_sorted(permutation.begin(), permutation.end())) return;
    node.inputs[operand] = transpose->inputs[0];
    set_flag(node, flag, !node.flag_or(flag, false));
  }

  static void set_flag(Node& node, const char* key, bool value) {
    for (Attr& attr : node.attrs) {
      if (attr.key == key) {
        attr.value = value;
        return;
      }
    }
    node.attrs.push_back({key, value});
  }

  // A value that is zero outside pieces along one axis.
  struct Pieces {
    struct Piece {
      int64_t start;
      int64_t size;
      int value;
    };
    int axis = -1;
    std::vector<Piece> list;  // ascending, disjoint
  };

  // The padding of one axis by zeros.
  Pieces padded_piece(const Node& node) const {
    Pieces pieces;
    if (node.number("value") != 0) return pieces;
    const Shape& from = shape(node.inputs[0]);
    const std::vector<int64_t> low = node.integers("low");
    for (int i = 0; i < from.rank; ++i) {
      if (from[i] == graph_.out(node).shape[i]) continue;
      if (pieces.axis >= 0) return {};
      pieces.axis = i;
      pieces.list = {{low[static_cast<size_t>(i)], from[i], node.inputs[0]}};
    }
    return pieces;
  }

  // Pieces of the sum of two such values; none if they overlap.
  static Pieces merged(const Pieces& a, const Pieces& b) {
    Pieces result;
    if (a.axis < 0 || a.axis != b.axis) return result;
    result.list = a.list;
    result.list.insert(result.list.end(), b.list.begin(), b.list.end());
    std::sort(result.list.begin(), result.list.end(),
              [](const Pieces::Piece& x, const Pieces::Piece& y) { return x.start < y.start; });
    for (size_t i = 1; i < result.list.size(); ++i) {
      if (result.list[i - 1].start + result.list[i - 1].size > result.list[i].start) return {};
    }
    result.axis = a.axis;
    return result;
  }

  // The gradient of a split is a sum of padded parts: where they fill the axis it is their
  // concatenation.
  void join_pads(Node& node) {
    if (node.op == "pad") {
      if (Pieces pieces = padded_piece(node); pieces.axis >= 0)
        pieces_[node.outputs[0]] = std::move(pieces);
      return;
    }
    if (node.op != "add") return;
    const auto a = pieces_.find(node.inputs[0]);
    const auto b = pieces_.find(node.inputs[1]);
    if (a == pieces_.end() || b == pieces_.end() || shape(a->first) != shape(b->first)) return;
    Pieces pieces = merged(a->second, b->second);
    if (pieces.axis < 0) return;
    int64_t filled = 0;
    for (const Pieces::Piece& piece : pieces.list) filled += piece.size;
    if (filled < graph_.out(node).shape[pieces.axis]) {
      pieces_[node.outputs[0]] = std::move(pieces);
      return;
    }
    node.op = "concat";
    node.inputs.clear();
    for (const Pieces::Piece& piece : pieces.list) node.inputs.push_back(piece.value);
    node.attrs = {{"axis", static_cast<double>(pieces.axis)}};
  }

  // Every op is a pure function of inputs and attributes, random numbers included.
  void merge_equal(const Node& node) {
    if (is_recomputed(node)) return;
    if (node.op == "input" || (node.op == "constant" && !is_splat(graph_, node.outputs[0]))) return;
    std::string key = node.op;
    for (const int input : node.inputs) key += " " + std::to_string(input);
    for (const Attr& attr : node.attrs) key += " " + attr.key + "=" + attr_key(attr.value);
    for (const int output : node.outputs) key += " " + format_spec(graph_.spec(output));
    const auto [entry, is_new] = seen_.emplace(key, node.outputs);
    if (is_new) return;
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      replacement_[static_cast<size_t>(node.outputs[i])] = entry->second[i];
    }
  }

  static std::string attr_key(const AttrValue& value) {
    if (const auto* number = std::get_if<double>(&value)) return number_key(*number);
    if (const auto* text = std::get_if<std::string>(&value)) return "\"" + *text + "\"";
    if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
    std::string key = "[";
    for (const double number : std::get<std::vector<double>>(value))
      key += number_key(number) + ",";
    return key + "]";
  }

  static std::string number_key(double value) {
    char text[40];
    std::snprintf(text, sizeof text, "%a", value);
    return text;
  }

  void remove_dead() {
    std::vector<bool> is_read(graph_.values.size(), false);
    for (const GraphOutput& output : graph_.outputs)
      is_read[static_cast<size_t>(output.value)] = true;
    std::vector<Node> kept;
    for (auto node = graph_.nodes.rbegin(); node != graph_.nodes.rend(); ++node) {
      const bool is_needed =
          node->op == "input" ||
          std::any_of(node->outputs.begin(), node->outputs.end(), [&](int output) {
            return is_read[static_cast<size_t>(output)] &&
                   replacement_[static_cast<size_t>(output)] == output;
          });
      if (!is_needed) continue;
      for (const int input : node->inputs) is_read[static_cast<size_t>(input)] = true;
      kept.push_back(std::move(*node));
    }
    std::reverse(kept.begin(), kept.end());
    graph_.nodes = std::move(kept);
    for (Value& value : graph_.values) value.node = -1;
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      for (const int output : graph_.nodes[i].outputs)
        graph_.values[static_cast<size_t>(output)].node = static_cast<int>(i);
    }
  }

  Graph graph_;
  std::vector<int> replacement_;
  std::map<std::string, std::vector<int>> seen_;
  std::map<int, Pieces> pieces_;
};

}  // namespace

bool is_recomputed(const Node& node) {
  static const std::string mark = "recompute";
  const size_t size = node.scope.size();
  return size >= mark.size() && node.scope.compare(size - mark.size(), mark.size(), mark) == 0;
}

Graph canonicalise(const Graph& graph) { return Canonicaliser(graph).run(); }

}  // namespace smalti
