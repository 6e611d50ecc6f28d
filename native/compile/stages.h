// The stages of compilation and what passes between them. Values keep their ids throughout; stages
// add synthetic ones.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "native/compile/program.h"
#include "native/ir/graph.h"
#include "native/kernels/table.h"

namespace smalti {

// A compiled chain of elementwise nodes.
struct PointwiseProgram {
  std::vector<PwInstr> code;
  std::vector<int> inputs;   // values, in order of PointwiseArgs::inputs
  std::vector<int> outputs;  // values, in order of PointwiseArgs::outputs
  PointwiseArgs args = {};   // shape, strides, dtypes; null pointers

  // Whether output `o` may lie in the memory of input `i`.
  bool can_share(size_t i, size_t o) const;
};

// How a product is computed: as it is defined, by minimal filtering in tiles, by Strassen's
// algorithm, by pairs of terms, by digits, or by filtering along rows (convolutions of few
// channels; of maps of a few pixels).
enum class Algorithm : uint8_t { defined, winograd, strassen, paired, digits, ends, small };

// One unit of execution: a node, a group of elementwise nodes, both (an epilogue), a packing or a
// copy.
struct Step {
  enum class Kind : uint8_t { node, pointwise, pack, copy };
  Kind kind = Kind::node;
  int node = -1;
  std::vector<int> group;   // elementwise nodes, ascending
  std::vector<int> inputs;  // values read
  std::vector<int> outputs;
  std::vector<int> temps;  // values that live during the step only
  bool is_setup = false;
  std::optional<PointwiseProgram> pointwise;
  const KernelTable* table = nullptr;  // of packings and of products that read packed operands
  PackArgs pack = {};
  Algorithm algorithm = Algorithm::defined;
  int64_t tile = 0;  // of Algorithm::winograd, and of digits where they run in tiles
  Quantize quantize = Quantize::none;
  // ResultSums, as (B, parts, floats): of the step's result, if group norms ask for them; of each
  // tensor that a group norm reads, -1 where there are none
  std::vector<int> sums;
  int64_t own_sums = 0;      // bit i: the group norm makes them
  int64_t norm_block = 0;    // GroupNormArgs::block
  std::vector<int> columns;  // values side by side that are its first operand, unless it is one
};

// Where values lie relative to each other: `root` holds the memory of `value` from byte `offset`.
// A value that is columns of its root, or of each head of it, has `row_stride` elements between
// tokens and `head_stride` between heads: only attention reads such ones.
struct Alias {
  int root;
  int64_t offset;
  int64_t row_stride = 0;   // 0: dense
  int64_t head_stride = 0;  // 0: heads side by side
};

struct Module {
  Graph graph;
  std::vector<Alias> aliases;  // by value
  std::vector<bool> is_setup;  // by value: depends on weights and constants only
  std::vector<Step> steps;
  bool allows_winograd = true;  // and Strassen's algorithm, pairs of terms and digits
  Quantize quantize = Quantize::none;
  const KernelTable* isa = nullptr;  // null: reference only
  int threads = 1;  // of the pool: where intermediates lie depends on it, no result does
  const KernelTable* ref = nullptr;

  int add_value(const Spec& spec);
  int root(int value) const { return aliases[static_cast<size_t>(value)].root; }
  const Node& node(int id) const { return graph.nodes[static_cast<size_t>(id)]; }
  const Spec& spec(int value) const { return graph.spec(value); }
  // Node that makes the value, -1 for synthetic values.
  int maker(int value) const { return graph.values[static_cast<size_t>(value)].node; }
};

// --- canonicalise.cc: drops what does nothing, merges what is equal.
Graph canonicalise(const Graph& graph);
// A copy made on purpose, to be computed late (lib/autodiff/rematerialise.ts): it is neither merged
// with its original nor fused into what comes before it.
bool is_recomputed(const Node& node);

// --- alias.cc: reshapes and leading slices share memory; marks what the setup can compute.
void find_aliases(Module& module);

// --- pointwise_program.cc
bool is_pointwise(const std::string& op);
// Whether the node needs integer arithmetic that f32 registers cannot do.
bool is_exact(const Graph& graph, const Node& node);
// Program of `nodes` (ascending) that stores `outputs`; nothing when it exceeds the machine's
// limits. With `columns` > 0 the last dimension of the iteration space is kept at that size
// (epilogues).
std::optional<PointwiseProgram> compile_pointwise(const Graph& graph, const std::vector<int>& nodes,
                                                  const std::vector<int>& outputs, int64_t columns);
// A constant node with one value for all elements.
bool is_splat(const Graph& graph, int value);

// --- traits.cc: what the kernels of an op allow
struct Traits {
  bool takes_epilogue;     // a chain of elementwise nodes runs on each piece of its result
  bool writes_over_input;  // an item reads of the first input only what it writes
  bool sums_results;       // for who reads them (ResultSums)
  bool reads_sums;         // of the results that are its first input
  bool takes_columns;      // its first input may be tensors side by side
};
Traits traits_of(const std::string& op);

// --- fuse.cc: nodes -> steps
void fuse(Module& module, const AbortFlag& abort);

// --- select.cc: backends, packings and temporaries
void select(Module& module);
template <class Args>
const KernelTable& pick(const Module& module, Kernel<Args> KernelTable::*entry, bool is_fast) {
  return is_fast && module.isa != nullptr && (module.isa->*entry).run != nullptr ? *module.isa
                                                                                 : *module.ref;
}

// --- schedule.cc: order of the steps, and where states are written
struct Schedule {
  std::vector<int> setup;  // steps
  std::vector<int> run;
  std::map<int, int> in_buffers;  // root value -> state value whose memory it writes
};
Schedule schedule(Module& module);

// --- plan_memory.cc
struct Lifetime {
  int value;
  int64_t bytes;
  int first;
  int last;
};
struct ArenaPlan {
  std::vector<int64_t> offsets;  // by lifetime
  int64_t bytes = 0;
  int64_t lower_bound = 0;  // largest sum of what is alive at once
};
ArenaPlan plan_arena(const std::vector<Lifetime>& lifetimes, const AbortFlag& abort = {});

struct MemoryPlan {
  std::vector<Place> places;  // by root value
  int64_t setup_arena_bytes = 0;
  int64_t arena_bytes = 0;
  int64_t lower_bound_bytes = 0;
  int64_t persistent_bytes = 0;
  std::vector<PlannedBuffer> planned;
  std::vector<NamedBytes> setup_tensors;
  std::vector<NamedBytes> persistent;
  AlignedBuffer constants;

