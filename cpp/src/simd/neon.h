// vec on AArch64's Advanced SIMD. Semantics: ARCHITECTURE.md, "simd/". Who may use it: isa_neon.cc and the .inl files
// it includes.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#define SEQCORE_INLINE inline __attribute__((always_inline))

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int W = 4;
constexpr int kRegisters = 32;             // vector registers, for the register tiles
constexpr int kUnroll = 4;                 // of the loop of a tile
constexpr bool kWordInstructions = false;  // that are made for what tiles make of words here
struct vec {
  float32x4_t v;
};
struct ivec {
  int32x4_t v;
};
struct mask {
  uint32x4_t v;
};  // a lane is all ones or all zeros

SEQCORE_INLINE mask first_n(std::int64_t n) {
  const int32x4_t lanes = {0, 1, 2, 3};
  return {vcgtq_s32(vdupq_n_s32(static_cast<int>(n)), lanes)};
}

SEQCORE_INLINE vec load(const float* p) { return {vld1q_f32(p)}; }
SEQCORE_INLINE void store(float* p, vec a) { vst1q_f32(p, a.v); }
SEQCORE_INLINE vec load_n(const float* p, std::int64_t n) {
  if (n >= 4) return {vld1q_f32(p)};
  float32x4_t r = vdupq_n_f32(0.0f);
  if (n > 0) r = vld1q_lane_f32(p, r, 0);
  if (n > 1) r = vld1q_lane_f32(p + 1, r, 1);
  if (n > 2) r = vld1q_lane_f32(p + 2, r, 2);
  return {r};
}
SEQCORE_INLINE void store_n(float* p, vec a, std::int64_t n) {
  if (n >= 4) return vst1q_f32(p, a.v);
  if (n > 0) vst1q_lane_f32(p, a.v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, a.v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, a.v, 2);
}
SEQCORE_INLINE vec set1(float x) { return {vdupq_n_f32(x)}; }
SEQCORE_INLINE vec zero() { return {vdupq_n_f32(0.0f)}; }

