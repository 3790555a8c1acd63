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

void loss(const LossArgs& args) {
  const vec delta = set1(args.delta), epsilon = set1(kClipLow);
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
