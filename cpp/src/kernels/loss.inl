// Losses of rows and their gradients: Keras 3's definitions, see LossArgs. Included by isa.inl, once per ISA.
//
// A row's function gets the row's pointers, its weight and where to put d loss/d pred (null: not wanted), and returns
// the loss.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr float kClipLow = 1e-7f;
constexpr float kClipHigh = 1.0f - 1e-7f;

struct LossRow {
  std::int64_t n;
  const float* p;
  const float* y;      // all but sparse
  std::int64_t label;  // sparse
  float weight;
  float* d;
};

SEQCORE_INLINE vec inside_clip(vec p, vec v) {  // v where p is not clipped, else 0; NaN stays
  return select(mor(lt(p, set1(kClipLow)), gt(p, set1(kClipHigh))), zero(), v);
}

// Means over the row of `value(e)`, e = pred - target; the gradient is `slope(e)` times weight / n.
template <class Value, class Slope>
SEQCORE_INLINE float regression_row(const LossRow& row, Value value, Slope slope) {
  const float count = static_cast<float>(row.n);
  const vec s = set1(row.weight / count);
  return sum(row.n,
             [=](auto at, vec acc) {
               const vec e = sub(at.load(row.p), at.load(row.y));
               if (row.d) at.store(row.d, mul(s, slope(e)));
               return add(acc, value(e));
             }) /
         count;
}

// The same of value(p, y) and slope(p, y), p the prediction; the sum over the row if not its mean.
template <class Value, class Slope>
SEQCORE_INLINE float pair_row(const LossRow& row, bool mean, Value value, Slope slope) {
  const float count = mean ? static_cast<float>(row.n) : 1.0f;
  const vec s = set1(row.weight / count);
  return sum(row.n,
             [=](auto at, vec acc) {
               const vec p = at.load(row.p), y = at.load(row.y);
               if (row.d) at.store(row.d, mul(s, slope(p, y)));
               return add(acc, value(p, y));
             }) /
         count;
}

SEQCORE_INLINE float binary_row(const LossRow& row, bool from_logits, float smoothing) {
  const float count = static_cast<float>(row.n);
  const vec one = set1(1.0f);
  const vec s = set1(row.weight / count);
  const vec keep = set1(1.0f - smoothing);
  const vec half = set1(0.5f * smoothing);
  return sum(row.n,
             [=](auto at, vec acc) {
               const vec x = at.load(row.p);
               const vec y = fma(at.load(row.y), keep, half);
               if (from_logits) {
                 if (row.d) at.store(row.d, mul(s, sub(vsigmoid(x), y)));
                 return add(acc, add(fnma(x, y, max(x, zero())), vlog1p(vexp(neg(abs(x))))));
               }
               const vec p = clamp(x, kClipLow, kClipHigh);
               const vec q = sub(one, p);
               if (row.d) at.store(row.d, mul(s, inside_clip(x, div(sub(p, y), mul(p, q)))));
               return sub(acc, fma(y, vlog(p), mul(sub(one, y), vlog(q))));
             }) /
         count;
}

SEQCORE_INLINE float categorical_row(const LossRow& row, bool from_logits, float smoothing) {
  const vec keep = set1(1.0f - smoothing);
  const vec rest = set1(smoothing / static_cast<float>(row.n));
  const vec w = set1(row.weight);
  const auto target = [=](auto at) { return fma(at.load(row.y), keep, rest); };
  if (from_logits) {
    const vec top = set1(row_max(row.n, row.p));
    const float total = sum(row.n, [=](auto at, vec acc) { return add(acc, vexp(sub(at.load(row.p), top))); });
    const vec log_total = vlog(set1(total));
    const float loss =
        sum(row.n, [=](auto at, vec acc) { return fma(target(at), sub(log_total, sub(at.load(row.p), top)), acc); });
    if (row.d) {
      const float mass = sum(row.n, [=](auto at, vec acc) { return add(acc, target(at)); });
      const vec s = set1(mass / total);
      for_each(row.n,
               [=](auto at) { at.store(row.d, mul(w, sub(mul(s, vexp(sub(at.load(row.p), top))), target(at)))); });
    }
    return loss;
  }
  const vec total = set1(sum(row.n, [=](auto at, vec acc) { return add(acc, at.load(row.p)); }));
  const float loss = sum(row.n, [=](auto at, vec acc) {
    return fnma(target(at), vlog(clamp(div(at.load(row.p), total), kClipLow, kClipHigh)), acc);
  });
  if (row.d) {
    // g_j = -y_j / q_j for q = p / total; d loss/d p_i = (g_i - sum of g_j q_j) / total.
    const vec dot = set1(
        sum(row.n, [=](auto at, vec acc) { return add(acc, inside_clip(div(at.load(row.p), total), target(at))); }));
    for_each(row.n, [=](auto at) {
      const vec q = div(at.load(row.p), total);
      at.store(row.d, mul(w, div(sub(dot, inside_clip(q, div(target(at), q))), total)));
    });
  }
  return loss;
}

