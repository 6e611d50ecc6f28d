// Chooses the backend of products and adds what kernels need besides their operands: packed
// weights, scratch tensors.
#include <algorithm>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "native/compile/stages.h"

namespace smalti {
namespace {

// Products below are too small for Strassen's algorithm.
constexpr int64_t kStrassenRows = 64;  // of a sample
constexpr int64_t kStrassenSum = 256;
constexpr int64_t kStrassenColumns = 256;
constexpr int64_t kStrassenWeight = 1 << 17;       // numbers: the sums of a smaller one cost more
constexpr int64_t kStrassenLocalWeight = 1 << 16;  // where work items form the sums they need

// Products below gain nothing by pairs of terms or by digits, where these are offered.
constexpr int64_t kSharedRows = 32;            // of a sample
constexpr int64_t kSharedRowsOfPacking = 128;  // where each run packs the other operand
constexpr int64_t kSharedSum = 64;
constexpr int64_t kPairedLeastColumns = 128;
constexpr int64_t kDigitsLeastColumns = 32;
constexpr int64_t kDigitsReadWeight = 1 << 16;  // numbers: to read it is what few rows cost
constexpr int64_t kDigitsReadColumns = 256;     // of two work items
// The same for attention: below, making digits costs what they save (docs/design/0033).
constexpr int64_t kDigitsLeastQueries = 256;
constexpr int64_t kDigitsLeastKeys = 128;
constexpr int64_t kDigitsLeastWidth = 40;

// Packing of the second operand of a matmul.
PackArgs matmul_pack(const Graph& graph, const Node& node) {
  const MatmulShape shape = matmul_shape(graph, node);
  PackArgs pack = {};
  pack.groups = shape.b_shared ? 1 : shape.batch;
  pack.K = shape.K;
  pack.N = shape.N;
  pack.group_stride = shape.K * shape.N;
  pack.taps = 1;
  pack.channels = shape.K;
  pack.k_stride = shape.transpose_b ? 1 : shape.N;
  pack.n_stride = shape.transpose_b ? shape.K : 1;
  pack.dtype = graph.out(node).dtype;
  return pack;
}

// Groups, stride, padding and upsampling of a convolution or of a gradient of one.
template <class Args>
void set_window(const Node& node, Args& a) {
  const std::vector<int64_t> stride = node.integers("stride");
  const std::vector<int64_t> padding = node.integers("padding");
  a.groups = node.integer_or("groups", 1);
  a.stride_h = stride[0];
  a.stride_w = stride[1];
  a.pad_top = padding[0];
  a.pad_left = padding[2];
  a.upsample = node.integer_or("upsample", 1);
}

// As conv2d with the roles of the channels exchanged, taps flipped, and zeros between the pixels of
// a strided gradient.
void turn_into_input_gradient(Conv2dArgs& a) {
  std::swap(a.C, a.O);
  a.dilation = a.stride_h;
  a.stride_h = a.stride_w = 1;
  a.pad_top = a.KH - 1 - a.pad_top;
  a.pad_left = a.KW - 1 - a.pad_left;
}

// Weight (KH, KW, C, groups * O): columns are output channels, or input channels with flipped taps
// for the input's gradient.
PackArgs conv_pack(const Graph& graph, const Node& node) {
  const Shape& w = graph.in(node, 1).shape;
  const int64_t groups = node.integer_or("groups", 1);
  const int64_t O = w[3] / groups;
  const bool is_gradient = node.op == "conv2dGradInput";
  PackArgs pack = {};
  pack.groups = groups;
  pack.taps = w[0] * w[1];
  pack.channels = is_gradient ? O : w[2];
  pack.K = pack.taps * pack.channels;
  pack.N = is_gradient ? w[2] : O;
  pack.group_stride = O;
  pack.tap_stride = w[2] * w[3];
  pack.k_stride = is_gradient ? 1 : w[3];
  pack.n_stride = is_gradient ? w[3] : 1;
  pack.flip_taps = is_gradient;
  pack.dtype = graph.out(node).dtype;
  return pack;
}

// Matrices of a packed operand, and rows of each.
int64_t packed_elements(const PackArgs& pack, int64_t panel_columns) {
  if (pack.quantize == Quantize::int8) {
    const int64_t taps = pack.tile != 0 ? 4 : pack.taps;
    return int8_parts(pack.tile != 0) *
           int8_packed_elements(taps, pack.channels, pack.N, panel_columns);
  }
  if (pack.quantize != Quantize::none)
    return narrow_packed_elements(pack.quantize, pack.K, pack.N, panel_columns);
  if (pack.form == ProductForm::digits) {
    const int64_t matrices = pack.tile == 0 ? pack.taps : winograd_products(pack.tile);
    return matrices * digits_elements(pack.N, pack.channels);
  }
  if (pack.form == ProductForm::paired)
    return packed_group_elements(paired_panel_rows(pack.K), pack.N, panel_columns);
  if (pack.form == ProductForm::strassen)
    return kStrassenProducts * packed_group_elements(pack.K / 2, pack.N / 2, panel_columns);
  const int64_t matrices = pack.tile == 0 ? pack.groups : winograd_products(pack.tile);
  const int64_t rows = pack.tile == 0 ? pack.K : pack.channels;
  return matrices * packed_group_elements(rows, pack.N, panel_columns);
}

class Selector {
 public:
  explicit Selector(Module& module) : module_(module) {}

