// Names of element types, their sizes and codes in the byte format. There is no implicit promotion anywhere.
// f64 exists for the reference backend only; f16, bf16 and u8 are storage types that are cast before arithmetic.

export type DType = "f32" | "f64" | "f16" | "bf16" | "i32" | "u8" | "bool";

/** In the order of their codes in the byte format (encode.ts, native/core/dtype.h). */
export const dtypes: readonly DType[] = ["f32", "f64", "f16", "bf16", "i32", "u8", "bool"];

/** Types that arithmetic with fractions takes. */
export const realTypes: readonly DType[] = ["f32", "f64"];

/** Types that sums, products and comparisons of size take. */
export const numericTypes: readonly DType[] = ["f32", "f64", "i32"];

const byteSizes: Record<DType, number> = {
  f32: 4,
  f64: 8,
  f16: 2,
  bf16: 2,
  i32: 4,
  u8: 1,
  bool: 1,
};

/** Bytes of one element. */
export const dtypeBytes = (dtype: DType): number => byteSizes[dtype];

export const isDType = (value: unknown): value is DType => dtypes.includes(value as DType);
