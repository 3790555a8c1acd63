// Activations on rows, softmax, log_softmax and sparsemax among them. Included by isa.inl, once per ISA.
//
// softmax subtracts the row's largest element, as Keras does: a row that holds NaN or +inf, or nothing but -inf, gives
// NaN throughout; a -inf beside finite elements gives 0 (log_softmax: -inf). sparsemax likewise.

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

// y = max(x - top - t, 0), with the t for which y adds up to 1 (Martins and Astudillo, 2016): x may be y. t is found by
// Michelot's steps (1986): it is at least -1; of the elements above the last t, the next is their (sum - 1) / count,
// which is no smaller, until none falls out.
__attribute__((noinline)) void sparsemax_row(std::int64_t n, const float* x, float* y) {
  const vec top = set1(row_max(n, x));
  float t = -1.0f, count = kInfinity;
  while (true) {
    const vec last = set1(t);
    const float above =
        sum(n, [=](auto at, vec acc) { return add(acc, select(gt(sub(at.load(x), top), last), set1(1.0f), zero())); });
    const float total = sum(n, [=](auto at, vec acc) {
      const vec d = sub(at.load(x), top);
      return add(acc, select(le(d, last), zero(), d));  // NaN is added
    });
    if (!(above < count)) break;
    count = above;
    t = (total - 1.0f) / count;
  }
  for_each(n, [=](auto at) { at.store(y, max(zero(), sub(sub(at.load(x), top), set1(t)))); });
}

void activate(Activation a, std::int64_t rows, std::int64_t n, const float* x, std::ptrdiff_t ldx, float* y,
              std::ptrdiff_t ldy) {
  for (std::int64_t r = 0; r < rows; ++r, x += ldx, y += ldy) {
    if (a == Activation::softmax) {
      softmax_row(n, x, y);
    } else if (a == Activation::log_softmax) {
      log_softmax_row(n, x, y);
    } else if (a == Activation::sparsemax) {
      sparsemax_row(n, x, y);
    } else {
      for_each<Four>(n, [=](auto at) { at.store(y, activate(a, at.load(x))); });
    }
  }
}

// As activate_backward says.
__attribute__((noinline)) void sparsemax_row_backward(std::int64_t n, const float* cache, const float* dy, float* dx) {
  const auto where = [=](auto at, vec v) { return select(gt(at.load(cache), zero()), v, zero()); };
  const float count = sum(n, [=](auto at, vec acc) { return add(acc, where(at, set1(1.0f))); });
  const float total = sum(n, [=](auto at, vec acc) { return add(acc, where(at, at.load(dy))); });
  const vec mean = set1(total / count);
  for_each(n, [=](auto at) { at.store(dx, where(at, sub(at.load(dy), mean))); });
}

// dx = dy activation'(x); softmax: dx = y (dy - sum of dy y); log_softmax: dx = dy - e^y sum of dy; sparsemax: dx = dy -
// (mean of dy where y > 0) there, else 0.
void activate_backward(Activation a, std::int64_t rows, std::int64_t n, const float* cache, std::ptrdiff_t ldc,
                       const float* dy, std::ptrdiff_t lddy, float* dx, std::ptrdiff_t lddx) {
  for (std::int64_t r = 0; r < rows; ++r, cache += ldc, dy += lddy, dx += lddx) {
    if (a == Activation::softmax) {
      const vec dot = set1(sum(n, [=](auto at, vec acc) { return fma(at.load(dy), at.load(cache), acc); }));
      for_each(n, [=](auto at) { at.store(dx, mul(at.load(cache), sub(at.load(dy), dot))); });
    } else if (a == Activation::log_softmax) {
      const vec total = set1(sum(n, [=](auto at, vec acc) { return add(acc, at.load(dy)); }));
      for_each(n, [=](auto at) { at.store(dx, fnma(vexp(at.load(cache)), total, at.load(dy))); });
    } else if (a == Activation::sparsemax) {
      sparsemax_row_backward(n, cache, dy, dx);
    } else {
      for_each(n, [=](auto at) { at.store(dx, mul(at.load(dy), activation_gradient(a, at.load(cache)))); });
    }
  }
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
