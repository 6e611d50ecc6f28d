// Groups elementwise nodes of one iteration space into single passes, several outputs allowed, and
// hangs a group that reads a fresh product or normalised map onto what makes it as its epilogue.
// Walks consumers first: a node joins the group that reads it.
#include <algorithm>
#include <set>

#include "native/compile/stages.h"

namespace smalti {
namespace {

struct Group {
  std::vector<int> nodes;  // ascending
  Shape shape;
  bool is_exact;
  bool is_setup;
  int product = -1;  // node whose epilogue it is
};

class Fuser {
 public:
  explicit Fuser(Module& module) : module_(module), graph_(module.graph) {
    const size_t nodes = graph_.nodes.size();
    consumers_.resize(graph_.values.size());
    is_returned_.assign(graph_.values.size(), false);
    group_of_.assign(nodes, -1);
    for (size_t i = 0; i < nodes; ++i) {
      for (const int input : graph_.nodes[i].inputs)
        consumers_[index(input)].push_back(static_cast<int>(i));
    }
    for (const GraphOutput& output : graph_.outputs) is_returned_[index(output.value)] = true;
  }

  void run(const AbortFlag& abort) {
    for (int i = static_cast<int>(graph_.nodes.size()) - 1; i >= 0; --i) {
      abort.check("compile");
      if (is_pointwise(module_.node(i).op)) join(i);
    }
    attach_epilogues();
    make_steps();
  }

 private:
  static size_t index(int i) { return static_cast<size_t>(i); }
  Group& group(int id) { return groups_[index(id)]; }

  // The node starts a group and merges it with those of its consumers, nearest consumer first.
  void join(int node) {
    const Node& n = module_.node(node);
    const int value = n.outputs[0];
    const bool is_setup = module_.is_setup[index(value)];
    int own = static_cast<int>(groups_.size());
    groups_.push_back({{node}, graph_.spec(value).shape, is_exact(graph_, n), is_setup, -1});
    group_of_[index(node)] = own;
    const std::vector<int> consumers = consumers_[index(value)];
    for (const int consumer : consumers) {
      if (is_recomputed(module_.node(consumer)) && !is_recomputed(n)) continue;
      const int other = group_of_[index(consumer)];
      if (other >= 0 && other != own && try_merge(own, other)) own = other;
    }
  }

  // Merges group `from` into `into`.
  bool try_merge(int from, int into) {
    const Group& a = group(from);
    const Group& b = group(into);
    if (a.shape != b.shape || a.is_exact != b.is_exact || a.is_setup != b.is_setup) return false;
    std::vector<int> nodes;
    std::merge(a.nodes.begin(), a.nodes.end(), b.nodes.begin(), b.nodes.end(),
               std::back_inserter(nodes));
    if (is_f64(a) != is_f64(b)) return false;
    if (!compile_pointwise(graph_, nodes, outputs_of(nodes), 0)) return false;
    if (makes_cycle(from, into)) return false;
    for (const int node : a.nodes) group_of_[index(node)] = into;
    group(into).nodes = std::move(nodes);
    group(from).nodes.clear();
    return true;
  }

  bool is_f64(const Group& g) const {
    const Node& node = module_.node(g.nodes[0]);
    return graph_.out(node).dtype == Dtype::f64 ||
           std::any_of(node.inputs.begin(), node.inputs.end(),
                       [&](int v) { return graph_.spec(v).dtype == Dtype::f64; });
  }

  // Values of `nodes` that something else reads.
  std::vector<int> outputs_of(const std::vector<int>& nodes) const {
    std::vector<int> outputs;
    for (const int node : nodes) {
      const int value = module_.node(node).outputs[0];
      const std::vector<int>& users = consumers_[index(value)];
      const bool leaves =
          is_returned_[index(value)] || std::any_of(users.begin(), users.end(), [&](int user) {
            return !std::binary_search(nodes.begin(), nodes.end(), user);
          });
      if (leaves) outputs.push_back(value);
    }
    return outputs;
  }

  // Whether a path leaves the two groups and comes back.
  bool makes_cycle(int from, int into) {
    visited_.assign(graph_.nodes.size(), false);
    std::vector<int> stack;
    const auto is_member = [&](int node) {
      return group_of_[index(node)] == from || group_of_[index(node)] == into;
    };
    const auto push_consumers = [&](int node) {
      for (const int output : module_.node(node).outputs) {
        for (const int user : consumers_[index(output)]) {
          if (visited_[index(user)]) continue;
          visited_[index(user)] = true;
          stack.push_back(user);
        }
      }
    };
    bool has_outside = false;
    for (const int g : {from, into}) {
      for (const int node : group(g).nodes) push_consumers(node);
    }
    std::vector<int> outside;
    for (const int node : stack) {
      if (!is_member(node)) outside.push_back(node);
    }
    has_outside = !outside.empty();
    if (!has_outside) return false;
    stack = std::move(outside);
    std::vector<bool> is_expanded(groups_.size(), false);
    while (!stack.empty()) {
      const int node = stack.back();
      stack.pop_back();
      if (is_member(node)) return true;
      const int g = group_of_[index(node)];
      if (g < 0) {
        push_member_consumers(node, is_member, stack);
      } else if (!is_expanded[index(g)]) {
        is_expanded[index(g)] = true;
        for (const int mate : group(g).nodes) {
          visited_[index(mate)] = true;
          push_member_consumers(mate, is_member, stack);
        }
      }
    }
    return false;
  }

