// Orders the steps: dependencies first, then lower peak memory. New values of states are written
// straight into the state's buffer where that is safe (every other reader of the old value has
// run), else copied there at the end.
#include <algorithm>
#include <queue>
#include <set>

#include "native/compile/stages.h"

namespace smalti {
namespace {

class Scheduler {
 public:
  explicit Scheduler(Module& module) : module_(module) {}

  Schedule run() {
    index_steps();
    place_updates();
    Schedule result;
    result.in_buffers = in_buffers_;
    for (const bool is_setup : {true, false}) {
      std::vector<int> by_index = order(is_setup, false);
      std::vector<int> by_memory = order(is_setup, true);
      std::vector<int>& target = is_setup ? result.setup : result.run;
      target = peak(by_memory) < peak(by_index) ? std::move(by_memory) : std::move(by_index);
    }
    return result;
  }

 private:
  static size_t at(int i) { return static_cast<size_t>(i); }
  const Step& step(int i) const { return module_.steps[at(i)]; }

  void index_steps() {
    const size_t values = module_.graph.values.size();
    writer_.assign(values, -1);
    readers_.assign(values, {});
    successors_.assign(module_.steps.size(), {});
    for (size_t i = 0; i < module_.steps.size(); ++i) index_step(static_cast<int>(i));
    for (size_t i = 0; i < module_.steps.size(); ++i) {
      for (const int value : module_.steps[i].inputs) {
        const int writer = writer_[at(module_.root(value))];
        if (writer >= 0) successors_[at(writer)].push_back(static_cast<int>(i));
      }
    }
  }

  void index_step(int i) {
    for (const int value : step(i).outputs) writer_[at(module_.root(value))] = i;
    for (const int value : step(i).inputs) {
      std::vector<int>& readers = readers_[at(module_.root(value))];
      if (readers.empty() || readers.back() != i) readers.push_back(i);
    }
  }

  bool reaches(int from, const std::set<int>& targets) const {
    std::vector<bool> seen(module_.steps.size(), false);
    std::vector<int> stack{from};
    while (!stack.empty()) {
      const int current = stack.back();
      stack.pop_back();
      for (const int next : successors_[at(current)]) {
        if (targets.count(next) > 0) return true;
        if (!seen[at(next)]) stack.push_back(next);
        seen[at(next)] = true;
      }
    }
    return false;
  }

  // Appends a step that copies `source` into new memory and returns that value.
  int add_copy(int source) {
    const int copy = module_.add_value(module_.spec(source));
    writer_.push_back(-1);
    readers_.emplace_back();
    Step s;
    s.kind = Step::Kind::copy;
    s.inputs = {source};
    s.outputs = {copy};
    module_.steps.push_back(s);
    successors_.emplace_back();
    const int id = static_cast<int>(module_.steps.size()) - 1;
    const int maker = writer_[at(module_.root(source))];
    if (maker >= 0) successors_[at(maker)].push_back(id);
    index_step(id);
    return copy;
  }

  // The elementwise step may overwrite the state it reads.
  bool can_overwrite(int writer, int state_root, int value) const {
    const Step& s = step(writer);
    if (!s.pointwise) return false;
    const auto output = std::find(s.pointwise->outputs.begin(), s.pointwise->outputs.end(), value);
    if (output == s.pointwise->outputs.end()) return false;
    const auto o = static_cast<size_t>(output - s.pointwise->outputs.begin());
    for (size_t i = 0; i < s.pointwise->inputs.size(); ++i) {
      const Alias& alias = module_.aliases[at(s.pointwise->inputs[i])];
      if (alias.root == state_root && (alias.offset != 0 || !s.pointwise->can_share(i, o)))
        return false;
    }
    if (s.kind == Step::Kind::pointwise) return true;
    // An epilogue: the product itself must not read the state.
    const Node& node = module_.node(s.node);
    const auto is_state = [&](int input) { return module_.root(input) == state_root; };
    const bool is_read = std::any_of(node.inputs.begin(), node.inputs.end(), is_state) ||
                         std::any_of(s.columns.begin(), s.columns.end(), is_state) ||
                         is_state(s.inputs[1]);
    return !is_read;
  }

  // Tries to let the step that makes `value` write into the state's buffer.
  bool write_directly(int state, int value) {
    const int root = module_.root(value);
    const int writer = writer_[at(root)];
    const int state_root = module_.root(state);
    if (writer < 0 || step(writer).is_setup || in_buffers_.count(root) > 0) return false;
    if (module_.aliases[at(value)].offset != 0 ||
        module_.spec(root).bytes() != module_.spec(state).bytes())
      return false;
    std::set<int> others(readers_[at(state_root)].begin(), readers_[at(state_root)].end());
    if (others.erase(writer) > 0 && !can_overwrite(writer, state_root, root)) return false;
    if (!others.empty() && reaches(writer, others)) return false;
    for (const int reader : others) successors_[at(reader)].push_back(writer);
    in_buffers_[root] = state;
    return true;
  }