  void run() {
    const std::vector<Step> steps = std::move(module_.steps);
    module_.steps.clear();
    for (Step step : steps) {
      if (step.kind == Step::Kind::node) prepare(step);
      module_.steps.push_back(std::move(step));
    }
    read_in_place();
    drop_concatenations();
    for (Step& step : module_.steps) {
      if (step.kind == Step::Kind::node && traits_of(module_.node(step.node).op).reads_sums)
        prepare_sums(step);
    }
  }

 private:
  void prepare(Step& step) {
    const Node& node = module_.node(step.node);
    const bool is_f32 = module_.graph.out(node).dtype == Dtype::f32;
    step.quantize = quantize_of(module_, step);
    if (step.quantize != Quantize::none) {
      prepare_quantized(step, node);
    } else if (node.op == "matmul") {
      prepare_matmul(step, node, is_f32);
    } else if (node.op == "conv2d" || node.op == "conv2dGradInput") {
      prepare_conv2d(step, node, is_f32);
    } else if (node.op == "conv2dGradWeight") {
      prepare_grad_weight(step, node);
    } else if (node.op == "nearestCodes") {
      const Shape& codebook = module_.graph.in(node, 1).shape;
      add_temp(step, Dtype::f32, packed_code_elements(codebook[0], codebook[1]));
    } else if (node.op == "groupNormGrad") {
      const Shape& x = module_.graph.in(node, 0).shape;
      add_temp(step, module_.graph.out(node).dtype, x[0] * 2 * x.last());
    } else if (node.op == "attention") {
      prepare_attention(step, node, is_f32);
    } else if (node.op == "attentionGrad") {
      const Shape& q = module_.graph.in(node, 0).shape;
      const int64_t floats =
          attention_grad_floats(q[0] * q[2], q[1], module_.graph.in(node, 1).shape[1]);
      if (is_f32 && module_.isa != nullptr && floats > 0) add_temp(step, Dtype::f32, floats);
    } else if (node.op == "layerNormGrad" && node.text("affine") != "none") {
      const Shape& x = module_.graph.in(node, 0).shape;
      const int64_t B = x.rank == 1 ? 1 : x[0];
      const int64_t rows = x.elements() / B / x.last();
      add_temp(step, module_.graph.out(node).dtype,
               B * ((rows + kLayerNormBlock - 1) / kLayerNormBlock) * 2 * x.last());
    }
  }

  void prepare_matmul(Step& step, const Node& node, bool is_f32) {
    PackArgs pack = matmul_pack(module_.graph, node);
    const KernelTable* table = &pick(module_, &KernelTable::matmul, is_f32);
    const MatmulShape shape = matmul_shape(module_.graph, node);
    if (takes_digits(step, node, shape, *table)) {
      step.algorithm = Algorithm::digits;
    } else if (takes_pairs(step, node, shape, *table)) {
      step.algorithm = Algorithm::paired;
    } else if (takes_strassen(step, node, shape, *table)) {
      step.algorithm = Algorithm::strassen;
    }
    pack.form = form_of(step);
    pack_operand(step, pack, table);
    if (pack.form == ProductForm::digits)
      add_temp(step, Dtype::f32, digits_elements(shape.M, shape.K));
    if (pack.form == ProductForm::paired && !paired_is_local(shape.M, shape.N))
      add_temp(step, Dtype::f32, shape.M * paired_row(shape.K));
    if (pack.form == ProductForm::strassen && !strassen_is_local(shape.M))
      add_temp(step, Dtype::f32, kStrassenSums * shape.M / 2 * winograd_row(shape.K / 2));
  }

