// vec on AVX2 + FMA. Semantics: ARCHITECTURE.md, "simd/". Who may use it: isa_avx2.cc and the .inl files it includes.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define SEQCORE_INLINE inline __attribute__((always_inline))

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int W = 8;
constexpr int kRegisters = 16;             // vector registers, for the register tiles
constexpr int kUnroll = 4;                 // of the loop of a tile
constexpr bool kWordInstructions = false;  // that are made for what tiles make of words here
struct vec {
  __m256 v;
};
struct ivec {
  __m256i v;
};
struct mask {
  __m256 v;
};  // a lane is all ones or all zeros

SEQCORE_INLINE mask first_n(std::int64_t n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lanes))};
}

SEQCORE_INLINE vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
SEQCORE_INLINE void store(float* p, vec a) { _mm256_storeu_ps(p, a.v); }
SEQCORE_INLINE vec load_n(const float* p, std::int64_t n) {
  return {_mm256_maskload_ps(p, _mm256_castps_si256(first_n(n).v))};
}
SEQCORE_INLINE void store_n(float* p, vec a, std::int64_t n) {
  _mm256_maskstore_ps(p, _mm256_castps_si256(first_n(n).v), a.v);
}
SEQCORE_INLINE vec set1(float x) { return {_mm256_set1_ps(x)}; }
SEQCORE_INLINE vec zero() { return {_mm256_setzero_ps()}; }

SEQCORE_INLINE vec add(vec a, vec b) { return {_mm256_add_ps(a.v, b.v)}; }
SEQCORE_INLINE vec sub(vec a, vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
SEQCORE_INLINE vec mul(vec a, vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
SEQCORE_INLINE vec div(vec a, vec b) { return {_mm256_div_ps(a.v, b.v)}; }
SEQCORE_INLINE vec sqrt(vec a) { return {_mm256_sqrt_ps(a.v)}; }
SEQCORE_INLINE vec fma(vec a, vec b, vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
SEQCORE_INLINE vec fnma(vec a, vec b, vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
SEQCORE_INLINE vec neg(vec a) { return {_mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f))}; }
SEQCORE_INLINE vec abs(vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
SEQCORE_INLINE vec copysign(vec a, vec b) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(sign, a.v), _mm256_and_ps(sign, b.v))};
}
SEQCORE_INLINE vec min(vec a, vec b) { return {_mm256_min_ps(a.v, b.v)}; }
SEQCORE_INLINE vec max(vec a, vec b) { return {_mm256_max_ps(a.v, b.v)}; }
SEQCORE_INLINE vec round(vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

SEQCORE_INLINE mask lt(vec a, vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
SEQCORE_INLINE mask le(vec a, vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
SEQCORE_INLINE mask gt(vec a, vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
SEQCORE_INLINE mask ge(vec a, vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
SEQCORE_INLINE mask eq(vec a, vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
SEQCORE_INLINE mask ne(vec a, vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)}; }
SEQCORE_INLINE mask unordered(vec a, vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_UNORD_Q)}; }
SEQCORE_INLINE vec select(mask m, vec a, vec b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
SEQCORE_INLINE mask mand(mask a, mask b) { return {_mm256_and_ps(a.v, b.v)}; }
SEQCORE_INLINE mask mor(mask a, mask b) { return {_mm256_or_ps(a.v, b.v)}; }
SEQCORE_INLINE mask mnot(mask a) { return {_mm256_xor_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))}; }
SEQCORE_INLINE bool any(mask m) { return _mm256_movemask_ps(m.v) != 0; }
SEQCORE_INLINE bool all(mask m) { return _mm256_movemask_ps(m.v) == 0xff; }

SEQCORE_INLINE ivec to_int(vec a) { return {_mm256_cvtps_epi32(a.v)}; }
SEQCORE_INLINE vec to_float(ivec a) { return {_mm256_cvtepi32_ps(a.v)}; }
SEQCORE_INLINE ivec bits(vec a) { return {_mm256_castps_si256(a.v)}; }
SEQCORE_INLINE vec float_of(ivec a) { return {_mm256_castsi256_ps(a.v)}; }
SEQCORE_INLINE ivec iload(const std::int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
SEQCORE_INLINE void istore(std::int32_t* p, ivec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
SEQCORE_INLINE ivec iset1(std::int32_t x) { return {_mm256_set1_epi32(x)}; }
SEQCORE_INLINE ivec iadd(ivec a, ivec b) { return {_mm256_add_epi32(a.v, b.v)}; }
SEQCORE_INLINE ivec isub(ivec a, ivec b) { return {_mm256_sub_epi32(a.v, b.v)}; }
SEQCORE_INLINE ivec iand(ivec a, ivec b) { return {_mm256_and_si256(a.v, b.v)}; }
SEQCORE_INLINE ivec ior(ivec a, ivec b) { return {_mm256_or_si256(a.v, b.v)}; }
SEQCORE_INLINE ivec ixor(ivec a, ivec b) { return {_mm256_xor_si256(a.v, b.v)}; }
template <int n>
SEQCORE_INLINE ivec shl(ivec a) {
  return {_mm256_slli_epi32(a.v, n)};
}
template <int n>
SEQCORE_INLINE ivec shr(ivec a) {
  return {_mm256_srli_epi32(a.v, n)};
}
template <int n>
SEQCORE_INLINE ivec sar(ivec a) {
  return {_mm256_srai_epi32(a.v, n)};
}
SEQCORE_INLINE mask ieq(ivec a, ivec b) { return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v, b.v))}; }
SEQCORE_INLINE mask igt(ivec a, ivec b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(a.v, b.v))}; }
SEQCORE_INLINE ivec iselect(mask m, ivec a, ivec b) { return {_mm256_blendv_epi8(b.v, a.v, _mm256_castps_si256(m.v))}; }

