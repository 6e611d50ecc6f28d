// Vectors of one instruction set: kWidth lanes of f32 by GCC/Clang vector extensions, intrinsics
// only where they matter. Included by kernels.inc inside the namespace of an instruction set;
// SMALTI_WIDTH says how wide. Includes nothing itself: shared inline functions compiled for AVX-512
// must not reach other machines.
#pragma once

constexpr int kWidth = SMALTI_WIDTH;

typedef float vf __attribute__((vector_size(SMALTI_WIDTH * 4)));
typedef int32_t vi __attribute__((vector_size(SMALTI_WIDTH * 4)));
typedef uint32_t vu __attribute__((vector_size(SMALTI_WIDTH * 4)));
typedef uint64_t vq __attribute__((vector_size(SMALTI_WIDTH * 4)));
typedef uint16_t vh __attribute__((vector_size(SMALTI_WIDTH * 2)));
typedef uint8_t vb __attribute__((vector_size(SMALTI_WIDTH)));

typedef float vf_unaligned __attribute__((vector_size(SMALTI_WIDTH * 4), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(SMALTI_WIDTH * 4), aligned(4), may_alias));
typedef uint16_t vh_unaligned __attribute__((vector_size(SMALTI_WIDTH * 2), aligned(2), may_alias));
typedef uint8_t vb_unaligned __attribute__((vector_size(SMALTI_WIDTH), aligned(1), may_alias));

#define SMALTI_INLINE static inline __attribute__((always_inline))

// ---------------------------------------------------------------- memory

SMALTI_INLINE vf load(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
SMALTI_INLINE vi load(const int32_t* p) { return *reinterpret_cast<const vi_unaligned*>(p); }
SMALTI_INLINE vh load(const uint16_t* p) { return *reinterpret_cast<const vh_unaligned*>(p); }
SMALTI_INLINE vb load(const uint8_t* p) { return *reinterpret_cast<const vb_unaligned*>(p); }
SMALTI_INLINE void store(float* p, vf x) { *reinterpret_cast<vf_unaligned*>(p) = x; }
SMALTI_INLINE void store(int32_t* p, vi x) { *reinterpret_cast<vi_unaligned*>(p) = x; }
SMALTI_INLINE void store(uint16_t* p, vh x) { *reinterpret_cast<vh_unaligned*>(p) = x; }
SMALTI_INLINE void store(uint8_t* p, vb x) { *reinterpret_cast<vb_unaligned*>(p) = x; }

// Reinterpret bits.
SMALTI_INLINE vf as_float(vi x) { return reinterpret_cast<vf>(x); }
SMALTI_INLINE vf as_float(vu x) { return reinterpret_cast<vf>(x); }
SMALTI_INLINE vi as_int(vf x) { return reinterpret_cast<vi>(x); }
SMALTI_INLINE vu as_uint(vf x) { return reinterpret_cast<vu>(x); }

// Convert values; to_int truncates toward zero.
SMALTI_INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }
SMALTI_INLINE vi to_int(vf x) { return __builtin_convertvector(x, vi); }

// mask holds 0 or -1 a lane
SMALTI_INLINE vf select(vi mask, vf a, vf b) { return mask ? a : b; }

#if defined(__x86_64__) && SMALTI_WIDTH == 16  // ---------------------------- AVX-512

SMALTI_INLINE vf splat(float x) { return _mm512_set1_ps(x); }
SMALTI_INLINE vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }    // a * b + c
SMALTI_INLINE vf fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a * b
SMALTI_INLINE vf vmax(vf a, vf b) {
  return _mm512_max_ps(a, b);
}  // a > b ? a : b, so b if any is NaN
SMALTI_INLINE vf vmin(vf a, vf b) {
  return _mm512_min_ps(a, b);
}  // a < b ? a : b, so b if any is NaN
SMALTI_INLINE vf vsqrt(vf x) { return _mm512_sqrt_ps(x); }
SMALTI_INLINE vf vround(vf x) { return _mm512_roundscale_ps(x, 8); }  // to nearest, half to even
SMALTI_INLINE vf vfloor(vf x) { return _mm512_roundscale_ps(x, 9); }
SMALTI_INLINE vf vceil(vf x) { return _mm512_roundscale_ps(x, 10); }
SMALTI_INLINE vf vtrunc(vf x) { return _mm512_roundscale_ps(x, 11); }
SMALTI_INLINE float reduce_add(vf x) { return _mm512_reduce_add_ps(x); }
SMALTI_INLINE float reduce_max(vf x) { return _mm512_reduce_max_ps(x); }
SMALTI_INLINE float reduce_min(vf x) { return _mm512_reduce_min_ps(x); }
SMALTI_INLINE bool any(vi mask) {
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) != 0;
}