  void prepare_attention(Step& step, const Node& node, bool is_f32) {
    const Shape& q = module_.graph.in(node, 0).shape;
    const int64_t M = module_.graph.in(node, 1).shape[1];
    const int64_t D = q[3], E = module_.graph.in(node, 2).shape[3];
    const bool is_offered = is_f32 && module_.allows_winograd && module_.isa != nullptr &&
                            module_.isa->attention_digits.run != nullptr;
    // Future keys are not to change the scales of digits of what a causal query sees.
    if (!is_offered || node.flag_or("causal", false) || q[1] < kDigitsLeastQueries ||
        M < kDigitsLeastKeys || D < kDigitsLeastWidth || E < kDigitsLeastWidth || D > kDigitsWidest)
      return;
    step.algorithm = Algorithm::digits;
    add_temp(step, Dtype::f32, attention_digit_floats(q[0] * q[2], M, D, E));
  }

  static ProductForm form_of(const Step& step) {
    return step.algorithm == Algorithm::strassen ? ProductForm::strassen
           : step.algorithm == Algorithm::paired ? ProductForm::paired
           : step.algorithm == Algorithm::digits ? ProductForm::digits
                                                 : ProductForm::defined;
  }

  // What decides is the shape of a sample, which depends on no other one.
  static int64_t sample_rows(const Shape& a) { return a.product(1, a.rank - 1); }

  // With a matrix that all samples share: a weight, or the gradient of a result, whose product with
  // columns of inputs is that of a weight.
  bool is_shared(const Step& step, const Node& node, const MatmulShape& s,
                 int64_t least = kSharedRows) const {
    if (!module_.allows_winograd || step.is_setup || s.batch != 1) return false;
    const Shape& a = module_.graph.in(node, 0).shape;
    const bool is_packed = module_.is_setup[static_cast<size_t>(step.inputs[1])];
    const int64_t rows = s.transpose_a ? s.M : a.rank >= 3 ? sample_rows(a) : 0;
    return module_.graph.in(node, 1).shape.rank == 2 && s.K >= kSharedSum &&
           rows >= (is_packed ? least : kSharedRowsOfPacking);
  }

  bool takes_digits(const Step& step, const Node& node, const MatmulShape& s,
                    const KernelTable& table) const {
    const bool is_read = s.N >= kDigitsReadColumns && s.K * s.N >= kDigitsReadWeight;
    return table.digits.run != nullptr && s.N >= kDigitsLeastColumns &&
           is_shared(step, node, s, is_read ? 0 : kSharedRows);
  }

  bool takes_pairs(const Step& step, const Node& node, const MatmulShape& s,
                   const KernelTable& table) const {
    return table.paired.run != nullptr && s.N >= kPairedLeastColumns &&
           s.N % table.panel_columns == 0 && is_shared(step, node, s);
  }

  // Rows are paired within a sample, so that its results depend on no other one.
  bool takes_strassen(const Step& step, const Node& node, const MatmulShape& s,
                      const KernelTable& table) const {
    if (table.strassen.run == nullptr || !module_.allows_winograd || step.is_setup) return false;
    if (!module_.is_setup[static_cast<size_t>(step.inputs[1])]) return false;
    const Shape& a = module_.graph.in(node, 0).shape;
    if (s.batch != 1 || s.transpose_a || a.rank < 3) return false;
    if (concatenation(module_.root(step.inputs[0]), a.rank - 1)) return false;  // read in place
    const int64_t rows = sample_rows(a);
    const int64_t least = strassen_is_local(rows) ? kStrassenLocalWeight : kStrassenWeight;
    return rows >= kStrassenRows && rows % 2 == 0 && s.K >= kStrassenSum &&
           s.K % kStrassenDepth == 0 && s.N >= kStrassenColumns && s.K * s.N >= least &&
           s.N % (2 * table.panel_columns) == 0;
  }

