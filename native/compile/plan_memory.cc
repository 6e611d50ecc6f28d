// Offsets of all tensors of a run in one arena, from their lifetimes: larger first, each in the
// tightest gap between the tensors that live at the same time. An elementwise step may write over
// an input that ends with it.
#include <algorithm>
#include <cstring>
#include <functional>
#include <set>

#include "native/compile/binder.h"
#include "native/compile/stages.h"
#include "native/core/error.h"

namespace smalti {
namespace {

constexpr int64_t kAlignment = 64;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Packed and padded forms of hostile sizes must not overflow their sum.
int64_t checked(int64_t bytes) {
  constexpr int64_t kMaxBytes = int64_t{1} << 55;
  if (bytes < 0 || bytes > kMaxBytes)
    throw Error(ErrorCode::memory,
                "plan: expected tensors that fit a machine, got more than 2^55 bytes");
  return bytes;
}

// Lowest-waste offset for a block of `bytes` among occupied [begin, end) ranges.
int64_t best_fit(std::vector<std::pair<int64_t, int64_t>>& occupied, int64_t bytes) {
  std::sort(occupied.begin(), occupied.end());
  int64_t end = 0;
  int64_t best = -1;
  int64_t best_gap = INT64_MAX;
  for (const auto& [from, to] : occupied) {
    const int64_t gap = from - end;
    if (gap >= bytes && gap < best_gap) {
      best = end;
      best_gap = gap;
    }
    end = std::max(end, to);
  }
  return best >= 0 ? best : end;
}

template <class Before>
ArenaPlan place_in_order(const std::vector<Lifetime>& lifetimes, const AbortFlag& abort,
                         Before before) {
  std::vector<size_t> order(lifetimes.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return before(lifetimes[a], lifetimes[b]); });
  ArenaPlan plan;
  plan.offsets.assign(lifetimes.size(), 0);
  std::vector<size_t> placed;
  std::vector<std::pair<int64_t, int64_t>> occupied;
  for (const size_t i : order) {
    abort.check("compile");
    const Lifetime& life = lifetimes[i];
    occupied.clear();
    for (const size_t j : placed) {
      const Lifetime& other = lifetimes[j];
      if (other.first <= life.last && life.first <= other.last) {
        occupied.emplace_back(plan.offsets[j], plan.offsets[j] + aligned(other.bytes));
      }
    }
    plan.offsets[i] = best_fit(occupied, aligned(checked(life.bytes)));
    plan.bytes = std::max(plan.bytes, checked(plan.offsets[i] + aligned(checked(life.bytes))));
    placed.push_back(i);
  }
  return plan;
}

int64_t largest_live_set(const std::vector<Lifetime>& lifetimes) {
  std::map<int, int64_t> change;
  for (const Lifetime& life : lifetimes) {
    change[life.first] += aligned(life.bytes);
    change[life.last + 1] -= aligned(life.bytes);
  }
  int64_t live = 0;
  int64_t largest = 0;
  for (const auto& [step, bytes] : change) {
    live += bytes;
    largest = std::max(largest, live);
  }
  return largest;
}

class Planner {
 public:
  Planner(const Module& module, const Schedule& order, const AbortFlag& abort)
      : module_(module), order_(order), abort_(abort) {
    plan_.places.resize(module.graph.values.size());
    is_placed_.assign(module.graph.values.size(), false);
    merged_.resize(module.graph.values.size());
    for (size_t i = 0; i < merged_.size(); ++i) merged_[i] = static_cast<int>(i);
  }

  MemoryPlan run() {
    name_synthetic_values();
    place_interface();
    place_constants();
    place_in_buffers();
    const std::set<int> kept = setup_results();
    place_persistent(kept);
    plan_.setup_arena_bytes = place_arena(order_.setup, {}).bytes;
    std::set<int> returned;
    for (const GraphOutput& output : module_.graph.outputs)
      returned.insert(module_.root(output.value));
    const ArenaPlan arena = place_arena(order_.run, returned);
    plan_.arena_bytes = arena.bytes;
    plan_.lower_bound_bytes = arena.lower_bound;
    return std::move(plan_);
  }

 private:
  static size_t at(int i) { return static_cast<size_t>(i); }
  const Step& step(int i) const { return module_.steps[at(i)]; }

  void place(int value, Place where) {
    plan_.places[at(value)] = where;
    is_placed_[at(value)] = true;
  }

  void place_interface() {
    int inputs = 0;
    int buffers = 0;
    for (const GraphInput& input : module_.graph.inputs) {
      const bool is_input = input.role == Role::input;
      place(input.value,
            {is_input ? Space::input : Space::buffer, is_input ? inputs++ : buffers++, 0});
    }
  }

