// Elementary functions on vec: fixed sequences of IEEE operations, no tables, at most one division, no libm. The same
// bits on every ISA. Included by isa.inl, once per ISA.
//
// Subnormals count as zero, NaN gives NaN. The error beside each function is the largest over every float32, against
// double libm, in units in the last place of the result; cpp/tests/ulp.cc measures it.
// The polynomials are minimax fits (Lawson) whose coefficients were rounded to float32 one after the other, each time
// refitting the rest.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr float kNaN = __builtin_nanf("");
constexpr float kMinNormal = 0x1p-126f;
constexpr float kLog2E = 0x1.715476p0f;
constexpr float kLn2 = 0x1.62e43p-1f;       // ln 2 + 1.9e-9
constexpr float kLn2Low = -0x1.05c61p-29f;  // ln 2 - kLn2
// Adding kShift rounds to an integer and leaves it in the low bits; with the exponent's bias on top, shifting those
// bits left by 23 makes the power of two.
constexpr float kShift = 0x1.8p23f;
constexpr float kShiftBias = 0x1.8p23f + 127.0f;

SEQCORE_INLINE vec power_of_two(vec shifted) { return float_of(shl<23>(bits(shifted))); }
template <class V>
SEQCORE_INLINE twice<V> power_of_two(twice<V> shifted) {
  return {power_of_two(shifted.a), power_of_two(shifted.b)};
}

// For |r| <= ln(2) / 2: e^r (or e^-r), and (e^r - 1 - r) / r^2.
template <bool kNegate = false, class V>
SEQCORE_INLINE V exp_reduced(V r) {
  const auto step = [r](V p, float c) { return kNegate ? fnma(p, r, constant(r, c)) : fma(p, r, constant(r, c)); };
  V p = step(constant(r, 0x1.6a4d6p-10f), 0x1.12398ep-7f);
  p = step(p, 0x1.5558bp-5f);
  p = step(p, 0x1.555492p-3f);
  p = step(p, 0x1.fffffcp-2f);
  p = step(p, 1.0f);
  return step(p, 1.0f);
}
template <class V>
SEQCORE_INLINE V expm1_tail(V r) {
  const auto number = [r](float c) { return constant(r, c); };
  V p = fma(number(0x1.6c6426p-10f), r, number(0x1.122408p-7f));
  p = fma(p, r, number(0x1.5555acp-5f));
  p = fma(p, r, number(0x1.5554b6p-3f));
  return fma(p, r, number(0.5f));
}

// e^x; inf beyond the largest float, 0 below the smallest normal one. 0.9 ulp.
SEQCORE_INLINE vec vexp(vec x) {
  const vec t = fma(x, set1(kLog2E), set1(kShift));
  const vec n = sub(t, set1(kShift));
  const vec r = fma(n, set1(-kLn2Low), fma(n, set1(-kLn2), x));
  const vec y = float_of(iadd(bits(exp_reduced(r)), shl<23>(bits(t))));
  const vec high = select(le(x, set1(0x1.62e42ep6f)), y, add(x, set1(kInfinity)));  // NaN takes this way too
  return select(lt(x, set1(-0x1.5d589ep6f)), zero(), high);
}

// e^x - 1; -1 at -inf. 1.5 ulp.
SEQCORE_INLINE vec vexpm1(vec x) {
  const vec c = max(set1(-18.0f), min(set1(89.0f), x));
  const vec t = fma(c, set1(kLog2E), set1(kShiftBias - 1.0f));
  const vec n = sub(t, set1(kShiftBias - 1.0f));
  const vec r = fma(n, set1(-kLn2Low), fma(n, set1(-kLn2), c));
  const vec q = fma(mul(r, r), expm1_tail(r), r);
  const vec half = power_of_two(t);  // 2^(n-1): n reaches 128
  const vec y = fma(q, half, sub(half, set1(0.5f)));
  return select(eq(n, zero()), q, add(y, y));  // q itself: half of it may be subnormal
}

// log(2^k (1 + f)) for f in [sqrt(1/2) - 1, sqrt(2) - 1].
SEQCORE_INLINE vec log_reduced(vec f, vec k) {
  vec p = fma(set1(0x1.146f74p-4f), f, set1(-0x1.de0764p-4f));
  p = fma(p, f, set1(0x1.e6c402p-4f));
  p = fma(p, f, set1(-0x1.fc283p-4f));
  p = fma(p, f, set1(0x1.233b64p-3f));
  p = fma(p, f, set1(-0x1.555c46p-3f));
  p = fma(p, f, set1(0x1.99a478p-3f));
  p = fma(p, f, set1(-0x1.000006p-2f));
  p = fma(p, f, set1(0x1.555548p-2f));
  p = fma(p, f, set1(-0.5f));
  p = fma(mul(f, f), p, mul(k, set1(kLn2Low)));
  return fma(k, set1(kLn2), add(f, p));
}
// The exponent k of a positive normal u = 2^k m with m in [sqrt(1/2), sqrt(2)), in place: k << 23.
SEQCORE_INLINE ivec log_exponent(vec u) { return shl<23>(sar<23>(isub(bits(u), iset1(0x3f3504f3)))); }

