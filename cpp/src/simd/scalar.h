// vec in plain C++, for any machine and as the definition that the other ISAs are tested against. Semantics:
// ARCHITECTURE.md, "simd/". Who may use it: isa_scalar.cc and the .inl files it includes. Wants -fno-math-errno, so
// that sqrt is no call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#define SEQCORE_INLINE inline __attribute__((always_inline))

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int W = 4;
constexpr int kRegisters = 8;  // for the register tiles: small, since an emulated fma is much code
constexpr int kUnroll = 1;     // of the loop of a tile
struct vec {
  float v[W];
};
struct ivec {
  std::int32_t v[W];
};
struct mask {
  std::int32_t v[W];
};  // -1 or 0

template <class To, class From>
SEQCORE_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Lane by lane: r.v[i] = f(i).
template <class R, class F>
SEQCORE_INLINE R lanes(F f) {
  R r;
  for (int i = 0; i < W; ++i) r.v[i] = f(i);
  return r;
}

// a*b + c rounded once. The product is exact in double; the sum is rounded to odd (its error, if any, goes into the
// last bit), which makes the final rounding to float right, in the range of subnormals and at overflow too.
SEQCORE_INLINE float fma1(float a, float b, float c) {
#ifdef __FP_FAST_FMAF
  return __builtin_fmaf(a, b, c);
#else
  const double p = static_cast<double>(a) * static_cast<double>(b);
  const double q = static_cast<double>(c);
  const double s = p + q;
  const double t = s - p;
  const double error = (p - (s - t)) + (q - t);
  const auto u = bit_cast<std::uint64_t>(s);
  const auto inexact = static_cast<std::uint64_t>((error > 0.0) | (error < 0.0));  // false for NaN: s is not finite
  const std::uint64_t inwards = (u ^ bit_cast<std::uint64_t>(error)) >> 63;
  return static_cast<float>(bit_cast<double>(u + (inexact & ~u) * (1 - 2 * inwards)));
#endif
}

SEQCORE_INLINE float round1(float x) {
  const float a = __builtin_fabsf(x);
  return a < 0x1p23f ? __builtin_copysignf((a + 0x1p23f) - 0x1p23f, x) : x;
}

SEQCORE_INLINE vec load(const float* p) {
  return lanes<vec>([=](int i) { return p[i]; });
}
SEQCORE_INLINE void store(float* p, vec a) {
  for (int i = 0; i < W; ++i) p[i] = a.v[i];
}
SEQCORE_INLINE vec load_n(const float* p, std::int64_t n) {
  return lanes<vec>([=](int i) { return i < n ? p[i] : 0.0f; });
}
SEQCORE_INLINE void store_n(float* p, vec a, std::int64_t n) {
  for (int i = 0; i < W; ++i)
    if (i < n) p[i] = a.v[i];
}
SEQCORE_INLINE vec set1(float x) {
  return lanes<vec>([=](int) { return x; });
}
SEQCORE_INLINE vec zero() { return set1(0.0f); }