  void place_constants() {
    std::vector<const Node*> nodes;
    int64_t bytes = 0;
    for (const Node& node : module_.graph.nodes) {
      if (node.op != "constant" || is_splat(module_.graph, node.outputs[0])) continue;
      place(node.outputs[0], {Space::constant, 0, bytes});
      bytes += aligned(module_.graph.out(node).bytes());
      nodes.push_back(&node);
    }
    plan_.constants = AlignedBuffer(static_cast<size_t>(bytes), "the constants of the graph");
    for (const Node* node : nodes) {
      std::byte* to = plan_.constants.data() + plan_.places[at(node->outputs[0])].offset;
      const Dtype dtype = module_.graph.out(*node).dtype;
      for (const double value : node->numbers("values")) {
        const uint64_t bits = encode_number(value, dtype);
        std::memcpy(to, &bits, dtype_bytes(dtype));
        to += dtype_bytes(dtype);
      }
    }
  }

  void place_in_buffers() {
    for (const auto& [root, state] : order_.in_buffers) place(root, plan_.places[at(state)]);
  }

  // Results of setup steps that the run, or the caller, reads.
  std::set<int> setup_results() const {
    std::set<int> made;
    for (const int id : order_.setup) {
      for (const int value : step(id).outputs) made.insert(module_.root(value));
    }
    std::set<int> kept;
    const auto keep = [&](int value) {
      if (made.count(module_.root(value)) > 0) kept.insert(module_.root(value));
    };
    for (const int id : order_.run) {
      for (const int value : step(id).inputs) keep(value);
    }
    for (const GraphOutput& output : module_.graph.outputs) keep(output.value);
    return kept;
  }

  void place_persistent(const std::set<int>& kept) {
    for (const int root : kept) {
      place(root, {Space::persistent, 0, plan_.persistent_bytes});
      plan_.persistent.push_back({name_of(root), module_.spec(root).bytes()});
      plan_.persistent_bytes =
          checked(plan_.persistent_bytes + aligned(checked(module_.spec(root).bytes())));
    }
  }

  int merged(int root) {
    while (merged_[at(root)] != root) root = merged_[at(root)];
    return root;
  }

  // Lifetimes of what the steps write and has no place yet, by root value.
  std::map<int, Lifetime> lifetimes(const std::vector<int>& steps, const std::set<int>& returned) {
    std::map<int, Lifetime> lives;
    const int end = static_cast<int>(steps.size());
    for (int i = 0; i < end; ++i) {
      const Step& s = step(steps[at(i)]);
      for (const std::vector<int>* values : {&s.outputs, &s.temps}) {
        for (const int value : *values) {
          const int root = module_.root(value);
          if (!is_placed_[at(root)]) lives[root] = {root, module_.spec(root).bytes(), i, i};
        }
      }
      for (const int value : s.inputs) {
        const auto life = lives.find(module_.root(value));
        if (life != lives.end()) life->second.last = i;
      }
    }
    for (auto& [root, life] : lives) {
      if (returned.count(root) > 0) life.last = end;
    }
    return lives;
  }

  // Lets outputs of elementwise steps take over inputs that end there.
  void share_in_place(const std::vector<int>& steps, std::map<int, Lifetime>& lives) {
    for (int i = 0; i < static_cast<int>(steps.size()); ++i) {
      const Step& s = step(steps[at(i)]);
      if (writes_over_input(s)) share_map(s, i, lives);
      if (!s.pointwise) continue;
      std::set<int> used;
      for (size_t o = 0; o < s.pointwise->outputs.size(); ++o) {
        for (size_t k = 0; k < s.pointwise->inputs.size(); ++k) {
          if (share(s, i, k, o, lives, used)) break;
        }
      }
    }
  }

  // One that may write over the map that it reads.
  bool writes_over_input(const Step& s) const {
    return s.kind == Step::Kind::node && s.columns.empty() &&
           traits_of(module_.node(s.node).op).writes_over_input;
  }

  // Lets a step write over the map that it reads last.
  void share_map(const Step& s, int at_step, std::map<int, Lifetime>& lives) {
    const int source = merged(module_.root(s.inputs[0]));
    const int output = module_.node(s.node).outputs[0];
    const auto from = lives.find(source);
    const auto to = lives.find(output);
    if (from == lives.end() || to == lives.end() || from->second.last != at_step) return;
    if (from->second.bytes != to->second.bytes || module_.aliases[at(s.inputs[0])].offset != 0)
      return;
    for (size_t k = 1; k < s.inputs.size(); ++k) {
      if (merged(module_.root(s.inputs[k])) == source) return;
    }
    from->second.last = to->second.last;
    merged_[at(output)] = source;
    lives.erase(to);
  }

  bool share(const Step& s, int at_step, size_t k, size_t o, std::map<int, Lifetime>& lives,
             std::set<int>& used) {
    const int output = s.pointwise->outputs[o];
    const int source_root = module_.root(s.pointwise->inputs[k]);
    const int source = merged(source_root);
    const auto from = lives.find(source);
    const auto to = lives.find(output);
    if (from == lives.end() || to == lives.end() || from == to || used.count(source) > 0)
      return false;
    if (from->second.last != at_step || from->second.bytes != to->second.bytes) return false;
    if (module_.aliases[at(s.pointwise->inputs[k])].offset != 0 || !s.pointwise->can_share(k, o))
      return false;
    if (is_read_otherwise(s, source, s.pointwise->inputs[k], o)) return false;
    used.insert(source);
    used.insert(output);
    from->second.last = to->second.last;
    merged_[at(output)] = source;
    lives.erase(to);
    return true;
  }

