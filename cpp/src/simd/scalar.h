// vec in the compilers' own vector type, for any machine and as the definition that the other ISAs are tested against.
// Semantics: ARCHITECTURE.md, "simd/". Who may use it: isa_scalar.cc and the .inl files it includes. Wants
// -fno-math-errno, so that sqrt is no call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#define SEQCORE_INLINE inline __attribute__((always_inline))

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int W = 4;
constexpr int kRegisters = 8;  // for the register tiles: small, since an emulated fma needs most registers itself
constexpr int kUnroll = 1;     // of the loop of a tile
constexpr bool kWordInstructions = false;  // that are made for what tiles make of words here
using Floats = float __attribute__((vector_size(16)));
using Ints = std::int32_t __attribute__((vector_size(16)));
using Unsigned = std::uint32_t __attribute__((vector_size(16)));  // arithmetic that wraps
struct vec {
  Floats v;
};
struct ivec {
  Ints v;
};
struct mask {
  Ints v;
};  // a lane is -1 or 0

SEQCORE_INLINE mask first_n(std::int64_t n) { return {Ints{0, 1, 2, 3} < static_cast<std::int32_t>(n)}; }

SEQCORE_INLINE vec set1(float x) { return {Floats{x, x, x, x}}; }
SEQCORE_INLINE vec zero() { return set1(0.0f); }
SEQCORE_INLINE vec load(const float* p) {
  vec r;
  std::memcpy(&r, p, sizeof r);
  return r;
}
SEQCORE_INLINE void store(float* p, vec a) { std::memcpy(p, &a, sizeof a); }
SEQCORE_INLINE vec load_n(const float* p, std::int64_t n) {
  vec r = zero();
  for (int i = 0; i < W; ++i)
    if (i < n) r.v[i] = p[i];
  return r;
}
SEQCORE_INLINE void store_n(float* p, vec a, std::int64_t n) {
  for (int i = 0; i < W; ++i)
    if (i < n) p[i] = a.v[i];
}

SEQCORE_INLINE ivec bits(vec a) { return {reinterpret_cast<Ints>(a.v)}; }
SEQCORE_INLINE vec float_of(ivec a) { return {reinterpret_cast<Floats>(a.v)}; }
SEQCORE_INLINE ivec iload(const std::int32_t* p) {
  ivec r;
  std::memcpy(&r, p, sizeof r);
  return r;
}
SEQCORE_INLINE void istore(std::int32_t* p, ivec a) { std::memcpy(p, &a, sizeof a); }
SEQCORE_INLINE ivec iset1(std::int32_t x) { return {Ints{x, x, x, x}}; }
SEQCORE_INLINE ivec iadd(ivec a, ivec b) {
  return {reinterpret_cast<Ints>(reinterpret_cast<Unsigned>(a.v) + reinterpret_cast<Unsigned>(b.v))};
}
SEQCORE_INLINE ivec isub(ivec a, ivec b) {
  return {reinterpret_cast<Ints>(reinterpret_cast<Unsigned>(a.v) - reinterpret_cast<Unsigned>(b.v))};
}
SEQCORE_INLINE ivec iand(ivec a, ivec b) { return {a.v & b.v}; }
SEQCORE_INLINE ivec ior(ivec a, ivec b) { return {a.v | b.v}; }
SEQCORE_INLINE ivec ixor(ivec a, ivec b) { return {a.v ^ b.v}; }
template <int n>
SEQCORE_INLINE ivec shl(ivec a) {
  return {reinterpret_cast<Ints>(reinterpret_cast<Unsigned>(a.v) << n)};
}
template <int n>
SEQCORE_INLINE ivec shr(ivec a) {
  return {reinterpret_cast<Ints>(reinterpret_cast<Unsigned>(a.v) >> n)};
}
template <int n>
SEQCORE_INLINE ivec sar(ivec a) {
  return {a.v >> n};
}
SEQCORE_INLINE mask ieq(ivec a, ivec b) { return {a.v == b.v}; }
SEQCORE_INLINE mask igt(ivec a, ivec b) { return {a.v > b.v}; }
SEQCORE_INLINE ivec iselect(mask m, ivec a, ivec b) { return {(m.v & a.v) | (~m.v & b.v)}; }

SEQCORE_INLINE mask lt(vec a, vec b) { return {a.v < b.v}; }
SEQCORE_INLINE mask le(vec a, vec b) { return {a.v <= b.v}; }
SEQCORE_INLINE mask gt(vec a, vec b) { return {a.v > b.v}; }
SEQCORE_INLINE mask ge(vec a, vec b) { return {a.v >= b.v}; }
SEQCORE_INLINE mask eq(vec a, vec b) { return {a.v == b.v}; }
SEQCORE_INLINE mask ne(vec a, vec b) { return {a.v != b.v}; }
SEQCORE_INLINE mask unordered(vec a, vec b) { return {(a.v != a.v) | (b.v != b.v)}; }
SEQCORE_INLINE vec select(mask m, vec a, vec b) { return float_of(iselect(m, bits(a), bits(b))); }
SEQCORE_INLINE mask mand(mask a, mask b) { return {a.v & b.v}; }
SEQCORE_INLINE mask mor(mask a, mask b) { return {a.v | b.v}; }
SEQCORE_INLINE mask mnot(mask a) { return {~a.v}; }
SEQCORE_INLINE bool any(mask m) { return (m.v[0] | m.v[1] | m.v[2] | m.v[3]) != 0; }
SEQCORE_INLINE bool all(mask m) { return (m.v[0] & m.v[1] & m.v[2] & m.v[3]) != 0; }