  // Pushes consumers not yet seen; members are pushed even if seen, since reaching one is the
  // answer.
  template <class IsMember>
  void push_member_consumers(int node, const IsMember& is_member, std::vector<int>& stack) {
    for (const int output : module_.node(node).outputs) {
      for (const int user : consumers_[index(output)]) {
        if (visited_[index(user)] && !is_member(user)) continue;
        visited_[index(user)] = true;
        stack.push_back(user);
      }
    }
  }

  void attach_epilogues() {
    for (Group& g : groups_) {
      if (!g.nodes.empty() && !g.is_exact) attach_epilogue(g);
    }
  }

  // Node of a product that only the group reads, through reshapes at most; -1 if `value` is none.
  int product_of(const Group& g, int value) const {
    int current = value;
    int user_limit = -1;
    while (true) {
      if (is_returned_[index(current)]) return -1;
      for (const int user : consumers_[index(current)]) {
        const bool is_in_group = std::binary_search(g.nodes.begin(), g.nodes.end(), user);
        if (!is_in_group && user != user_limit) return -1;
      }
      const int maker = module_.maker(current);
      if (maker < 0) return -1;
      const Node& node = module_.node(maker);
      if (node.op == "reshape") {
        user_limit = maker;
        current = node.inputs[0];
        continue;
      }
      return traits_of(node.op).takes_epilogue ? maker : -1;
    }
  }

  void attach_epilogue(Group& g) {
    const auto program = compile_pointwise(graph_, g.nodes, outputs_of(g.nodes), 0);
    if (!program) return;
    int best = -1;
    for (const int value : program->inputs) {
      const int product = product_of(g, value);
      if (product < 0 || product < best || graph_.spec(value).shape != g.shape) continue;
      if (taken_.count(product) > 0 || module_.is_setup[index(value)] != g.is_setup) continue;
      const Spec& result = graph_.out(module_.node(product));
      if (!compile_pointwise(graph_, g.nodes, outputs_of(g.nodes), result.shape.last())) continue;
      if ((result.dtype == Dtype::f64) != is_f64(g)) continue;
      best = product;
    }
    if (best < 0) return;
    g.product = best;
    taken_.insert(best);
  }

  Step step_of(const Group& g) const {
    Step step;
    step.group = g.nodes;
    step.is_setup = g.is_setup;
    step.node = g.product;
    step.kind = g.product < 0 ? Step::Kind::pointwise : Step::Kind::node;
    const int64_t columns = g.product < 0 ? 0 : graph_.out(module_.node(g.product)).shape.last();
    step.pointwise = compile_pointwise(graph_, g.nodes, outputs_of(g.nodes), columns);
    step.outputs = step.pointwise->outputs;
    if (g.product < 0) {
      step.inputs = step.pointwise->inputs;
      return step;
    }
    const Node& product = module_.node(g.product);
    step.inputs = product.inputs;
    step.temps = product.outputs;
    for (const int value : step.pointwise->inputs) {
      if (module_.root(value) != product.outputs[0]) step.inputs.push_back(value);
    }
    return step;
  }

  bool is_alias(const Node& node) const { return module_.root(node.outputs[0]) != node.outputs[0]; }

  void make_steps() {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const int id = static_cast<int>(i);
      const Node& node = graph_.nodes[i];
      if (group_of_[i] >= 0) {
        const Group& g = group(group_of_[i]);
        if (g.nodes.back() == id) module_.steps.push_back(step_of(g));
        continue;
      }
      const bool is_constant = node.op == "constant" && !is_splat(graph_, node.outputs[0]);
      if (node.op == "input" || is_constant || is_alias(node) || taken_.count(id) > 0) continue;
      if (node.op == "constant" && consumers_are_pointwise(node.outputs[0])) continue;
      Step step;
      step.node = id;
      step.inputs = node.inputs;
      step.outputs = node.outputs;
      step.is_setup = module_.is_setup[index(node.outputs[0])];
      module_.steps.push_back(std::move(step));
    }
  }

  // Elementwise programs hold the number itself.
  bool consumers_are_pointwise(int value) const {
    const std::vector<int>& users = consumers_[index(value)];
    return !is_returned_[index(value)] && std::all_of(users.begin(), users.end(), [&](int user) {
      return group_of_[index(user)] >= 0;
    });
  }

  Module& module_;
  const Graph& graph_;
  std::vector<std::vector<int>> consumers_;
  std::vector<bool> is_returned_;
  std::vector<int> group_of_;
  std::vector<Group> groups_;
  std::vector<bool> visited_;
  std::set<int> taken_;
};

}  // namespace

void fuse(Module& module, const AbortFlag& abort) { Fuser(module).run(abort); }

}  // namespace smalti
