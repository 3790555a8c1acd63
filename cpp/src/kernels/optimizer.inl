// Updates of the parameters, element by element, in Keras's order. Included by isa.inl, once per ISA.

namespace seqcore::SEQCORE_ISA {
namespace {

SEQCORE_INLINE vec decayed(vec p, float decay) { return decay == 0.0f ? p : fnma(p, set1(decay), p); }

// m += (g - m)(1 - b1); v += (g g - v)(1 - b2); p -= m alpha / (sqrt(v) + epsilon), amsgrad: with the largest v so far.
void adam(const AdamArgs& args) {
  for_each(args.n, [=](auto at) {
    const vec g = at.load(args.g);
    vec m = at.load(args.m);
    vec v = at.load(args.v);
    m = fma(sub(g, m), set1(args.one_minus_beta1), m);
    v = fma(fma(g, g, neg(v)), set1(args.one_minus_beta2), v);
    at.store(args.m, m);
    at.store(args.v, v);
    if (args.vhat) {
      v = max(at.load(args.vhat), v);
      at.store(args.vhat, v);
    }
    const vec p = decayed(at.load(args.p), args.decay);
    at.store(args.p, sub(p, div(mul(m, set1(args.alpha)), add(sqrt(v), set1(args.epsilon)))));
  });
}

// p -= lr g; with momentum: m = momentum m - lr g, then p += m, or nesterov: p += momentum m - lr g.
void sgd(const SgdArgs& args) {
  const vec lr = set1(args.lr);
  const vec momentum = set1(args.momentum);
  for_each(args.n, [=](auto at) {
    const vec p = decayed(at.load(args.p), args.decay);
    const vec g = at.load(args.g);
    if (!args.m) return at.store(args.p, fnma(lr, g, p));
    const vec step = mul(lr, g);
    const vec m = fma(momentum, at.load(args.m), neg(step));
    at.store(args.m, m);
    at.store(args.p, add(p, args.nesterov ? fma(momentum, m, neg(step)) : m));
  });
}

// v += (g g - v)(1 - rho); step = lr g / sqrt(v + epsilon), centered: with v - mean², mean += (g - mean)(1 - rho);
// p -= step; with momentum: m = momentum m + step, p -= m.
void rmsprop(const RmspropArgs& args) {
  const vec share = set1(args.one_minus_rho);
  for_each(args.n, [=](auto at) {
    const vec g = at.load(args.g);
    vec v = at.load(args.v);
    v = fma(fma(g, g, neg(v)), share, v);
    at.store(args.v, v);
    if (args.mean) {
      vec mean = at.load(args.mean);
      mean = fma(sub(g, mean), share, mean);
      at.store(args.mean, mean);
      v = max(fnma(mean, mean, v), set1(0.0f));  // rounding may leave less than nothing
    }
    vec step = div(mul(g, set1(args.lr)), sqrt(add(v, set1(args.epsilon))));
    if (args.m) {
      step = fma(set1(args.momentum), at.load(args.m), step);
      at.store(args.m, step);
    }
    at.store(args.p, sub(decayed(at.load(args.p), args.decay), step));
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
