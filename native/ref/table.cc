// The reference backend as one table: the oracle of the tests and the last fallback of every CPU.
#include "native/kernels/table.h"

#include "native/ref/families.h"

namespace smalti {
namespace {

KernelTable make_table() {
  KernelTable table{};
  table.name = "ref";
  table.panel_columns = ref::kPanelColumns;
  table.pointwise = ref::pointwise_kernel();
  table.reduce = ref::reduce_kernel();
  table.arg_reduce = ref::arg_reduce_kernel();
  table.cumulative_sum = ref::cumulative_sum_kernel();
  table.top_k = ref::top_k_kernel();
  table.copy = ref::copy_kernel();
  table.fill = ref::fill_kernel();
  table.iota = ref::iota_kernel();
  table.gather = ref::gather_kernel();
  table.scatter_add = ref::scatter_add_kernel();
  table.gather_last = ref::gather_last_kernel();
  table.scatter_last = ref::scatter_last_kernel();
  table.pack = ref::pack_kernel();
  table.matmul = ref::matmul_kernel();
  table.conv2d = ref::conv2d_kernel();
  table.conv2d_grad_weight = ref::conv2d_grad_weight_kernel();
  table.group_norm = ref::group_norm_kernel();
  table.group_norm_grad = ref::group_norm_grad_kernel();
  table.layer_norm = ref::layer_norm_kernel();
  table.layer_norm_grad = ref::layer_norm_grad_kernel();
  table.softmax = ref::softmax_kernel();
  table.softmax_grad = ref::softmax_grad_kernel();
  table.attention = ref::attention_kernel();
  table.attention_grad = ref::attention_grad_kernel();
  table.random = ref::random_kernel();
  table.nearest_codes = ref::nearest_codes_kernel();
  table.mask_replace_forward = ref::mask_replace_forward_kernel();
  table.mask_replace_step = ref::mask_replace_step_kernel();
  table.mask_replace_loss = ref::mask_replace_loss_kernel();
  table.mask_replace_loss_grad = ref::mask_replace_loss_grad_kernel();
  return table;
}

}  // namespace

const KernelTable& ref_kernels() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace smalti