#include "simd/transpose8.inl"

// to[j][i] = from[i][j] for a block of W x W.
SEQCORE_INLINE void transpose(const float* from, std::ptrdiff_t from_row, float* to, std::ptrdiff_t to_row) {
  transpose8(from, from_row, to, to_row);
}

// ---- two bfloat16, or four signed bytes, in each lane, the first in the lowest bits

struct halves {
  vec odd, even;
};
SEQCORE_INLINE halves halves_of(vec a) {
  return {{_mm256_and_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(INT32_C(-65536))))}, float_of(shl<16>(bits(a)))};
}
// acc + odd * odd, then + even * even, each fused.
SEQCORE_INLINE vec dot2(halves a, vec b, vec acc) {
  const halves h = halves_of(b);
  return fma(a.even, h.even, fma(a.odd, h.odd, acc));
}
// Bits 31..16 of every lane.
SEQCORE_INLINE void store_high(std::uint16_t* p, ivec a) {
  const __m256i u = _mm256_srli_epi32(a.v, 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(u, u), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}

constexpr std::int32_t kByteOffset = 0;
struct bytes {
  __m256i v, size;
};
// dot4: acc + the sum of four (a + kByteOffset) * b. REQUIRES: no byte of a or b is -128.
SEQCORE_INLINE bytes bytes_of(vec a) {
  const __m256i v = _mm256_castps_si256(a.v);
  return {v, _mm256_abs_epi8(v)};
}
SEQCORE_INLINE ivec dot4(bytes a, vec b, ivec acc) {
  const __m256i signed_b = _mm256_sign_epi8(_mm256_castps_si256(b.v), a.v);
  const __m256i pairs = _mm256_maddubs_epi16(a.size, signed_b);  // at most 2 * 127 * 127: never saturates
  return {_mm256_add_epi32(acc.v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}
// Every lane, which is in [-128, 127].
SEQCORE_INLINE void store_bytes(std::int8_t* p, ivec a) {
  const __m256i halves16 = _mm256_packs_epi32(a.v, a.v);
  const __m256i bytes8 = _mm256_packs_epi16(halves16, halves16);
  const std::int32_t lo = _mm256_extract_epi32(bytes8, 0), hi = _mm256_extract_epi32(bytes8, 4);
  __builtin_memcpy(p, &lo, sizeof lo);
  __builtin_memcpy(p + 4, &hi, sizeof hi);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