  // Whether the step reads the memory also as an operand of its product or through another input.
  bool is_read_otherwise(const Step& s, int source, int input, size_t o) {
    for (size_t k = 0; k < s.pointwise->inputs.size(); ++k) {
      const int value = s.pointwise->inputs[k];
      if (value == input || merged(module_.root(value)) != source) continue;
      if (module_.aliases[at(value)].offset != 0 || !s.pointwise->can_share(k, o)) return true;
    }
    if (s.kind != Step::Kind::node || writes_over_input(s)) return false;
    const size_t operands = module_.node(s.node).inputs.size();
    for (size_t k = 0; k < operands; ++k) {
      if (merged(module_.root(s.inputs[k])) == source) return true;
    }
    return std::any_of(s.columns.begin(), s.columns.end(),
                       [&](int value) { return merged(module_.root(value)) == source; });
  }

  ArenaPlan place_arena(const std::vector<int>& steps, const std::set<int>& returned) {
    std::map<int, Lifetime> lives = lifetimes(steps, returned);
    std::vector<int> roots;
    for (const auto& [root, life] : lives) roots.push_back(root);
    share_in_place(steps, lives);
    std::vector<Lifetime> list;
    std::map<int, size_t> index;
    for (const auto& [root, life] : lives) {
      index[root] = list.size();
      list.push_back(life);
    }
    ArenaPlan arena = plan_arena(list, abort_);
    for (const int root : roots) {
      const size_t i = index.at(merged(root));
      place(root, {Space::arena, 0, arena.offsets[i]});
    }
    const bool is_run = &steps == &order_.run;
    for (size_t i = 0; i < list.size(); ++i) {
      const NamedBytes named{name_of(list[i].value), list[i].bytes};
      if (is_run) {
        plan_.planned.push_back({named, arena.offsets[i], list[i].first, list[i].last});
      } else {
        plan_.setup_tensors.push_back(named);
      }
    }
    return arena;
  }

  // Packed operands and scratch are named by the step that needs them.
  void name_synthetic_values() {
    for (const Step& s : module_.steps) {
      if (s.kind == Step::Kind::pack)
        synthetic_names_[module_.root(s.outputs[0])] = "packed " + name_of(s.inputs[0]);
      if (s.kind != Step::Kind::node) continue;
      for (const int value : s.temps) {
        if (module_.maker(value) < 0)
          synthetic_names_[value] = "scratch of " + name_of(module_.node(s.node).outputs[0]);
      }
    }
  }

  std::string name_of(int value) const {
    const int maker = module_.maker(value);
    if (maker < 0) {
      const auto found = synthetic_names_.find(value);
      return found != synthetic_names_.end() ? found->second : "%" + std::to_string(value);
    }
    const Node& node = module_.node(maker);
    if (node.op == "input") return node.text("name") + " " + format_spec(module_.spec(value));
    return "%" + std::to_string(value) + " " + node.op + " " + format_spec(module_.spec(value)) +
           (node.scope.empty() ? "" : " # " + node.scope);
  }

  const Module& module_;
  const Schedule& order_;
  const AbortFlag& abort_;
  MemoryPlan plan_;
  std::vector<bool> is_placed_;
  std::vector<int> merged_;
  std::map<int, std::string> synthetic_names_;
};

}  // namespace

ArenaPlan plan_arena(const std::vector<Lifetime>& lifetimes, const AbortFlag& abort) {
  const auto area = [](const Lifetime& life) {
    return static_cast<double>(life.bytes) * (life.last - life.first + 1);
  };
  const std::function<bool(const Lifetime&, const Lifetime&)> orders[] = {
      [](const Lifetime& a, const Lifetime& b) { return a.bytes > b.bytes; },
      [](const Lifetime& a, const Lifetime& b) { return a.first < b.first; },
      [&](const Lifetime& a, const Lifetime& b) { return area(a) > area(b); }};
  const int64_t lower_bound = largest_live_set(lifetimes);
  ArenaPlan best;
  for (const auto& before : orders) {
    ArenaPlan plan = place_in_order(lifetimes, abort, before);
    if (best.offsets.empty() || plan.bytes < best.bytes) best = std::move(plan);
    if (best.bytes == lower_bound) break;
  }
  best.lower_bound = lower_bound;
  return best;
}

Place MemoryPlan::place_of(const Module& module, int value) const {
  const Alias& alias = module.aliases[static_cast<size_t>(value)];
  Place place = places[static_cast<size_t>(alias.root)];
  place.offset += alias.offset;
  return place;
}

MemoryPlan plan_memory(const Module& module, const Schedule& order, const AbortFlag& abort) {
  return Planner(module, order, abort).run();
}

}  // namespace smalti