SEQCORE_INLINE float sparse_row(const LossRow& row, bool from_logits) {
  const float at_label = row.p[row.label];
  if (from_logits) {
    const float top = row_max(row.n, row.p);
    const float total = sum(row.n, [=](auto at, vec acc) { return add(acc, vexp(sub(at.load(row.p), set1(top)))); });
    if (row.d) {
      const vec w = set1(row.weight);
      for_each(row.n,
               [=](auto at) { at.store(row.d, mul(w, div(vexp(sub(at.load(row.p), set1(top))), set1(total)))); });
      row.d[row.label] -= row.weight;
    }
    return first(vlog(set1(total))) - (at_label - top);
  }
  const float total = sum(row.n, [=](auto at, vec acc) { return add(acc, at.load(row.p)); });
  const vec q = set1(at_label / total);
  if (row.d) {
    // As the categorical loss with target 1 at the label: dot is 1, or 0 where clipped.
    const float dot = first(inside_clip(q, set1(1.0f)));
    const vec other = set1(row.weight * (dot / total));
    for_each(row.n, [=](auto at) { at.store(row.d, other); });
    row.d[row.label] = row.weight * ((dot - first(inside_clip(q, div(set1(1.0f), q)))) / total);
  }
  return first(neg(vlog(clamp(q, kClipLow, kClipHigh))));
}

// max(neg - pos + 1, 0): pos = sum of y p, neg = the largest (1 - y) p, whose gradient those that reach it share.
float categorical_hinge_row(const LossRow& row) {
  const vec one = set1(1.0f);
  const auto other = [=](auto at) { return mul(sub(one, at.load(row.y)), at.load(row.p)); };
  const float pos = sum(row.n, [=](auto at, vec acc) { return fma(at.load(row.y), at.load(row.p), acc); });
  const float neg = tree(fold(row.n, -kInfinity, [=](auto at, vec acc) { return max(other(at), acc); }),
                         [](float a, float b) { return a > b ? a : b; });
  const float margin = neg - pos + 1.0f;
  const vec top = set1(neg);
  if (row.d) {
    const vec w = set1(margin > 0.0f ? row.weight : 0.0f);
    const vec equals =
        set1(sum(row.n, [=](auto at, vec acc) { return add(acc, select(eq(other(at), top), one, zero())); }));
    for_each(row.n, [=](auto at) {
      const vec y = at.load(row.y);
      const vec share = select(eq(other(at), top), div(sub(one, y), equals), zero());
      at.store(row.d, mul(w, sub(share, y)));
    });
  }
  return margin <= 0.0f ? 0.0f : margin;  // NaN stays
}

// -sum of y p / (|y| |p|), norms of at least 1e-7.
float cosine_row(const LossRow& row) {
  const auto inverse_norm = [=](const float* x) {
    const vec squares = set1(sum(row.n, [=](auto at, vec acc) { return fma(at.load(x), at.load(x), acc); }));
    return min(set1(1.0f / kClipLow), div(set1(1.0f), sqrt(squares)));
  };
  const vec by_y = inverse_norm(row.y), by_p = inverse_norm(row.p);
  const vec dot = set1(
      sum(row.n, [=](auto at, vec acc) { return fma(mul(at.load(row.y), by_y), mul(at.load(row.p), by_p), acc); }));
  if (row.d) {
    const vec w = mul(set1(row.weight), by_p);
    const vec turned = select(lt(by_p, set1(1.0f / kClipLow)), dot, zero());  // a short p's norm is a constant
    for_each(row.n, [=](auto at) {
      const vec y = mul(at.load(row.y), by_y), p = mul(at.load(row.p), by_p);
      at.store(row.d, mul(w, sub(mul(turned, p), y)));
    });
  }
  return -first(dot);
}

// What the focal losses are made of, as functions: inlined wherever they stand they are large.
__attribute__((noinline)) vec called_log(vec x) { return vlog(x); }
__attribute__((noinline)) vec called_exp(vec x) { return vexp(x); }

// x^e for x >= 0, below e = 0 of no less than 1e-7.
__attribute__((noinline)) vec power(vec x, float e) {
  if (e == 0.0f) return set1(1.0f);
  if (e == 1.0f) return x;
  if (e == 2.0f) return mul(x, x);
  return vexp(mul(set1(e), vlog(e < 0.0f ? max(set1(kClipLow), x) : x)));
}