  Place place_of(const Module& module, int value) const;
};
MemoryPlan plan_memory(const Module& module, const Schedule& order, const AbortFlag& abort);

// --- bind.cc: step -> instructions
std::vector<Instruction> bind(const Module& module, const MemoryPlan& memory, const Step& step);
// Ops with a bind function.
std::vector<std::string> bindable_ops();

// Matrix dimensions of a matmul node.
struct MatmulShape {
  int64_t batch, M, N, K;
  bool a_shared, b_shared, transpose_a, transpose_b;
};
MatmulShape matmul_shape(const Graph& graph, const Node& node);

// The convolution that conv2d or conv2dGradInput is: no pointers, no packed sizes.
Conv2dArgs conv2d_shape(const Graph& graph, const Node& node);

// --- winograd.cc: the cheapest algorithm and its tile; arguments without pointers; floats of the
// tensors between the stages of Winograd's; operations of the kernel
struct ConvAlgorithm {
  Algorithm algorithm;
  int64_t tile;
};
ConvAlgorithm conv2d_algorithm(const Conv2dArgs& conv, bool packs_in_run, int64_t small_images);
WinogradArgs winograd_args(const Conv2dArgs& conv, int64_t tile, int64_t panel_columns);
// Whether digits, where they are offered, compute it, and faster; with Winograd's algorithm where
// the tile is not 0; floats of its inputs in digits.
bool takes_conv_digits(const Conv2dArgs& conv, bool packs_in_run);
int64_t conv_digits_tile(const Conv2dArgs& conv);
WinogradArgs winograd_digits_args(const Conv2dArgs& conv);
bool winograd_digits_is_local(const WinogradArgs& args, int threads);
int64_t conv_digits_elements(const Conv2dArgs& conv, int64_t tile, int threads);
struct WinogradTemps {
  int64_t inputs = 0;
  int64_t products = 0;
};
WinogradTemps winograd_temps(const WinogradArgs& args);
// Whether the weight, four times as large when packed, is packed in each run instead of once.
bool winograd_packs_again(const WinogradArgs& args);
// Parts of ResultSums.
int64_t winograd_parts(const WinogradArgs& args);
double winograd_work(const WinogradArgs& args);
// The same for the gradient of the weight.
Conv2dGradWeightArgs conv2d_grad_weight_shape(const Graph& graph, const Node& node);
int64_t winograd_gradient_tile(const Conv2dGradWeightArgs& conv);
WinogradGradArgs winograd_gradient_args(const Conv2dGradWeightArgs& conv, int64_t tile);
struct WinogradGradTemps {
  int64_t inputs, gradients, products;
};
WinogradGradTemps winograd_gradient_temps(const WinogradGradArgs& args);
double winograd_work(const WinogradGradArgs& args);

// --- quantize.cc: how the product of a step is to run; its shape as a convolution
Quantize quantize_of(const Module& module, const Step& step);
Conv2dArgs product_shape(const Graph& graph, const Node& node);

// The kernel spreads gradients by one stride for both axes. With two different ones the gradient is
// spread into a temporary tensor (the step's last) first.
bool is_spread_gradient(const Node& node);
Shape spread_shape(const Graph& graph, const Node& node);

}  // namespace smalti