SEQCORE_INLINE vec add(vec a, vec b) { return {vaddq_f32(a.v, b.v)}; }
SEQCORE_INLINE vec sub(vec a, vec b) { return {vsubq_f32(a.v, b.v)}; }
SEQCORE_INLINE vec mul(vec a, vec b) { return {vmulq_f32(a.v, b.v)}; }
SEQCORE_INLINE vec div(vec a, vec b) { return {vdivq_f32(a.v, b.v)}; }
SEQCORE_INLINE vec sqrt(vec a) { return {vsqrtq_f32(a.v)}; }
SEQCORE_INLINE vec fma(vec a, vec b, vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
SEQCORE_INLINE vec fnma(vec a, vec b, vec c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
SEQCORE_INLINE vec neg(vec a) { return {vnegq_f32(a.v)}; }
SEQCORE_INLINE vec abs(vec a) { return {vabsq_f32(a.v)}; }
SEQCORE_INLINE vec copysign(vec a, vec b) { return {vbslq_f32(vdupq_n_u32(0x80000000u), b.v, a.v)}; }
// Not vminq/vmaxq: those give NaN for a NaN in either.
SEQCORE_INLINE vec min(vec a, vec b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
SEQCORE_INLINE vec max(vec a, vec b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
SEQCORE_INLINE vec round(vec a) { return {vrndnq_f32(a.v)}; }

SEQCORE_INLINE mask lt(vec a, vec b) { return {vcltq_f32(a.v, b.v)}; }
SEQCORE_INLINE mask le(vec a, vec b) { return {vcleq_f32(a.v, b.v)}; }
SEQCORE_INLINE mask gt(vec a, vec b) { return {vcgtq_f32(a.v, b.v)}; }
SEQCORE_INLINE mask ge(vec a, vec b) { return {vcgeq_f32(a.v, b.v)}; }
SEQCORE_INLINE mask eq(vec a, vec b) { return {vceqq_f32(a.v, b.v)}; }
SEQCORE_INLINE mask ne(vec a, vec b) { return {vmvnq_u32(vceqq_f32(a.v, b.v))}; }
SEQCORE_INLINE mask unordered(vec a, vec b) { return {vmvnq_u32(vandq_u32(vceqq_f32(a.v, a.v), vceqq_f32(b.v, b.v)))}; }
SEQCORE_INLINE vec select(mask m, vec a, vec b) { return {vbslq_f32(m.v, a.v, b.v)}; }
SEQCORE_INLINE mask mand(mask a, mask b) { return {vandq_u32(a.v, b.v)}; }
SEQCORE_INLINE mask mor(mask a, mask b) { return {vorrq_u32(a.v, b.v)}; }
SEQCORE_INLINE mask mnot(mask a) { return {vmvnq_u32(a.v)}; }
SEQCORE_INLINE bool any(mask m) { return vmaxvq_u32(m.v) != 0; }
SEQCORE_INLINE bool all(mask m) { return vminvq_u32(m.v) != 0; }

// Out of range and NaN give INT_MIN, as on x86.
SEQCORE_INLINE ivec to_int(vec a) {
  const uint32x4_t in_range = vcltq_f32(vabsq_f32(a.v), vdupq_n_f32(0x1p31f));
  return {vbslq_s32(in_range, vcvtnq_s32_f32(a.v), vdupq_n_s32(INT32_MIN))};
}
SEQCORE_INLINE vec to_float(ivec a) { return {vcvtq_f32_s32(a.v)}; }
SEQCORE_INLINE ivec bits(vec a) { return {vreinterpretq_s32_f32(a.v)}; }
SEQCORE_INLINE vec float_of(ivec a) { return {vreinterpretq_f32_s32(a.v)}; }
SEQCORE_INLINE ivec iload(const std::int32_t* p) { return {vld1q_s32(p)}; }
SEQCORE_INLINE void istore(std::int32_t* p, ivec a) { vst1q_s32(p, a.v); }
SEQCORE_INLINE ivec iset1(std::int32_t x) { return {vdupq_n_s32(x)}; }
SEQCORE_INLINE ivec iadd(ivec a, ivec b) { return {vaddq_s32(a.v, b.v)}; }
SEQCORE_INLINE ivec isub(ivec a, ivec b) { return {vsubq_s32(a.v, b.v)}; }
SEQCORE_INLINE ivec iand(ivec a, ivec b) { return {vandq_s32(a.v, b.v)}; }
SEQCORE_INLINE ivec ior(ivec a, ivec b) { return {vorrq_s32(a.v, b.v)}; }
SEQCORE_INLINE ivec ixor(ivec a, ivec b) { return {veorq_s32(a.v, b.v)}; }
template <int n>
SEQCORE_INLINE ivec shl(ivec a) {
  return {vshlq_n_s32(a.v, n)};
}
template <int n>
SEQCORE_INLINE ivec shr(ivec a) {
  return {vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v), n))};
}
template <int n>
SEQCORE_INLINE ivec sar(ivec a) {
  return {vshrq_n_s32(a.v, n)};
}
SEQCORE_INLINE mask ieq(ivec a, ivec b) { return {vceqq_s32(a.v, b.v)}; }
SEQCORE_INLINE mask igt(ivec a, ivec b) { return {vcgtq_s32(a.v, b.v)}; }
SEQCORE_INLINE ivec iselect(mask m, ivec a, ivec b) { return {vbslq_s32(m.v, a.v, b.v)}; }

// to[j][i] = from[i][j] for a block of W x W.
SEQCORE_INLINE void transpose(const float* from, std::ptrdiff_t from_row, float* to, std::ptrdiff_t to_row) {
  const float32x4x2_t a = vzipq_f32(vld1q_f32(from), vld1q_f32(from + 2 * from_row));
  const float32x4x2_t b = vzipq_f32(vld1q_f32(from + from_row), vld1q_f32(from + 3 * from_row));
  const float32x4x2_t lo = vzipq_f32(a.val[0], b.val[0]), hi = vzipq_f32(a.val[1], b.val[1]);
  vst1q_f32(to, lo.val[0]);
  vst1q_f32(to + to_row, lo.val[1]);
  vst1q_f32(to + 2 * to_row, hi.val[0]);
  vst1q_f32(to + 3 * to_row, hi.val[1]);
}

// ---- two bfloat16, or four signed bytes, in each lane, the first in the lowest bits

struct halves {
  vec odd, even;
};
SEQCORE_INLINE halves halves_of(vec a) {
  return {float_of(iand(bits(a), iset1(INT32_C(-65536)))), float_of(shl<16>(bits(a)))};
}
// acc + odd * odd, then + even * even, each fused.
SEQCORE_INLINE vec dot2(halves a, vec b, vec acc) {
  const halves h = halves_of(b);
  return fma(a.even, h.even, fma(a.odd, h.odd, acc));
}
// Bits 31..16 of every lane.
SEQCORE_INLINE void store_high(std::uint16_t* p, ivec a) { vst1_u16(p, vshrn_n_u32(vreinterpretq_u32_s32(a.v), 16)); }

constexpr std::int32_t kByteOffset = 0;
struct bytes {
  int8x16_t v;
};
// dot4: acc + the sum of four (a + kByteOffset) * b. REQUIRES: no byte of a or b is -128.
SEQCORE_INLINE bytes bytes_of(vec a) { return {vreinterpretq_s8_f32(a.v)}; }
SEQCORE_INLINE ivec dot4(bytes a, vec b, ivec acc) {
  const int8x16_t v = vreinterpretq_s8_f32(b.v);
  const int32x4_t lo = vpaddlq_s16(vmull_s8(vget_low_s8(a.v), vget_low_s8(v)));
  const int32x4_t hi = vpaddlq_s16(vmull_high_s8(a.v, v));
  return {vaddq_s32(acc.v, vpaddq_s32(lo, hi))};
}
// Every lane, which is in [-128, 127].
SEQCORE_INLINE void store_bytes(std::int8_t* p, ivec a) {
  const int16x4_t h = vmovn_s32(a.v);
  const int8x8_t b = vmovn_s16(vcombine_s16(h, h));
  vst1_lane_s32(reinterpret_cast<std::int32_t*>(p), vreinterpret_s32_s8(b), 0);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
