// Activations and their derivatives, on vec and on rows: Keras 3's definitions. Included by isa.inl, once per ISA.

namespace seqcore::SEQCORE_ISA {
namespace {

SEQCORE_INLINE vec clamp(vec x, float lo, float hi) { return min(set1(hi), max(set1(lo), x)); }  // NaN stays NaN
SEQCORE_INLINE vec softplus(vec x) { return add(max(x, zero()), vlog1p(vexp(neg(abs(x))))); }
SEQCORE_INLINE vec hard_sigmoid(vec x) { return mul(clamp(add(x, set1(3.0f)), 0.0f, 6.0f), set1(1.0f / 6.0f)); }

constexpr float kSeluScale = 1.05070098735548049342f;
constexpr float kSeluScaleAlpha = 1.75809934084737685994f;
constexpr float kLeakySlope = 0.2f;
constexpr float kShrink = 0.5f;
constexpr float kSqrtHalf = 0.70710678118654752440f;
constexpr float kInvSqrt2Pi = 0.39894228040143267794f;

// One copy per ISA of what is not hot.
__attribute__((noinline)) vec activate_rest(Activation a, vec x) {
  const vec one = set1(1.0f);
  switch (a) {
    case Activation::leaky_relu:
      return select(lt(x, zero()), mul(set1(kLeakySlope), x), x);
    case Activation::relu6:
      return clamp(x, 0.0f, 6.0f);
    case Activation::elu:
      return select(gt(x, zero()), x, vexpm1(x));
    case Activation::selu:
      return select(gt(x, zero()), mul(set1(kSeluScale), x), mul(set1(kSeluScaleAlpha), vexpm1(x)));
    case Activation::softplus:
      return softplus(x);
    case Activation::softsign:
      return div(x, add(one, abs(x)));
    case Activation::silu:
      return mul(x, vsigmoid(x));
    case Activation::gelu:
      return mul(mul(set1(0.5f), x), add(one, verf(mul(x, set1(kSqrtHalf)))));
    case Activation::exponential:
      return vexp(x);
    case Activation::hard_sigmoid:
      return hard_sigmoid(x);
    case Activation::hard_silu:
      return mul(x, hard_sigmoid(x));
    case Activation::hard_tanh:
      return clamp(x, -1.0f, 1.0f);
    case Activation::mish:
      return mul(x, vtanh(softplus(x)));
    case Activation::log_sigmoid:
      return neg(softplus(neg(x)));
    case Activation::tanh_shrink:
      return sub(x, vtanh(x));
    case Activation::soft_shrink:
      return sub(x, clamp(x, -kShrink, kShrink));
    case Activation::hard_shrink:
      return select(le(abs(x), set1(kShrink)), zero(), x);
    case Activation::squareplus:
      return mul(set1(0.5f), add(x, sqrt(fma(x, x, set1(4.0f)))));
    case Activation::sparse_plus: {
      const vec d = max(zero(), add(x, one));
      return select(lt(x, one), mul(set1(0.25f), mul(d, d)), x);
    }
    case Activation::sparse_sigmoid:
      return mul(set1(0.5f), clamp(add(x, one), 0.0f, 2.0f));
    default:
      return x;
  }
}

// REQUIRES: !is_rowwise(a).
SEQCORE_INLINE vec activate(Activation a, vec x) {
  if (a == Activation::tanh) return vtanh(x);
  if (a == Activation::sigmoid) return vsigmoid(x);
  if (a == Activation::relu) return max(zero(), x);
  if (a == Activation::linear) return x;
  return activate_rest(a, x);
}

__attribute__((noinline)) vec activation_gradient_rest(Activation a, vec c) {
  const vec one = set1(1.0f);
  switch (a) {
    case Activation::leaky_relu:
      return select(gt(c, zero()), one, set1(kLeakySlope));
    case Activation::relu6:
      return select(mand(gt(c, zero()), lt(c, set1(6.0f))), one, zero());
    case Activation::elu:
      return select(lt(c, zero()), add(c, one), one);
    case Activation::selu:
      return select(lt(c, zero()), add(c, set1(kSeluScaleAlpha)), set1(kSeluScale));
    case Activation::softplus:
      return neg(vexpm1(neg(c)));
    case Activation::softsign: {
      const vec d = sub(one, abs(c));
      return mul(d, d);
    }
    case Activation::silu: {
      const vec s = vsigmoid(c);
      return mul(s, fma(c, sub(one, s), one));
    }
    case Activation::gelu: {
      const vec cdf = fma(set1(0.5f), verf(mul(c, set1(kSqrtHalf))), set1(0.5f));
      return fma(c, mul(set1(kInvSqrt2Pi), vexp(mul(mul(set1(-0.5f), c), c))), cdf);
    }
    case Activation::exponential:
      return c;
    case Activation::hard_sigmoid:
      return select(mand(gt(c, zero()), lt(c, one)), set1(1.0f / 6.0f), zero());
    case Activation::hard_silu: {
      const vec inside = fma(c, set1(1.0f / 3.0f), set1(0.5f));
      return select(lt(abs(c), set1(3.0f)), inside, hard_sigmoid(c));
    }
    case Activation::hard_tanh:
      return select(lt(abs(c), one), one, zero());
    case Activation::mish: {
      const vec t = vtanh(softplus(c));
      return fma(mul(c, vsigmoid(c)), fnma(t, t, one), t);
    }
    case Activation::log_sigmoid:
      return neg(vexpm1(c));
    case Activation::tanh_shrink: {
      const vec t = vtanh(c);
      return mul(t, t);
    }
    case Activation::soft_shrink:
    case Activation::hard_shrink:
      return select(eq(c, zero()), zero(), one);
    case Activation::squareplus:
      return fma(set1(0.5f), div(c, sqrt(fma(c, c, set1(4.0f)))), set1(0.5f));
    case Activation::sparse_plus:
      return mul(set1(0.5f), clamp(add(c, one), 0.0f, 2.0f));
    case Activation::sparse_sigmoid:
      return select(mand(gt(c, zero()), lt(c, one)), set1(0.5f), zero());
    default:
      return one;
  }
}

// The derivative, from the output, or from the input where needs_input(a). REQUIRES: !is_rowwise(a).
SEQCORE_INLINE vec activation_gradient(Activation a, vec cache) {
  if (a == Activation::tanh) return fnma(cache, cache, set1(1.0f));
  if (a == Activation::sigmoid) return fnma(cache, cache, cache);
  if (a == Activation::relu) return select(gt(cache, zero()), set1(1.0f), zero());
  if (a == Activation::linear) return set1(1.0f);
  return activation_gradient_rest(a, cache);
}

// The same on several vectors.
template <class V>
SEQCORE_INLINE twice<V> activate(Activation a, twice<V> x) {
  if (a == Activation::tanh) return vtanh(x);
  if (a == Activation::sigmoid) return vsigmoid(x);
  return {activate(a, x.a), activate(a, x.b)};
}
template <class V>
SEQCORE_INLINE twice<V> activation_gradient(Activation a, twice<V> cache) {
  return {activation_gradient(a, cache.a), activation_gradient(a, cache.b)};
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
