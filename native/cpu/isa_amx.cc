// Products in digits and those of 8 bits, for CPUs with tiles of bytes (AMX); all else of "amx" is
// "avx512".
// Compiled with the flags of isa_avx512.cc, -mamx-tile and -mamx-int8.

// gcc 12 warns inside its own header (bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#define SMALTI_WIDTH 16

#include "native/kernels/table.h"

namespace smalti::amx {
#include "native/cpu/vec.h"
//
#include "native/cpu/math.inc"
//
#include "native/cpu/pointwise.inc"
//
#include "native/cpu/reduce.inc"
//
#include "native/cpu/softmax.inc"
//
#include "native/cpu/result_sums.inc"
//
#include "native/cpu/matmul.inc"
#include "native/cpu/strassen.inc"
//
#include "native/cpu/pairs.inc"
//
#include "native/cpu/digits.inc"
//
#include "native/cpu/attention_digits.inc"
#include "native/cpu/conv2d_digits.inc"
//
#include "native/cpu/conv2d.inc"
//
#include "native/cpu/winograd_digits.inc"
//
#include "native/cpu/int8_tiles.inc"

// The kernels of a table for AVX-512, with those that take tiles.
KernelTable with_tiles(KernelTable table) {
  table.name = "amx";
  table.digits_pack = {digits_pack_run, digits_pack_items, digits_pack_scratch, 1};
  table.digits = {digits_run, digits_items, digits_scratch, 2};
  table.conv2d_digits = {conv2d_digits_run, conv2d_digits_items, conv2d_digits_scratch, 2};
  table.winograd_digits_pack = {winograd_digits_pack_run, winograd_digits_pack_items,
                                winograd_digits_pack_scratch, 1};
  table.winograd_digits = {winograd_digits_run, winograd_digits_items, winograd_digits_scratch, 2};
  table.attention_digits = {attention_digits_run, attention_digits_items, attention_digits_scratch,
                            2};
  table.product_rows = digits_product_rows;
  table.int8_conv = {int8_tiles_run, int8_tiles_items, int8_tiles_scratch, 3};
  return table;
}
}  // namespace smalti::amx