SEQCORE_INLINE vec add(vec a, vec b) { return {a.v + b.v}; }
SEQCORE_INLINE vec sub(vec a, vec b) { return {a.v - b.v}; }
SEQCORE_INLINE vec mul(vec a, vec b) { return {a.v * b.v}; }
SEQCORE_INLINE vec div(vec a, vec b) { return {a.v / b.v}; }
SEQCORE_INLINE vec sqrt(vec a) {
  for (int i = 0; i < W; ++i) a.v[i] = __builtin_sqrtf(a.v[i]);
  return a;
}
SEQCORE_INLINE vec neg(vec a) { return float_of(ixor(bits(a), iset1(INT32_MIN))); }
SEQCORE_INLINE vec abs(vec a) { return float_of(iand(bits(a), iset1(INT32_MAX))); }
SEQCORE_INLINE vec copysign(vec a, vec b) {
  return float_of(ior(iand(bits(a), iset1(INT32_MAX)), iand(bits(b), iset1(INT32_MIN))));
}
SEQCORE_INLINE vec min(vec a, vec b) { return select(lt(a, b), a, b); }
SEQCORE_INLINE vec max(vec a, vec b) { return select(gt(a, b), a, b); }

#ifdef __FP_FAST_FMAF
SEQCORE_INLINE vec fma(vec a, vec b, vec c) {
  for (int i = 0; i < W; ++i) c.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return c;
}
#else
// a*b + c rounded once. The product is exact in double; the sum is rounded to odd (its error, if any, goes into the
// last bit), which makes the final rounding to float right, in the range of subnormals and at overflow too.
// Not inlined: it is so much code that a call is nothing beside it.
__attribute__((noinline)) vec fma(vec a, vec b, vec c) {
  using Doubles = double __attribute__((vector_size(32)));
  using UnsignedLongs = std::uint64_t __attribute__((vector_size(32)));
  const Doubles p = __builtin_convertvector(a.v, Doubles) * __builtin_convertvector(b.v, Doubles);
  const Doubles q = __builtin_convertvector(c.v, Doubles);
  const Doubles s = p + q;
  const Doubles t = s - p;
  const Doubles error = (p - (s - t)) + (q - t);
  const UnsignedLongs u = reinterpret_cast<UnsignedLongs>(s);
  // 1, or 0 for none and for NaN: then s is not finite.
  const UnsignedLongs inexact = reinterpret_cast<UnsignedLongs>((error > 0.0) | (error < 0.0)) >> 63;
  const UnsignedLongs inwards = (u ^ reinterpret_cast<UnsignedLongs>(error)) >> 63;
  const UnsignedLongs odd = inexact & ~u;
  const UnsignedLongs sum = u + ((odd ^ -inwards) + inwards);
  return {__builtin_convertvector(reinterpret_cast<Doubles>(sum), Floats)};
}
#endif
SEQCORE_INLINE vec fnma(vec a, vec b, vec c) { return fma(neg(a), b, c); }

SEQCORE_INLINE vec round(vec a) {
  const vec size = abs(a), big = set1(0x1p23f);
  return select(lt(size, big), copysign(sub(add(size, big), big), a), a);
}
// Out of range and NaN give INT_MIN, as on x86.
SEQCORE_INLINE ivec to_int(vec a) {
  const mask in_range = lt(abs(a), set1(0x1p31f));
  const vec whole = round(select(in_range, a, zero()));
  return iselect(in_range, {__builtin_convertvector(whole.v, Ints)}, iset1(INT32_MIN));
}
SEQCORE_INLINE vec to_float(ivec a) { return {__builtin_convertvector(a.v, Floats)}; }

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
  for (int i = 0; i < W; ++i) p[i] = static_cast<std::uint16_t>(a.v[i] >> 16);
}

constexpr std::int32_t kByteOffset = 0;
struct bytes {
  ivec v;
};
// dot4: acc + the sum of four (a + kByteOffset) * b. REQUIRES: no byte of a or b is -128.
SEQCORE_INLINE bytes bytes_of(vec a) { return {bits(a)}; }
SEQCORE_INLINE ivec dot4(bytes a, vec b, ivec acc) {
  const auto product = [](ivec x, ivec y) { return ivec{sar<24>(x).v * sar<24>(y).v}; };  // of the top bytes
  const ivec y = bits(b);
  acc = iadd(acc, product(shl<24>(a.v), shl<24>(y)));
  acc = iadd(acc, product(shl<16>(a.v), shl<16>(y)));
  acc = iadd(acc, product(shl<8>(a.v), shl<8>(y)));
  return iadd(acc, product(a.v, y));
}
// Every lane, which is in [-128, 127].
SEQCORE_INLINE void store_bytes(std::int8_t* p, ivec a) {
  for (int i = 0; i < W; ++i) p[i] = static_cast<std::int8_t>(a.v[i]);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
