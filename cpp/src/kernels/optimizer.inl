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

// m and v as Adam's; p -= (alpha_m m + alpha_g g) / (sqrt(v correction) + epsilon).
void nadam(const NadamArgs& args) {
  for_each(args.n, [=](auto at) {
    const vec g = at.load(args.g);
    vec m = at.load(args.m);
    vec v = at.load(args.v);
    m = fma(sub(g, m), set1(args.one_minus_beta1), m);
    v = fma(fma(g, g, neg(v)), set1(args.one_minus_beta2), v);
    at.store(args.m, m);
    at.store(args.v, v);
    const vec step = fma(set1(args.alpha_m), m, mul(set1(args.alpha_g), g));
    const vec root = sqrt(mul(v, set1(args.correction)));
    at.store(args.p, sub(decayed(at.load(args.p), args.decay), div(step, add(root, set1(args.epsilon)))));
  });
}

// m as Adam's; norm = max(beta2 norm, |g|); p -= m alpha / (norm + epsilon).
void adamax(const AdamaxArgs& args) {
  for_each(args.n, [=](auto at) {
    const vec g = at.load(args.g);
    vec m = at.load(args.m);
    m = fma(sub(g, m), set1(args.one_minus_beta1), m);
    const vec norm = max(mul(set1(args.beta2), at.load(args.norm)), abs(g));
    at.store(args.m, m);
    at.store(args.norm, norm);
    const vec step = div(mul(m, set1(args.alpha)), add(norm, set1(args.epsilon)));
    at.store(args.p, sub(decayed(at.load(args.p), args.decay), step));
  });
}

// v += g g; p -= lr g / sqrt(v + epsilon).
void adagrad(const AdagradArgs& args) {
  for_each(args.n, [=](auto at) {
    const vec g = at.load(args.g);
    const vec v = fma(g, g, at.load(args.v));
    at.store(args.v, v);
    const vec step = div(mul(g, set1(args.lr)), sqrt(add(v, set1(args.epsilon))));
    at.store(args.p, sub(decayed(at.load(args.p), args.decay), step));
  });
}

// v += (g g - v)(1 - rho); step = sqrt(d + epsilon) g / sqrt(v + epsilon); d += (step step - d)(1 - rho); p -= lr step.
void adadelta(const AdadeltaArgs& args) {
  const vec share = set1(args.one_minus_rho), epsilon = set1(args.epsilon);
  for_each(args.n, [=](auto at) {
    const vec g = at.load(args.g);
    vec v = at.load(args.v);
    vec d = at.load(args.d);
    v = fma(fma(g, g, neg(v)), share, v);
    const vec step = div(mul(sqrt(add(d, epsilon)), g), sqrt(add(v, epsilon)));
    d = fma(fma(step, step, neg(d)), share, d);
    at.store(args.v, v);
    at.store(args.d, d);
    at.store(args.p, fnma(set1(args.lr), step, decayed(at.load(args.p), args.decay)));
  });
}

// p -= lr sign(m + (g - m)(1 - b1)); m += (g - m)(1 - b2).
void lion(const LionArgs& args) {
  for_each(args.n, [=](auto at) {
    const vec m = at.load(args.m);
    const vec away = sub(at.load(args.g), m);
    const vec to = fma(away, set1(args.one_minus_beta1), m);
    const vec step = select(eq(to, zero()), zero(), copysign(set1(args.lr), to));
    at.store(args.m, fma(away, set1(args.one_minus_beta2), m));
    at.store(args.p, sub(decayed(at.load(args.p), args.decay), step));
  });
}

// v' = v + g g; linear += g + shrinkage p - (v'^power - v^power) p / lr;
// p = (linear clipped to [-l1, l1] - linear) / (v'^power / lr + l2).
void ftrl(const FtrlArgs& args) {
  const vec lr = set1(args.lr), power = set1(args.power);
  const auto raised = [=](vec v) {
    return args.power == 0.5f ? sqrt(v) : args.power == 0.0f ? set1(1.0f) : vexp(mul(power, vlog(v)));
  };
  for_each(args.n, [=](auto at) {
    const vec g = at.load(args.g);
    const vec p = decayed(at.load(args.p), args.decay);
    const vec before = at.load(args.v);
    const vec v = fma(g, g, before);
    const vec after = raised(v);
    const vec sigma = div(sub(after, raised(before)), lr);
    const vec linear = add(at.load(args.linear), fnma(sigma, p, fma(set1(args.shrinkage), p, g)));
    at.store(args.v, v);
    at.store(args.linear, linear);
    at.store(args.p, div(sub(clamp(linear, -args.l1, args.l1), linear), add(div(after, lr), set1(args.l2))));
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