// Means of weight (1 - pt)^gamma bce: pt = y p + (1-y)(1-p), bce of the clipped p.
float binary_focal_row(const LossRow& row, const LossArgs& args) {
  const float count = static_cast<float>(row.n), gamma = args.gamma;
  const bool from_logits = args.from_logits;
  const vec one = set1(1.0f);
  const vec s = set1(row.weight / count);
  const vec keep = set1(1.0f - args.label_smoothing), half = set1(0.5f * args.label_smoothing);
  const vec low = set1(args.balanced ? 1.0f - args.alpha : 1.0f);
  const vec rise = set1(args.balanced ? 2.0f * args.alpha - 1.0f : 0.0f);
  return sum(row.n,
             [=](auto at, vec acc) {
               const vec x = at.load(row.p);
               const vec y = fma(at.load(row.y), keep, half);
               const vec p = from_logits ? vsigmoid(x) : x;
               const vec q = sub(one, p), inner = clamp(p, kClipLow, kClipHigh), outer = sub(one, inner);
               const vec missed = fma(y, q, mul(sub(one, y), p));
               const vec bce = neg(fma(y, called_log(inner), mul(sub(one, y), called_log(outer))));
               const vec balance = fma(y, rise, low), factor = mul(balance, power(missed, gamma));
               if (row.d) {
                 const vec steep = mul(mul(balance, set1(gamma)), power(missed, gamma - 1.0f));
                 const vec slope = fma(mul(steep, fnma(y, set1(2.0f), one)), bce,
                                       mul(factor, inside_clip(p, div(sub(inner, y), mul(inner, outer)))));
                 at.store(row.d, mul(s, from_logits ? mul(slope, mul(p, q)) : slope));
               }
               return fma(factor, bce, acc);
             }) /
         count;
}

// Sum of -alpha y (1-q)^gamma log(q), q = p / total, clipped.
float categorical_focal_row(const LossRow& row, const LossArgs& args) {
  const float gamma = args.gamma;
  const float* alphas = args.alphas;
  const vec one = set1(1.0f), alpha = set1(args.alpha);
  const vec keep = set1(1.0f - args.label_smoothing);
  const vec rest = set1(args.label_smoothing / static_cast<float>(row.n));
  const bool from_logits = args.from_logits;
  const vec top = set1(from_logits ? row_max(row.n, row.p) : 0.0f);
  const auto mass = [=](auto at) { return from_logits ? called_exp(sub(at.load(row.p), top)) : at.load(row.p); };
  const vec total = set1(sum(row.n, [=](auto at, vec acc) { return add(acc, mass(at)); }));
  const float loss = sum(row.n, [=](auto at, vec acc) {
    const vec share = div(mass(at), total), q = clamp(share, kClipLow, kClipHigh);
    const vec y = mul(alphas ? at.load(alphas) : alpha, fma(at.load(row.y), keep, rest));
    const vec log_q = called_log(q), factor = power(sub(one, q), gamma);
    if (row.d) {  // d loss/d q, for now
      const vec steep = mul(set1(gamma), power(sub(one, q), gamma - 1.0f));
      at.store(row.d, inside_clip(share, mul(y, fma(steep, log_q, neg(div(factor, q))))));
    }
    return fnma(mul(y, factor), log_q, acc);
  });
  if (row.d) {
    // g_j = d loss/d q_j; d loss/d p_i = (g_i - sum of g_j q_j) / total.
    const vec dot = set1(sum(row.n, [=](auto at, vec acc) { return fma(at.load(row.d), div(mass(at), total), acc); }));
    const vec w = set1(row.weight);
    for_each(row.n, [=](auto at) {
      const vec away = mul(w, sub(at.load(row.d), dot));
      at.store(row.d, from_logits ? mul(away, div(mass(at), total)) : div(away, total));
    });
  }
  return loss;
}

