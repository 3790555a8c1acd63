// vec on AVX-512 F, DQ, VL, BW. Semantics: ARCHITECTURE.md, "simd/". Who may use it: isa_avx512.cc and the .inl files
// it includes.
#pragma once

// gcc 12's own header trips these warnings when its intrinsics are inlined (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#ifdef SEQCORE_EMULATE_AVX512  // for tests where no processor has it
#include "simd/avx512_emulated.h"
#else
#include <immintrin.h>
#endif
#pragma GCC diagnostic pop

#include <cstddef>
#include <cstdint>

#define SEQCORE_INLINE inline __attribute__((always_inline))

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int W = 16;
constexpr int kRegisters = 32;  // vector registers, for the register tiles
constexpr int kUnroll = 4;      // of the loop of a tile
#if defined(SEQCORE_AVX512_BF16) || defined(SEQCORE_AVX512_VNNI)
constexpr bool kWordInstructions = true;  // that are made for what tiles make of words here
#else
constexpr bool kWordInstructions = false;
#endif
struct vec {
  __m512 v;
};
struct ivec {
  __m512i v;
};
struct mask {
  __mmask16 v;
};

SEQCORE_INLINE mask first_n(std::int64_t n) { return {static_cast<__mmask16>((1u << n) - 1u)}; }

SEQCORE_INLINE vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
SEQCORE_INLINE void store(float* p, vec a) { _mm512_storeu_ps(p, a.v); }
SEQCORE_INLINE vec load_n(const float* p, std::int64_t n) { return {_mm512_maskz_loadu_ps(first_n(n).v, p)}; }
SEQCORE_INLINE void store_n(float* p, vec a, std::int64_t n) { _mm512_mask_storeu_ps(p, first_n(n).v, a.v); }
SEQCORE_INLINE vec set1(float x) { return {_mm512_set1_ps(x)}; }
SEQCORE_INLINE vec zero() { return {_mm512_setzero_ps()}; }

