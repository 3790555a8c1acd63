// Activations on rows, softmax and log_softmax among them. Included by isa.inl, once per ISA.
//
// softmax subtracts the row's largest element, as Keras does: a row that holds NaN or +inf, or nothing but -inf, gives
// NaN throughout; a -inf beside finite elements gives 0 (log_softmax: -inf).

namespace seqcore::SEQCORE_ISA {
namespace {

// y = softmax(x): x may be y. Returns nothing but y.
SEQCORE_INLINE void softmax_row(std::int64_t n, const float* x, float* y) {
  const vec top = set1(row_max(n, x));
  const vec total = set1(sum(n, [=](auto at, vec acc) {
    const vec e = vexp(sub(at.load(x), top));
    at.store(y, e);
    return add(acc, e);
  }));
  for_each(n, [=](auto at) { at.store(y, div(at.load(y), total)); });
}

// log(sum of e^(x - top)).
SEQCORE_INLINE float log_sum_exp(std::int64_t n, const float* x, float top) {
  const float total = sum(n, [=](auto at, vec acc) { return add(acc, vexp(sub(at.load(x), set1(top)))); });
  return first(vlog(set1(total)));
}

// y = (x - top) - log(sum of e^(x - top)): x may be y.
SEQCORE_INLINE void log_softmax_row(std::int64_t n, const float* x, float* y) {
  const float top = row_max(n, x);
  const float log_sum = log_sum_exp(n, x, top);
  for_each(n, [=](auto at) { at.store(y, sub(sub(at.load(x), set1(top)), set1(log_sum))); });
}

void activate(Activation a, std::int64_t rows, std::int64_t n, const float* x, std::ptrdiff_t ldx, float* y,
              std::ptrdiff_t ldy) {
  for (std::int64_t r = 0; r < rows; ++r, x += ldx, y += ldy) {
    if (a == Activation::softmax) {
      softmax_row(n, x, y);
    } else if (a == Activation::log_softmax) {
      log_softmax_row(n, x, y);
    } else {
      for_each<Four>(n, [=](auto at) { at.store(y, activate(a, at.load(x))); });
    }
  }
}

// dx = dy activation'(x); softmax: dx = y (dy - sum of dy y); log_softmax: dx = dy - e^y sum of dy.
void activate_backward(Activation a, std::int64_t rows, std::int64_t n, const float* cache, std::ptrdiff_t ldc,
                       const float* dy, std::ptrdiff_t lddy, float* dx, std::ptrdiff_t lddx) {
  for (std::int64_t r = 0; r < rows; ++r, cache += ldc, dy += lddy, dx += lddx) {
    if (a == Activation::softmax) {
      const vec dot = set1(sum(n, [=](auto at, vec acc) { return fma(at.load(dy), at.load(cache), acc); }));
      for_each(n, [=](auto at) { at.store(dx, mul(at.load(cache), sub(at.load(dy), dot))); });
    } else if (a == Activation::log_softmax) {
      const vec total = set1(sum(n, [=](auto at, vec acc) { return add(acc, at.load(dy)); }));
      for_each(n, [=](auto at) { at.store(dx, fnma(vexp(at.load(cache)), total, at.load(dy))); });
    } else {
      for_each(n, [=](auto at) { at.store(dx, mul(at.load(dy), activation_gradient(a, at.load(cache)))); });
    }
  }
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