void loss(const LossArgs& args) {
  const vec delta = set1(args.delta), epsilon = set1(kClipLow), one = set1(1.0f);
  const vec stretch = set1(args.zeros_and_ones ? 2.0f : 1.0f), shift = set1(args.zeros_and_ones ? 1.0f : 0.0f);
  const auto sign = [=](vec y) { return sub(mul(stretch, y), shift); };
  const auto miss = [=](vec p, vec y) { return max(zero(), fnma(sign(y), p, one)); };  // NaN stays
  for (std::int64_t r = 0; r < args.rows; ++r) {
    float* d = args.dpred ? args.dpred + r * args.ldd : nullptr;
    const bool skipped = args.skip && args.skip[r];
    if (d && (skipped || args.weight[r] == 0.0f)) {
      for_each(args.n, [=](auto at) { at.store(d, zero()); });
      d = nullptr;
    }
    if (skipped) {
      args.loss[r] = 0.0f;
      continue;
    }
    const LossRow row{args.n,
                      args.pred + r * args.ldp,
                      args.target ? args.target + r * args.ldt : nullptr,
                      args.labels ? args.labels[r] : 0,
                      d ? args.weight[r] : 0.0f,
                      d};
    float& out = args.loss[r];
    switch (args.kind) {
      case LossKind::mean_squared_error:
        out = regression_row(
            row, [](vec e) { return mul(e, e); }, [](vec e) { return add(e, e); });
        break;
      case LossKind::mean_absolute_error:
        out = regression_row(
            row, [](vec e) { return abs(e); },
            [](vec e) { return select(eq(e, zero()), zero(), copysign(set1(1.0f), e)); });
        break;
      case LossKind::huber:
        out = regression_row(
            row,
            [=](vec e) {
              const vec a = abs(e);
              const vec outer = mul(delta, fnma(set1(0.5f), delta, a));
              return select(gt(a, delta), outer, mul(mul(set1(0.5f), e), e));
            },
            [=](vec e) { return min(delta, max(neg(delta), e)); });
        break;
      case LossKind::log_cosh:
        out = regression_row(
            row,
            [](vec e) {
              const vec a = abs(e);
              return sub(add(a, vlog1p(vexp(mul(set1(-2.0f), a)))), set1(kLn2));
            },
            [](vec e) { return vtanh(e); });
        break;
      case LossKind::mean_absolute_percentage_error:
        out = pair_row(
            row, true, [=](vec p, vec y) { return div(mul(set1(100.0f), abs(sub(p, y))), max(abs(y), epsilon)); },
            [=](vec p, vec y) {
              const vec e = sub(p, y);
              return select(eq(e, zero()), zero(), div(copysign(set1(100.0f), e), max(abs(y), epsilon)));
            });
        break;
      case LossKind::mean_squared_logarithmic_error: {
        const auto error = [=](vec p, vec y) { return sub(vlog1p(max(p, epsilon)), vlog1p(max(y, epsilon))); };
        out = pair_row(
            row, true,
            [=](vec p, vec y) {
              const vec e = error(p, y);
              return mul(e, e);
            },
            [=](vec p, vec y) {
              const vec e = error(p, y);
              return select(lt(p, epsilon), zero(), div(add(e, e), add(p, set1(1.0f))));
            });
        break;
      }
      case LossKind::poisson:
        out = pair_row(
            row, true, [=](vec p, vec y) { return fnma(y, vlog(add(p, epsilon)), p); },
            [=](vec p, vec y) { return sub(set1(1.0f), div(y, add(p, epsilon))); });
        break;
      case LossKind::kl_divergence: {
        const auto inside = [=](vec v) { return min(max(v, epsilon), set1(1.0f)); };
        out = pair_row(
            row, false,
            [=](vec p, vec y) {
              const vec t = inside(y);
              return mul(t, vlog(div(t, inside(p))));
            },
            [=](vec p, vec y) {
              return select(mor(lt(p, epsilon), gt(p, set1(1.0f))), zero(), neg(div(inside(y), p)));
            });
        break;
      }
      case LossKind::hinge:
        out = pair_row(row, true, miss,
                       [=](vec p, vec y) { return select(gt(miss(p, y), zero()), neg(sign(y)), zero()); });
        break;
      case LossKind::squared_hinge:
        out = pair_row(
            row, true,
            [=](vec p, vec y) {
              const vec m = miss(p, y);
              return mul(m, m);
            },
            [=](vec p, vec y) { return mul(mul(set1(-2.0f), miss(p, y)), sign(y)); });
        break;
      case LossKind::categorical_hinge:
        out = categorical_hinge_row(row);
        break;
      case LossKind::cosine_similarity:
        out = cosine_row(row);
        break;
      case LossKind::binary_focal_crossentropy:
        out = binary_focal_row(row, args);
        break;
      case LossKind::categorical_focal_crossentropy:
        out = categorical_focal_row(row, args);
        break;
      case LossKind::binary_crossentropy:
        out = binary_row(row, args.from_logits, args.label_smoothing);
        break;
      case LossKind::categorical_crossentropy:
        out = categorical_row(row, args.from_logits, args.label_smoothing);
        break;
      case LossKind::sparse_categorical_crossentropy:
        out = sparse_row(row, args.from_logits);
        break;
    }
  }
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