  void prepare_conv2d(Step& step, const Node& node, bool is_f32) {
    PackArgs pack = conv_pack(module_.graph, node);
    const Conv2dArgs conv = conv2d_shape(module_.graph, node);
    const KernelTable* table = &pick(module_, &KernelTable::conv2d, is_f32);
    if (module_.allows_winograd && table->winograd.run != nullptr && !is_spread_gradient(node)) {
      const bool packs_in_run = !module_.is_setup[static_cast<size_t>(step.inputs[1])];
      const ConvAlgorithm best = conv2d_algorithm(conv, packs_in_run, table->small_images);
      const bool in_digits =
          table->conv2d_digits.run != nullptr && takes_conv_digits(conv, packs_in_run);
      step.algorithm = in_digits ? Algorithm::digits : best.algorithm;
      step.tile = in_digits ? conv_digits_tile(conv) : best.tile;
    }
    pack.form = form_of(step);
    WinogradTemps temps;
    bool is_repeated = false;
    if (step.algorithm == Algorithm::winograd) {
      const WinogradArgs winograd = winograd_args(conv, step.tile, table->panel_columns);
      pack.tile = winograd.is_staged ? 0 : step.tile;
      is_repeated = winograd_packs_again(winograd);
      temps = winograd_temps(winograd);
    }
    if (step.algorithm == Algorithm::digits) pack.tile = step.tile;
    pack_operand(step, pack, table, is_repeated);
    if (is_spread_gradient(node))
      add_temp(step, conv.dtype, spread_shape(module_.graph, node).elements());
    if (step.algorithm == Algorithm::digits)
      temps.inputs = conv_digits_elements(conv, step.tile, module_.threads);
    for (const int64_t floats : {temps.inputs, temps.products})
      if (floats > 0) add_temp(step, Dtype::f32, floats);
  }

  void prepare_quantized(Step& step, const Node& node) {
    PackArgs pack =
        node.op == "matmul" ? matmul_pack(module_.graph, node) : conv_pack(module_.graph, node);
    const Conv2dArgs conv = product_shape(module_.graph, node);
    pack.quantize = step.quantize;
    if (step.quantize == Quantize::int8 && int8_is_doubled(conv)) pack.tile = kTileUpsampled;
    pack_operand(step, pack, module_.isa);
    if (step.quantize != Quantize::int8) return;
    add_temp(step, Dtype::u8, int8_input_bytes(conv));
    add_temp(step, Dtype::f32, conv.B * int8_blocks(conv) * 2);
  }

  void prepare_grad_weight(Step& step, const Node& node) {
    const bool is_offered = module_.allows_winograd && module_.isa != nullptr &&
                            module_.isa->winograd_grad_weight.run != nullptr;
    const Conv2dGradWeightArgs conv = conv2d_grad_weight_shape(module_.graph, node);
    step.tile = is_offered ? winograd_gradient_tile(conv) : 0;
    if (step.tile == 0) return;
    step.algorithm = Algorithm::winograd;
    const WinogradGradTemps temps =
        winograd_gradient_temps(winograd_gradient_args(conv, step.tile));
    for (const int64_t floats : {temps.inputs, temps.gradients, temps.products}) {
      if (floats > 0) add_temp(step, Dtype::f32, floats);
    }
  }

  int add_value(Dtype dtype, std::initializer_list<int64_t> shape) {
    Spec spec{dtype, {}};
    for (const int64_t size : shape) spec.shape.push(size);
    return module_.add_value(spec);
  }

  void add_temp(Step& step, Dtype dtype, int64_t elements) {
    step.temps.push_back(add_value(dtype, {elements}));
  }

  // Replaces input 1 by its packed form, made once for all who read it so: by the setup where it
  // can be, unless each run is to repeat it.
  void pack_operand(Step& step, PackArgs pack, const KernelTable* table, bool is_repeated = false) {
    const bool is_unpacked = table->pack.run == nullptr;
    step.table = is_unpacked ? module_.ref : table;
    const int source = step.inputs[1];
    std::string key = std::to_string(source) + step.table->name;
    key.append(reinterpret_cast<const char*>(&pack), sizeof pack);
    const auto found = packed_.find(key);
    if (found != packed_.end()) {
      step.inputs[1] = found->second;
      return;
    }
    const int packed = add_value(pack.dtype, {packed_elements(pack, step.table->panel_columns)});
    const bool is_setup = module_.is_setup[static_cast<size_t>(source)] && !is_repeated;
    module_.is_setup[static_cast<size_t>(packed)] = is_setup;
    packed_[key] = packed;
    step.inputs[1] = packed;
    if (!is_setup || !is_packed_apart(source, pack, step.table->panel_columns))
      return add_packing(step, source, packed, pack);
    concatenations_.insert(source);
    int64_t bytes = 0;
    for (const int weight : module_.node(module_.maker(source)).inputs) {
      pack.N = pack.k_stride = module_.spec(weight).shape[1];
      const int panels = add_value(pack.dtype, {packed_elements(pack, step.table->panel_columns)});
      module_.aliases[static_cast<size_t>(panels)] = {packed, bytes};
      module_.is_setup[static_cast<size_t>(panels)] = true;
      bytes += module_.spec(panels).bytes();
      add_packing(step, weight, panels, pack);
    }
  }