SEQCORE_INLINE vec add(vec a, vec b) {
  return lanes<vec>([=](int i) { return a.v[i] + b.v[i]; });
}
SEQCORE_INLINE vec sub(vec a, vec b) {
  return lanes<vec>([=](int i) { return a.v[i] - b.v[i]; });
}
SEQCORE_INLINE vec mul(vec a, vec b) {
  return lanes<vec>([=](int i) { return a.v[i] * b.v[i]; });
}
SEQCORE_INLINE vec div(vec a, vec b) {
  return lanes<vec>([=](int i) { return a.v[i] / b.v[i]; });
}
SEQCORE_INLINE vec sqrt(vec a) {
  return lanes<vec>([=](int i) { return __builtin_sqrtf(a.v[i]); });
}
SEQCORE_INLINE vec fma(vec a, vec b, vec c) {
  return lanes<vec>([=](int i) { return fma1(a.v[i], b.v[i], c.v[i]); });
}
SEQCORE_INLINE vec fnma(vec a, vec b, vec c) {
  return lanes<vec>([=](int i) { return fma1(-a.v[i], b.v[i], c.v[i]); });
}
SEQCORE_INLINE vec neg(vec a) {
  return lanes<vec>([=](int i) { return -a.v[i]; });
}
SEQCORE_INLINE vec abs(vec a) {
  return lanes<vec>([=](int i) { return __builtin_fabsf(a.v[i]); });
}
SEQCORE_INLINE vec copysign(vec a, vec b) {
  return lanes<vec>([=](int i) { return __builtin_copysignf(a.v[i], b.v[i]); });
}
SEQCORE_INLINE vec min(vec a, vec b) {
  return lanes<vec>([=](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
SEQCORE_INLINE vec max(vec a, vec b) {
  return lanes<vec>([=](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
SEQCORE_INLINE vec round(vec a) {
  return lanes<vec>([=](int i) { return round1(a.v[i]); });
}

SEQCORE_INLINE mask lt(vec a, vec b) {
  return lanes<mask>([=](int i) { return -(a.v[i] < b.v[i]); });
}
SEQCORE_INLINE mask le(vec a, vec b) {
  return lanes<mask>([=](int i) { return -(a.v[i] <= b.v[i]); });
}
SEQCORE_INLINE mask gt(vec a, vec b) {
  return lanes<mask>([=](int i) { return -(a.v[i] > b.v[i]); });
}
SEQCORE_INLINE mask ge(vec a, vec b) {
  return lanes<mask>([=](int i) { return -(a.v[i] >= b.v[i]); });
}
SEQCORE_INLINE mask eq(vec a, vec b) {
  return lanes<mask>([=](int i) { return -(a.v[i] == b.v[i]); });
}
SEQCORE_INLINE mask ne(vec a, vec b) {
  return lanes<mask>([=](int i) { return -(a.v[i] != b.v[i]); });
}
SEQCORE_INLINE mask unordered(vec a, vec b) {
  return lanes<mask>([=](int i) { return -static_cast<int>(__builtin_isunordered(a.v[i], b.v[i])); });
}
SEQCORE_INLINE vec select(mask m, vec a, vec b) {
  return lanes<vec>([=](int i) { return m.v[i] ? a.v[i] : b.v[i]; });
}
SEQCORE_INLINE mask mand(mask a, mask b) {
  return lanes<mask>([=](int i) { return a.v[i] & b.v[i]; });
}
SEQCORE_INLINE mask mor(mask a, mask b) {
  return lanes<mask>([=](int i) { return a.v[i] | b.v[i]; });
}
SEQCORE_INLINE mask mnot(mask a) {
  return lanes<mask>([=](int i) { return ~a.v[i]; });
}
SEQCORE_INLINE bool any(mask m) { return (m.v[0] | m.v[1] | m.v[2] | m.v[3]) != 0; }
SEQCORE_INLINE bool all(mask m) { return (m.v[0] & m.v[1] & m.v[2] & m.v[3]) != 0; }
SEQCORE_INLINE mask first_n(std::int64_t n) {
  return lanes<mask>([=](int i) { return -(i < n); });
}

// Out of range and NaN give INT_MIN, as on x86.
SEQCORE_INLINE ivec to_int(vec a) {
  return lanes<ivec>(
      [=](int i) { return __builtin_fabsf(a.v[i]) < 0x1p31f ? static_cast<std::int32_t>(round1(a.v[i])) : INT32_MIN; });
}
SEQCORE_INLINE vec to_float(ivec a) {
  return lanes<vec>([=](int i) { return static_cast<float>(a.v[i]); });
}
SEQCORE_INLINE ivec bits(vec a) { return bit_cast<ivec>(a); }
SEQCORE_INLINE vec float_of(ivec a) { return bit_cast<vec>(a); }
SEQCORE_INLINE ivec iload(const std::int32_t* p) {
  return lanes<ivec>([=](int i) { return p[i]; });
}
SEQCORE_INLINE void istore(std::int32_t* p, ivec a) {
  for (int i = 0; i < W; ++i) p[i] = a.v[i];
}

// Integers wrap: through unsigned, so that it is defined.
SEQCORE_INLINE std::uint32_t u32(std::int32_t x) { return static_cast<std::uint32_t>(x); }
SEQCORE_INLINE std::int32_t i32(std::uint32_t x) { return static_cast<std::int32_t>(x); }
SEQCORE_INLINE ivec iset1(std::int32_t x) {
  return lanes<ivec>([=](int) { return x; });
}
SEQCORE_INLINE ivec iadd(ivec a, ivec b) {
  return lanes<ivec>([=](int i) { return i32(u32(a.v[i]) + u32(b.v[i])); });
}
SEQCORE_INLINE ivec isub(ivec a, ivec b) {
  return lanes<ivec>([=](int i) { return i32(u32(a.v[i]) - u32(b.v[i])); });
}
SEQCORE_INLINE ivec iand(ivec a, ivec b) {
  return lanes<ivec>([=](int i) { return a.v[i] & b.v[i]; });
}
SEQCORE_INLINE ivec ior(ivec a, ivec b) {
  return lanes<ivec>([=](int i) { return a.v[i] | b.v[i]; });
}
SEQCORE_INLINE ivec ixor(ivec a, ivec b) {
  return lanes<ivec>([=](int i) { return a.v[i] ^ b.v[i]; });
}
template <int n>
SEQCORE_INLINE ivec shl(ivec a) {
  return lanes<ivec>([=](int i) { return i32(u32(a.v[i]) << n); });
}
template <int n>
SEQCORE_INLINE ivec shr(ivec a) {
  return lanes<ivec>([=](int i) { return i32(u32(a.v[i]) >> n); });
}
template <int n>
SEQCORE_INLINE ivec sar(ivec a) {
  return lanes<ivec>([=](int i) { return a.v[i] >> n; });
}
SEQCORE_INLINE mask ieq(ivec a, ivec b) {
  return lanes<mask>([=](int i) { return -(a.v[i] == b.v[i]); });
}
SEQCORE_INLINE mask igt(ivec a, ivec b) {
  return lanes<mask>([=](int i) { return -(a.v[i] > b.v[i]); });
}
SEQCORE_INLINE ivec iselect(mask m, ivec a, ivec b) {
  return lanes<ivec>([=](int i) { return m.v[i] ? a.v[i] : b.v[i]; });
}

// to[j][i] = from[i][j] for a block of W x W.
SEQCORE_INLINE void transpose(const float* from, std::ptrdiff_t from_row, float* to, std::ptrdiff_t to_row) {
  for (int i = 0; i < W; ++i)
    for (int j = 0; j < W; ++j) to[j * to_row + i] = from[i * from_row + j];
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
SEQCORE_INLINE void store_high(std::uint16_t* p, ivec a) {
  for (int i = 0; i < W; ++i) p[i] = static_cast<std::uint16_t>(u32(a.v[i]) >> 16);
}

constexpr std::int32_t kByteOffset = 0;
struct bytes {
  ivec v;
};
// dot4: acc + the sum of four (a + kByteOffset) * b. REQUIRES: no byte of a or b is -128.
SEQCORE_INLINE bytes bytes_of(vec a) { return {bits(a)}; }
SEQCORE_INLINE ivec dot4(bytes a, vec b, ivec acc) {
  const ivec v = bits(b);
  return lanes<ivec>([=](int i) {
    std::int32_t sum = acc.v[i];
    for (int shift = 0; shift < 32; shift += 8)
      sum += static_cast<std::int8_t>(u32(a.v.v[i]) >> shift & 0xFF) *
             static_cast<std::int8_t>(u32(v.v[i]) >> shift & 0xFF);
    return sum;
  });
}
// Every lane, which is in [-128, 127].
SEQCORE_INLINE void store_bytes(std::int8_t* p, ivec a) {
  for (int i = 0; i < W; ++i) p[i] = static_cast<std::int8_t>(a.v[i]);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