// First n lanes (0 <= n <= kWidth); the others read as `fill` and are not written.
SMALTI_INLINE vf load_partial(const float* p, int64_t n, float fill = 0) {
  return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), static_cast<__mmask16>((1u << n) - 1), p);
}
SMALTI_INLINE void store_partial(float* p, vf x, int64_t n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), x);
}

// sum += x and count += 1 in the lanes where x > limit.
SMALTI_INLINE void add_above(vf x, vf limit, vf& sum, vi& count) {
  const __mmask16 mask = _mm512_cmp_ps_mask(x, limit, _CMP_GT_OQ);
  const __m512i one = _mm512_set1_epi32(1);
  const __m512i old = reinterpret_cast<__m512i>(count);
  sum = _mm512_mask_add_ps(sum, mask, sum, x);
  count = reinterpret_cast<vi>(_mm512_mask_add_epi32(old, mask, old, one));
}

SMALTI_INLINE vi load_bytes(const int8_t* p) {
  return reinterpret_cast<vi>(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
SMALTI_INLINE vf half_to_float(vh x) { return _mm512_cvtph_ps(reinterpret_cast<__m256i>(x)); }
SMALTI_INLINE vh float_to_half(vf x) { return reinterpret_cast<vh>(_mm512_cvtps_ph(x, 0)); }
// Product of the low halves of each 64-bit lane.
SMALTI_INLINE vq multiply_wide(vq a, vq b) {
  return reinterpret_cast<vq>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}

// Past the caches; p is aligned to a vector. Others see it after drain().
SMALTI_INLINE void stream(float* p, vf x) { _mm512_stream_ps(p, x); }
SMALTI_INLINE void drain() { _mm_sfence(); }

#elif defined(__x86_64__) && SMALTI_WIDTH == 8  // --------------------------- AVX2 + FMA + F16C

SMALTI_INLINE vf splat(float x) { return _mm256_set1_ps(x); }
SMALTI_INLINE vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
SMALTI_INLINE vf fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
SMALTI_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
SMALTI_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
SMALTI_INLINE vf vsqrt(vf x) { return _mm256_sqrt_ps(x); }
SMALTI_INLINE vf vround(vf x) { return _mm256_round_ps(x, 8); }
SMALTI_INLINE vf vfloor(vf x) { return _mm256_round_ps(x, 9); }
SMALTI_INLINE vf vceil(vf x) { return _mm256_round_ps(x, 10); }
SMALTI_INLINE vf vtrunc(vf x) { return _mm256_round_ps(x, 11); }
SMALTI_INLINE bool any(vi mask) { return _mm256_movemask_ps(reinterpret_cast<vf>(mask)) != 0; }

SMALTI_INLINE float reduce_add(vf x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
SMALTI_INLINE float reduce_max(vf x) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
SMALTI_INLINE float reduce_min(vf x) {
  __m128 s = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_min_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_min_ss(s, _mm_shuffle_ps(s, s, 1)));
}

SMALTI_INLINE vi first_lanes(int64_t n) {
  return (vi){0, 1, 2, 3, 4, 5, 6, 7} < static_cast<int32_t>(n);
}
SMALTI_INLINE vf load_partial(const float* p, int64_t n, float fill = 0) {
  const vi mask = first_lanes(n);
  const vf x = _mm256_maskload_ps(p, reinterpret_cast<__m256i>(mask));
  return fill == 0 ? x : _mm256_blendv_ps(splat(fill), x, reinterpret_cast<vf>(mask));
}
SMALTI_INLINE void store_partial(float* p, vf x, int64_t n) {
  if (n >= kWidth) return store(p, x);  // masked stores take a dozen cycles here
  _mm256_maskstore_ps(p, reinterpret_cast<__m256i>(first_lanes(n)), x);
}

SMALTI_INLINE vi load_bytes(const int8_t* p) {
  return reinterpret_cast<vi>(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
SMALTI_INLINE vf half_to_float(vh x) { return _mm256_cvtph_ps(reinterpret_cast<__m128i>(x)); }
SMALTI_INLINE vh float_to_half(vf x) { return reinterpret_cast<vh>(_mm256_cvtps_ph(x, 0)); }
SMALTI_INLINE vq multiply_wide(vq a, vq b) {
  return reinterpret_cast<vq>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}

SMALTI_INLINE void stream(float* p, vf x) { _mm256_stream_ps(p, x); }
SMALTI_INLINE void drain() { _mm_sfence(); }

#else  // --------------------------------------------------------------------- four lanes: NEON,
       // SSE2, anything

#if defined(__aarch64__)

SMALTI_INLINE vf splat(float x) { return (vf)vdupq_n_f32(x); }
SMALTI_INLINE vf fma(vf a, vf b, vf c) {
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
SMALTI_INLINE vf fnma(vf a, vf b, vf c) {
  return (vf)vfmsq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
SMALTI_INLINE vf vsqrt(vf x) { return (vf)vsqrtq_f32((float32x4_t)x); }
SMALTI_INLINE vf vround(vf x) { return (vf)vrndnq_f32((float32x4_t)x); }
SMALTI_INLINE vf vfloor(vf x) { return (vf)vrndmq_f32((float32x4_t)x); }
SMALTI_INLINE vf vceil(vf x) { return (vf)vrndpq_f32((float32x4_t)x); }
SMALTI_INLINE vf vtrunc(vf x) { return (vf)vrndq_f32((float32x4_t)x); }
SMALTI_INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
SMALTI_INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
SMALTI_INLINE bool any(vi mask) { return vmaxvq_u32((uint32x4_t)mask) != 0; }
SMALTI_INLINE vq multiply_wide(vq a, vq b) {
  return (vq)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
}

#else

SMALTI_INLINE vf splat(float x) { return (vf){x, x, x, x}; }
SMALTI_INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }
SMALTI_INLINE vf fnma(vf a, vf b, vf c) { return c - a * b; }
#if defined(__x86_64__)
SMALTI_INLINE void stream(float* p, vf x) { _mm_stream_ps(p, x); }
SMALTI_INLINE void drain() { _mm_sfence(); }
SMALTI_INLINE vf vmax(vf a, vf b) { return _mm_max_ps(a, b); }
SMALTI_INLINE vf vmin(vf a, vf b) { return _mm_min_ps(a, b); }
SMALTI_INLINE vf vsqrt(vf x) { return _mm_sqrt_ps(x); }
SMALTI_INLINE bool any(vi mask) { return _mm_movemask_ps(reinterpret_cast<vf>(mask)) != 0; }
SMALTI_INLINE vq multiply_wide(vq a, vq b) {
  return reinterpret_cast<vq>(
      _mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
}
#else
SMALTI_INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
SMALTI_INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
SMALTI_INLINE vf vsqrt(vf x) {
  return (vf){__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]),
              __builtin_sqrtf(x[3])};
}
SMALTI_INLINE bool any(vi mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }
SMALTI_INLINE vq multiply_wide(vq a, vq b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
#endif

// Adding and removing 2^23 rounds to nearest even; larger values are integers already. Keeps the
// sign of zero.
SMALTI_INLINE vf vround(vf x) {
  const vi sign = as_int(x) & INT32_MIN;
  const vf magnitude = as_float(as_int(x) & INT32_MAX);
  const vf rounded = as_float(as_int((magnitude + splat(8388608.0f)) - splat(8388608.0f)) | sign);
  return select(magnitude < splat(8388608.0f), rounded, x);
}
SMALTI_INLINE vf vfloor(vf x) {
  const vf r = vround(x);
  return r - select(r > x, splat(1), splat(0));
}
SMALTI_INLINE vf vceil(vf x) {
  const vf r = vround(x);
  return r + select(r < x, splat(1), splat(0));
}
SMALTI_INLINE vf vtrunc(vf x) { return select(x < splat(0), vceil(x), vfloor(x)); }

#endif

SMALTI_INLINE float reduce_add(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
SMALTI_INLINE float reduce_max(vf x) {
  const float a = x[0] > x[2] ? x[0] : x[2];
  const float b = x[1] > x[3] ? x[1] : x[3];
  return a > b ? a : b;
}
SMALTI_INLINE float reduce_min(vf x) {
  const float a = x[0] < x[2] ? x[0] : x[2];
  const float b = x[1] < x[3] ? x[1] : x[3];
  return a < b ? a : b;
}

SMALTI_INLINE vf load_partial(const float* p, int64_t n, float fill = 0) {
  if (n >= kWidth) return load(p);
  vf x = splat(fill);
  if (n > 0) x[0] = p[0];
  if (n > 1) x[1] = p[1];
  if (n > 2) x[2] = p[2];
  return x;
}
SMALTI_INLINE void store_partial(float* p, vf x, int64_t n) {
  if (n >= kWidth) return store(p, x);
  if (n > 0) p[0] = x[0];
  if (n > 1) p[1] = x[1];
  if (n > 2) p[2] = x[2];
}

SMALTI_INLINE vi load_bytes(const int8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
#if defined(__aarch64__)
  return (vi)vmovl_s16(vget_low_s16(vmovl_s8((int8x8_t)vdup_n_s32(four))));
#elif defined(__SSE4_1__)
  return reinterpret_cast<vi>(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four)));
#else
  return (vi){p[0], p[1], p[2], p[3]};
#endif
}

#if defined(__aarch64__)
SMALTI_INLINE vf half_to_float(vh x) { return (vf)vcvt_f32_f16((float16x4_t)x); }
#else
// IEEE half by integer arithmetic: the exponent is rebiased by a multiplication, which also serves
// subnormals.
SMALTI_INLINE vf half_to_float(vh x) {
  const vu bits = __builtin_convertvector(x, vu);
  const vu magnitude = (bits & 0x7fffu) << 13;
  const vu finite = as_uint(as_float(magnitude) * splat(0x1p112f));
  const vu special = magnitude | 0x7f800000u;
  return as_float((magnitude >= 0x0f800000u ? special : finite) | ((bits & 0x8000u) << 16));
}
#endif
SMALTI_INLINE vh float_to_half(vf x) {
  const vu bits = as_uint(x);
  const vu magnitude = bits & 0x7fffffffu;
  const vu normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  const vu subnormal = as_uint(as_float(magnitude) + splat(0.5f)) - 0x3f000000u;
  const vu special = magnitude > 0x7f800000u ? (vu){} + 0x7e00u : (vu){} + 0x7c00u;
  vu half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x47800000u ? special : half;
  return __builtin_convertvector(half | ((bits >> 16) & 0x8000u), vh);
}

#endif

// ---------------------------------------------------------------- every instruction set

#if !defined(__x86_64__)
SMALTI_INLINE void stream(float* p, vf x) { store(p, x); }
SMALTI_INLINE void drain() {}
#endif

SMALTI_INLINE vi splat_int(int32_t x) { return (vi){} + x; }
SMALTI_INLINE vf vabs(vf x) { return as_float(as_int(x) & INT32_MAX); }
SMALTI_INLINE vf copy_sign(vf magnitude, vf sign) {
  return as_float((as_int(magnitude) & INT32_MAX) | (as_int(sign) & INT32_MIN));
}
SMALTI_INLINE vf lane_index() {
#if SMALTI_WIDTH == 16
  return (vf){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif SMALTI_WIDTH == 8
  return (vf){0, 1, 2, 3, 4, 5, 6, 7};
#else
  return (vf){0, 1, 2, 3};
#endif
}

#if SMALTI_WIDTH < 16
SMALTI_INLINE void add_above(vf x, vf limit, vf& sum, vi& count) {
  const vi mask = x > limit;
  sum += as_float(as_int(x) & mask);
  count -= mask;
}
#endif

SMALTI_INLINE vf bfloat_to_float(vh x) { return as_float(__builtin_convertvector(x, vu) << 16); }
// Round to nearest even; a NaN stays a NaN.
SMALTI_INLINE vh float_to_bfloat(vf x) {
  const vu bits = as_uint(x);
  const vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return __builtin_convertvector(x != x ? ((bits >> 16) | 0x40u) : rounded, vh);
}

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t multiple) {
  return ceil_div(a, multiple) * multiple;
}

static inline void copy_floats(float* dst, const float* src, int64_t count) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(dst + i, load(src + i));
  if (i < count) store_partial(dst + i, load_partial(src + i, count - i), count - i);
}

static inline void clear_floats(float* dst, int64_t count) {
  for (int64_t i = 0; i < count; i += kWidth)
    store_partial(dst + i, splat(0.0f), min64(kWidth, count - i));
}