  void place_updates() {
    struct Pending {
      int state;
      int value;
    };
    std::vector<Pending> updates;
    std::set<int> updated;
    for (const GraphOutput& output : module_.graph.outputs) {
      if (!output.updates) continue;
      const int state =
          std::find_if(module_.graph.inputs.begin(), module_.graph.inputs.end(),
                       [&](const GraphInput& input) { return input.name == *output.updates; })
              ->value;
      if (module_.root(output.value) == state && module_.aliases[at(output.value)].offset == 0)
        continue;  // unchanged
      updates.push_back({state, output.value});
      updated.insert(state);
    }
    for (GraphOutput& output : module_.graph.outputs) {  // the caller gets the old value
      const bool is_overwritten = !output.updates && updated.count(module_.root(output.value)) > 0;
      if (is_overwritten) output.value = add_copy(output.value);
    }
    for (Pending& update : updates) {  // a state that is itself overwritten is saved first
      if (updated.count(module_.root(update.value)) > 0) update.value = add_copy(update.value);
    }
    for (const Pending& update : updates) {
      if (write_directly(update.state, update.value)) continue;
      write_directly(update.state, add_copy(update.value));
    }
  }

  bool is_in_arena(int root) const {
    return writer_[at(root)] >= 0 && in_buffers_.count(root) == 0;
  }

  bool is_returned(int root) const { return returned_.count(root) > 0; }

  std::vector<int> order(bool is_setup, bool by_memory) {
    returned_.clear();
    for (const GraphOutput& output : module_.graph.outputs) {
      if (!output.updates) returned_.insert(module_.root(output.value));
    }
    std::vector<int> blockers(module_.steps.size(), 0);
    for (size_t i = 0; i < module_.steps.size(); ++i) {
      if (step(static_cast<int>(i)).is_setup != is_setup) continue;
      for (const int next : successors_[i]) ++blockers[at(next)];
    }
    pending_readers_.assign(module_.graph.values.size(), 0);
    std::set<int> ready;
    for (size_t i = 0; i < module_.steps.size(); ++i) {
      const int id = static_cast<int>(i);
      if (step(id).is_setup != is_setup) continue;
      for (const int root : distinct_roots(step(id))) ++pending_readers_[at(root)];
      if (blockers[i] == 0) ready.insert(id);
    }
    std::vector<int> result;
    while (!ready.empty()) {
      const int chosen = by_memory ? cheapest(ready) : *ready.begin();
      ready.erase(chosen);
      result.push_back(chosen);
      for (const int root : distinct_roots(step(chosen))) --pending_readers_[at(root)];
      for (const int next : successors_[at(chosen)]) {
        if (--blockers[at(next)] == 0 && step(next).is_setup == is_setup) ready.insert(next);
      }
    }
    return result;
  }

  std::set<int> distinct_roots(const Step& s) const {
    std::set<int> roots;
    for (const int value : s.inputs) roots.insert(module_.root(value));
    return roots;
  }

  // The ready step after which least memory is held; the earliest of equals.
  int cheapest(const std::set<int>& ready) const {
    constexpr int kCandidates = 48;
    int best = -1;
    int64_t best_growth = 0;
    int count = 0;
    for (const int candidate : ready) {
      if (++count > kCandidates) break;
      const int64_t growth = growth_of(step(candidate));
      if (best >= 0 && growth >= best_growth) continue;
      best = candidate;
      best_growth = growth;
    }
    return best;
  }

  int64_t growth_of(const Step& s) const {
    int64_t growth = 0;
    for (const int value : s.outputs) {
      if (is_in_arena(module_.root(value))) growth += module_.spec(value).bytes();
    }
    for (const int root : distinct_roots(s)) {
      const bool ends = pending_readers_[at(root)] == 1 && is_in_arena(root) && !is_returned(root);
      if (ends) growth -= module_.spec(root).bytes();
    }
    return growth;
  }

  int64_t peak(const std::vector<int>& order) const {
    std::vector<int> left(module_.graph.values.size(), 0);
    for (const int id : order) {
      for (const int root : distinct_roots(step(id))) ++left[at(root)];
    }
    int64_t live = 0;
    int64_t highest = 0;
    for (const int id : order) {
      int64_t temps = 0;
      for (const int value : step(id).temps) temps += module_.spec(value).bytes();
      for (const int value : step(id).outputs) {
        if (is_in_arena(module_.root(value))) live += module_.spec(value).bytes();
      }
      highest = std::max(highest, live + temps);
      for (const int root : distinct_roots(step(id))) {
        if (--left[at(root)] == 0 && is_in_arena(root) && !is_returned(root))
          live -= module_.spec(root).bytes();
      }
    }
    return highest;
  }

  Module& module_;
  std::vector<int> writer_;                // by root value
  std::vector<std::vector<int>> readers_;  // by root value
  std::vector<std::vector<int>> successors_;
  std::map<int, int> in_buffers_;
  std::set<int> returned_;
  std::vector<int> pending_readers_;
};

}  // namespace

Schedule schedule(Module& module) { return Scheduler(module).run(); }

}  // namespace smalti