  // Whether the operand is weights side by side, each of which fills panels, or pairs of them.
  bool is_packed_apart(int source, const PackArgs& pack, int64_t panel_columns) const {
    const Node* node = concatenation(source, 1);
    const bool is_narrow = pack.quantize != Quantize::none && pack.quantize != Quantize::int8;
    if (node == nullptr || is_narrow) return false;
    const int64_t columns = panel_columns * (pack.form == ProductForm::strassen ? 2 : 1);
    return module_.spec(source).shape.rank == 2 && pack.n_stride == 1 &&
           std::all_of(node->inputs.begin(), node->inputs.end(),
                       [&](int weight) { return module_.spec(weight).shape[1] % columns == 0; });
  }

  void add_packing(const Step& step, int source, int packed, const PackArgs& pack) {
    Step packing;
    packing.kind = Step::Kind::pack;
    packing.node = step.node;
    packing.inputs = {source};
    packing.outputs = {packed};
    packing.is_setup = module_.is_setup[static_cast<size_t>(packed)];
    packing.table = step.table;
    packing.pack = pack;
    module_.steps.push_back(std::move(packing));
  }

  // What concatenates tensors along `axis` to the value, if anything does.
  const Node* concatenation(int value, int64_t axis) const {
    const int maker = module_.maker(value);
    if (maker < 0 || module_.node(maker).op != "concat") return nullptr;
    return module_.node(maker).integer("axis") == axis ? &module_.node(maker) : nullptr;
  }

  // Whether the kernel can read its first operand from tensors side by side.
  bool takes_columns(const Step& step) const {
    if (step.kind != Step::Kind::node || !traits_of(module_.node(step.node).op).takes_columns)
      return false;
    if (step.table == nullptr) return true;  // no product
    const MatmulShape s = matmul_shape(module_.graph, module_.node(step.node));
    return step.algorithm != Algorithm::strassen && step.quantize != Quantize::int8 &&
           s.batch == 1 && !s.transpose_a && s.N >= step.table->panel_columns;
  }

  // Whether the step, if it reads `whole`, does so as the rows of its first operand alone.
  bool reads_rows(const Step& step, int whole) const {
    const auto reads = std::count_if(step.inputs.begin(), step.inputs.end(),
                                     [&](int value) { return module_.root(value) == whole; });
    if (reads == 0) return true;
    const int rows = step.inputs[0];
    return reads == 1 && module_.root(rows) == whole && takes_columns(step) &&
           module_.aliases[static_cast<size_t>(rows)].offset == 0 &&
           module_.spec(rows).shape.last() == module_.spec(whole).shape.last();
  }

  bool is_needless(const Step& step) const {
    if (step.kind != Step::Kind::node || step.is_setup || module_.isa == nullptr) return false;
    const Node& node = module_.node(step.node);
    if (node.outputs.empty() || node.inputs.size() > kMaxParts) return false;
    const int whole = node.outputs[0];
    const Spec& spec = module_.spec(whole);
    const auto& outputs = module_.graph.outputs;
    return spec.dtype == Dtype::f32 && concatenation(whole, spec.shape.rank - 1) &&
           std::all_of(module_.steps.begin(), module_.steps.end(),
                       [&](const Step& reader) { return reads_rows(reader, whole); }) &&
           std::none_of(outputs.begin(), outputs.end(), [&](const GraphOutput& output) {
             return module_.root(output.value) == whole;
           });
  }