// log(x); -inf at 0, NaN below. 0.9 ulp.
SEQCORE_INLINE vec vlog(vec x) {
  const ivec k = log_exponent(x);
  const vec y = log_reduced(sub(float_of(isub(bits(x), k)), set1(1.0f)), to_float(sar<23>(k)));
  const vec low = select(lt(x, zero()), set1(kNaN), set1(-kInfinity));
  const vec inside = select(lt(x, set1(kInfinity)), y, x);  // inf and NaN
  return select(lt(x, set1(kMinNormal)), low, inside);
}

// log(1 + x); -inf at -1, NaN below. 1.5 ulp.
SEQCORE_INLINE vec vlog1p(vec x) {
  const vec one = set1(1.0f);
  const vec u = add(one, x);
  const vec b = sub(u, one);
  const vec lost = add(sub(one, sub(u, b)), sub(x, b));  // 1 + x = u + lost
  const ivec k = log_exponent(u);
  const vec scale = max(float_of(isub(bits(one), k)), zero());  // 2^-k; k = 128 would give -inf
  const vec f = fma(lost, scale, sub(float_of(isub(bits(u), k)), one));
  const vec y = log_reduced(f, to_float(sar<23>(k)));
  const vec low = select(lt(u, zero()), set1(kNaN), set1(-kInfinity));
  const vec inside = select(lt(x, set1(kInfinity)), y, x);
  return select(le(u, zero()), low, inside);
}

// What one division makes a result of, for those who share a division.
template <class V>
struct fraction {
  V above, below;
};
// tanh(x) = (e^2a - 1) / (e^2a + 1) with a = |x|: odd, and never beyond 1 since the divisor is the larger. 2.5 ulp.
// One step of reduction is enough: what it loses at n > 0 weighs 2^-n.
template <class V>
SEQCORE_INLINE fraction<V> tanh_fraction(V x) {
  const auto number = [x](float c) { return constant(x, c); };
  const V a = min(number(9.2f), abs(x));
  const V t = fma(a, number(2.0f * kLog2E), number(kShiftBias));
  const V n = sub(t, number(kShiftBias));
  const V r = fma(n, number(-kLn2), add(a, a));
  const V q = fma(mul(r, r), expm1_tail(r), r);
  const V s = power_of_two(t);
  const V y = fma(q, s, sub(s, number(1.0f)));
  return {copysign(y, x), add(y, number(2.0f))};
}
template <class V>
SEQCORE_INLINE V vtanh(V x) {
  const fraction<V> y = tanh_fraction(x);
  return div(y.above, y.below);
}

// 1 / (1 + e^-x): in [0, 1]. 2.5 ulp.
template <class V>
SEQCORE_INLINE V sigmoid_divisor(V x) {
  const auto number = [x](float c) { return constant(x, c); };
  const V c = max(number(-88.0f), min(number(87.0f), x));
  const V t = fma(c, number(-kLog2E), number(kShiftBias));
  const V n = sub(t, number(kShiftBias));
  const V r = fma(n, number(kLn2Low), fma(n, number(kLn2), c));  // -x = n ln 2 - r
  return fma(exp_reduced<true>(r), power_of_two(t), number(1.0f));
}
template <class V>
SEQCORE_INLINE V reciprocal(V x) {
  return div(constant(x, 1.0f), x);
}
template <class V>
SEQCORE_INLINE V vsigmoid(V x) {
  return reciprocal(sigmoid_divisor(x));
}

// erf(x), odd: x + x P(x^2) up to 1, then 1 - e^-Q(|x|), constant from 4 on. 1.2 ulp.
SEQCORE_INLINE vec verf(vec x) {
  const vec a = min(set1(4.0f), abs(x));
  const vec u = mul(a, a);
  vec p = fma(set1(0x1.4771fcp-14f), u, set1(-0x1.a3515ep-11f));
  p = fma(p, u, set1(0x1.53f224p-8f));
  p = fma(p, u, set1(-0x1.b7f71ap-6f));
  p = fma(p, u, set1(0x1.ce2ce6p-4f));
  p = fma(p, u, set1(-0x1.81273ep-2f));
  p = fma(p, u, set1(0x1.06eba8p-3f));
  vec q = fma(set1(0x1.6c0584p-16f), a, set1(-0x1.cee93ep-12f));
  q = fma(q, a, set1(0x1.139818p-8f));
  q = fma(q, a, set1(-0x1.9d0b46p-6f));
  q = fma(q, a, set1(0x1.bc1898p-4f));
  q = fma(q, a, set1(0x1.4434f6p-1f));
  q = fma(q, a, set1(0x1.212c2cp0f));
  q = fma(q, a, set1(-0x1.8b3e3ep-13f));
  const vec y = select(lt(a, set1(1.0f)), fma(p, a, a), sub(set1(1.0f), vexp(neg(q))));
  return copysign(y, x);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