SEQCORE_INLINE vec add(vec a, vec b) { return {_mm512_add_ps(a.v, b.v)}; }
SEQCORE_INLINE vec sub(vec a, vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
SEQCORE_INLINE vec mul(vec a, vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
SEQCORE_INLINE vec div(vec a, vec b) { return {_mm512_div_ps(a.v, b.v)}; }
SEQCORE_INLINE vec sqrt(vec a) { return {_mm512_sqrt_ps(a.v)}; }
SEQCORE_INLINE vec fma(vec a, vec b, vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
SEQCORE_INLINE vec fnma(vec a, vec b, vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
SEQCORE_INLINE vec neg(vec a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
SEQCORE_INLINE vec abs(vec a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
SEQCORE_INLINE vec copysign(vec a, vec b) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(sign, a.v), _mm512_and_ps(sign, b.v))};
}
SEQCORE_INLINE vec min(vec a, vec b) { return {_mm512_min_ps(a.v, b.v)}; }
SEQCORE_INLINE vec max(vec a, vec b) { return {_mm512_max_ps(a.v, b.v)}; }
SEQCORE_INLINE vec round(vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

SEQCORE_INLINE mask lt(vec a, vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
SEQCORE_INLINE mask le(vec a, vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
SEQCORE_INLINE mask gt(vec a, vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
SEQCORE_INLINE mask ge(vec a, vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
SEQCORE_INLINE mask eq(vec a, vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
SEQCORE_INLINE mask ne(vec a, vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ)}; }
SEQCORE_INLINE mask unordered(vec a, vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_UNORD_Q)}; }
SEQCORE_INLINE vec select(mask m, vec a, vec b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }
SEQCORE_INLINE mask mand(mask a, mask b) { return {static_cast<__mmask16>(a.v & b.v)}; }
SEQCORE_INLINE mask mor(mask a, mask b) { return {static_cast<__mmask16>(a.v | b.v)}; }
SEQCORE_INLINE mask mnot(mask a) { return {static_cast<__mmask16>(~a.v)}; }
SEQCORE_INLINE bool any(mask m) { return m.v != 0; }
SEQCORE_INLINE bool all(mask m) { return m.v == 0xffff; }

SEQCORE_INLINE ivec to_int(vec a) { return {_mm512_cvtps_epi32(a.v)}; }
SEQCORE_INLINE vec to_float(ivec a) { return {_mm512_cvtepi32_ps(a.v)}; }
SEQCORE_INLINE ivec bits(vec a) { return {_mm512_castps_si512(a.v)}; }
SEQCORE_INLINE vec float_of(ivec a) { return {_mm512_castsi512_ps(a.v)}; }
SEQCORE_INLINE ivec iload(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
SEQCORE_INLINE void istore(std::int32_t* p, ivec a) { _mm512_storeu_si512(p, a.v); }
SEQCORE_INLINE ivec iset1(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
SEQCORE_INLINE ivec iadd(ivec a, ivec b) { return {_mm512_add_epi32(a.v, b.v)}; }
SEQCORE_INLINE ivec isub(ivec a, ivec b) { return {_mm512_sub_epi32(a.v, b.v)}; }
SEQCORE_INLINE ivec iand(ivec a, ivec b) { return {_mm512_and_si512(a.v, b.v)}; }
SEQCORE_INLINE ivec ior(ivec a, ivec b) { return {_mm512_or_si512(a.v, b.v)}; }
SEQCORE_INLINE ivec ixor(ivec a, ivec b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int n>
SEQCORE_INLINE ivec shl(ivec a) {
  return {_mm512_slli_epi32(a.v, n)};
}
template <int n>
SEQCORE_INLINE ivec shr(ivec a) {
  return {_mm512_srli_epi32(a.v, n)};
}
template <int n>
SEQCORE_INLINE ivec sar(ivec a) {
  return {_mm512_srai_epi32(a.v, n)};
}
SEQCORE_INLINE mask ieq(ivec a, ivec b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
SEQCORE_INLINE mask igt(ivec a, ivec b) { return {_mm512_cmpgt_epi32_mask(a.v, b.v)}; }
SEQCORE_INLINE ivec iselect(mask m, ivec a, ivec b) { return {_mm512_mask_blend_epi32(m.v, b.v, a.v)}; }

#include "simd/transpose8.inl"

// to[j][i] = from[i][j] for a block of W x W.
SEQCORE_INLINE void transpose(const float* from, std::ptrdiff_t from_row, float* to, std::ptrdiff_t to_row) {
  for (int i = 0; i < W; i += 8)
    for (int j = 0; j < W; j += 8) transpose8(from + i * from_row + j, from_row, to + j * to_row + i, to_row);
}

// ---- two bfloat16, or four signed bytes, in each lane, the first in the lowest bits
// SEQCORE_AVX512_BF16 and SEQCORE_AVX512_VNNI: with the instructions made for it (dot_avx512_*.cc).

#ifdef SEQCORE_AVX512_BF16
struct halves {
  vec both;
};
SEQCORE_INLINE halves halves_of(vec a) { return {a}; }
SEQCORE_INLINE vec dot2(halves a, vec b, vec acc) {
#if defined(__clang__) && __clang_major__ < 17  // it dies over a broadcast cast to __m512bh
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc.v) : "v"(a.both.v), "v"(b.v));
  return acc;
#else
  return {_mm512_dpbf16_ps(acc.v, reinterpret_cast<__m512bh>(a.both.v), reinterpret_cast<__m512bh>(b.v))};
#endif
}
#else
struct halves {
  vec odd, even;
};
SEQCORE_INLINE halves halves_of(vec a) {
  return {{_mm512_and_ps(a.v, _mm512_castsi512_ps(_mm512_set1_epi32(INT32_C(-65536))))}, float_of(shl<16>(bits(a)))};
}
// acc + odd * odd, then + even * even, each fused.
SEQCORE_INLINE vec dot2(halves a, vec b, vec acc) {
  const halves h = halves_of(b);
  return fma(a.even, h.even, fma(a.odd, h.odd, acc));
}
#endif
// Bits 31..16 of every lane.
SEQCORE_INLINE void store_high(std::uint16_t* p, ivec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(a.v, 16)));
}

// dot4: acc + the sum of four (a + kByteOffset) * b. REQUIRES: no byte of a or b is -128.
#ifdef SEQCORE_AVX512_VNNI
constexpr std::int32_t kByteOffset = 128;
struct bytes {
  __m512i shifted;  // + 128
};
SEQCORE_INLINE bytes bytes_of(vec a) {
  return {_mm512_xor_si512(_mm512_castps_si512(a.v), _mm512_set1_epi8(INT8_C(-128)))};
}
SEQCORE_INLINE ivec dot4(bytes a, vec b, ivec acc) {
  return {_mm512_dpbusd_epi32(acc.v, a.shifted, _mm512_castps_si512(b.v))};
}
#else
constexpr std::int32_t kByteOffset = 0;
struct bytes {
  __m512i size;
  __mmask64 negative;
};
SEQCORE_INLINE bytes bytes_of(vec a) {
  const __m512i v = _mm512_castps_si512(a.v);
  return {_mm512_abs_epi8(v), _mm512_movepi8_mask(v)};
}
SEQCORE_INLINE ivec dot4(bytes a, vec b, ivec acc) {
  const __m512i v = _mm512_castps_si512(b.v);
  const __m512i signed_b = _mm512_mask_sub_epi8(v, a.negative, _mm512_setzero_si512(), v);
  const __m512i pairs = _mm512_maddubs_epi16(a.size, signed_b);  // at most 2 * 127 * 127: never saturates
  return {_mm512_add_epi32(acc.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}
#endif
// Every lane, which is in [-128, 127].
SEQCORE_INLINE void store_bytes(std::int8_t* p, ivec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