  // Concatenations along channels are not made where all readers can read the parts.
  void read_in_place() {
    for (const Step& step : module_.steps) {
      if (!is_needless(step)) continue;
      concatenations_.insert(step.outputs[0]);
      for (Step& reader : module_.steps) {
        if (reader.inputs.empty() || module_.root(reader.inputs[0]) != step.outputs[0]) continue;
        reader.columns = step.inputs;
        reader.inputs[0] = step.inputs[0];
        reader.inputs.insert(reader.inputs.end(), step.inputs.begin() + 1, step.inputs.end());
      }
    }
  }

  // Those whose parts are read or were packed, unless something else reads them.
  void drop_concatenations() {
    for (const Step& step : module_.steps) {
      for (const int value : step.inputs) concatenations_.erase(module_.root(value));
    }
    for (const GraphOutput& output : module_.graph.outputs)
      concatenations_.erase(module_.root(output.value));
    const auto is_unread = [&](const Step& step) {
      return !step.outputs.empty() && concatenations_.count(step.outputs[0]) > 0;
    };
    std::vector<Step>& steps = module_.steps;
    steps.erase(std::remove_if(steps.begin(), steps.end(), is_unread), steps.end());
  }

  // Sums of what it reads come from the steps that make that, or from itself, which then needs
  // memory for them where it works in blocks. Small samples it sums in one piece: their results do
  // not depend on the batch.
  void prepare_sums(Step& step) {
    const Shape x = module_.graph.in(module_.node(step.node), 0).shape;
    if (module_.isa == nullptr || module_.spec(step.inputs[0]).dtype != Dtype::f32) return;
    const std::vector<int> tensors =
        step.columns.empty() ? std::vector<int>{step.inputs[0]} : step.columns;
    const int64_t S = x.elements() / x[0] / x.last();
    const bool is_small = step.is_setup || S * x.last() <= kGroupNormSmall;
    for (const int value : tensors) {
      step.sums.push_back(is_small ? -1 : sums_of(value, x[0]));
      if (step.sums.back() >= 0) step.inputs.push_back(step.sums.back());
    }
    // Rows whose sums are given are near to whoever made them; stripes would fetch half of them.
    const bool is_read_twice = tensors.size() == 1 && step.sums[0] < 0;
    const int64_t block = group_norm_block(x[0], S, x.last(), is_read_twice);
    step.norm_block = block;
    for (size_t i = 0; i < tensors.size() && block > 0; ++i) {
      if (step.sums[i] >= 0) continue;
      const int64_t floats = result_sums_floats(module_.spec(tensors[i]).shape.last());
      step.sums[i] = add_value(Dtype::f32, {x[0], (S + block - 1) / block, floats});
      step.temps.push_back(step.sums[i]);
      step.own_sums |= int64_t{1} << i;
    }
    if (block > 0) add_temp(step, Dtype::f32, x[0] * 3 * x.last());
  }

  // Sums of `value`, B samples, by the step that makes it and nothing else; -1 if it cannot.
  int sums_of(int value, int64_t B) {
    const auto made = std::find_if(module_.steps.begin(), module_.steps.end(), [&](const Step& s) {
      return s.kind == Step::Kind::node && !s.outputs.empty() &&
             s.outputs[0] == module_.root(value);
    });
    if (made == module_.steps.end() || made->is_setup) return -1;
    if (!traits_of(module_.node(made->node).op).sums_results) return -1;
    const Alias& alias = module_.aliases[static_cast<size_t>(value)];
    const Spec& spec = module_.spec(value);
    const Spec& result = module_.graph.out(module_.node(made->node));
    const bool is_whole = alias.offset == 0 && alias.row_stride == 0 &&
                          spec.shape.last() == result.shape.last() &&
                          spec.shape.elements() == result.shape.elements();
    const bool is_alone = !made->pointwise || made->pointwise->outputs.size() == 1;
    if (!is_whole || !is_alone) return -1;
    if (!made->sums.empty()) return module_.spec(made->sums[0]).shape[0] == B ? made->sums[0] : -1;
    const int64_t parts = parts_of(*made, B);
    if (parts == 0) return -1;
    made->sums = {add_value(Dtype::f32, {B, parts, result_sums_floats(spec.shape.last())})};
    made->outputs.push_back(made->sums[0]);
    return made->sums[0];
  }

  // Parts of each of B samples in which the step can sum its results.
  int64_t parts_of(const Step& step, int64_t B) const {
    const Node& node = module_.node(step.node);
    if (step.table != module_.isa) return 0;
    const Conv2dArgs c = product_shape(module_.graph, node);
    const int64_t rows = c.B * c.OH * c.OW;
    const bool is_one = rows * c.O == module_.graph.out(node).shape.elements();  // product
    if (!is_one || step.quantize == Quantize::int8) return 0;
    if (step.algorithm == Algorithm::winograd && c.B == B)
      return winograd_parts(winograd_args(c, step.tile, step.table->panel_columns));
    if (step.algorithm == Algorithm::digits && step.tile != 0 && c.B == B)
      return winograd_parts(winograd_digits_args(c));
    if (step.algorithm == Algorithm::ends && c.B == B && c.C < c.O && rows * c.O <= kCachedResults)
      return (c.OH + conv_end_rows(c) - 1) / conv_end_rows(c);
    const ProductForm form = form_of(step);
    const bool is_product = step.algorithm == Algorithm::defined || node.op == "matmul";
    if (!is_product) return 0;
    const int64_t block = step.table->product_rows(rows, c.O, c.KH * c.KW * c.C, form);
    return result_parts(B, rows / B, block);
  }

  Module& module_;
  std::map<std::string, int> packed_;
  std::set<int> concatenations_;
};

}  // namespace

MatmulShape matmul_shape(const Graph& graph, const Node& node) {
  const Shape& a = graph.in(node, 0).shape;
  const Shape& b = graph.in(node, 1).shape;
  MatmulShape s = {};
  s.transpose_a = node.flag_or("transposeA", false);
  s.transpose_b = node.flag_or("transposeB", false);
  s.M = a[a.rank - (s.transpose_a ? 1 : 2)];
  s.K = a[a.rank - (s.transpose_a ? 2 : 1)];
  s.N = b[b.rank - (s.transpose_b ? 2 : 1)];
  const int64_t a_batch = a.product(0, a.rank - 2);
  const int64_t b_batch = b.product(0, b.rank - 2);
  s.batch = a.rank >= b.rank ? a_batch : b_batch;
  s.a_shared = a.rank < b.rank;
  s.b_shared = b.rank < a.rank || b_batch == 1;
  if (s.b_shared && !s.a_shared && !s.transpose_a) {  // one tall product
    s.M *= s.batch;
    s.batch = 1;
  }
  return s;
}

Conv2dArgs conv2d_shape(const Graph& graph, const Node& node) {
  Conv2dArgs a = {};
  const Shape& x = graph.in(node, 0).shape;
  const Shape& w = graph.in(node, 1).shape;
  const Shape& y = graph.out(node).shape;
  a.B = x[0];
  a.H = x[1];
  a.W = x[2];
  set_window(node, a);
  a.C = w[2];
  a.O = w[3] / a.groups;
  a.KH = w[0];
  a.KW = w[1];
  a.OH = y[1];
  a.OW = y[2];
  a.dilation = 1;
  a.dtype = graph.out(node).dtype;
  if (node.op == "conv2dGradInput") turn_into_input_gradient(a);
  return a;
}

Conv2dGradWeightArgs conv2d_grad_weight_shape(const Graph& graph, const Node& node) {
  Conv2dGradWeightArgs a = {};
  const Shape& x = graph.in(node, 0).shape;
  const Shape& dy = graph.in(node, 1).shape;
  const std::vector<int64_t> kernel = node.integers("kernel");
  a.B = x[0];
  a.H = x[1];
  a.W = x[2];
  set_window(node, a);
  a.C = x[3] / a.groups;
  a.O = dy[3] / a.groups;
  a.KH = kernel[0];
  a.KW = kernel[1];
  a.OH = dy[1];
  a.OW = dy[2];
  a.dtype = graph.in(node, 0).dtype;
  return a;
}

bool is_spread_gradient(const Node& node) {
  if (node.op != "conv2dGradInput") return false;
  const std::vector<int64_t> stride = node.integers("stride");
  return stride[0] != stride[1];
}

Shape spread_shape(const Graph& graph, const Node& node) {
  Shape shape = graph.in(node, 0).shape;
  const std::vector<int64_t> stride = node.integers("stride");
  shape[1] = (shape[1] - 1) * stride[0] + 1;
  shape[2] = (shape[2] - 1) * stride[1] + 1;
  return shape;
}

void select(Module& module) { Selector(module).run(); }

}  // namespace smalti
