// Batch normalisation: each column by its statistics over rows. Included by isa.inl, once per ISA.

namespace seqcore::SEQCORE_ISA {
namespace {

// Over the listed rows, in blocks of kGradBlock: acc = body(row, acc) from 0 in each, block sums added in order.
template <class F>
SEQCORE_INLINE vec sum_of_rows(std::int64_t m, const std::int32_t* rows, F body) {
  vec total = zero();
  for (std::int64_t i = 0; i < m;) {
    const std::int64_t end = m - i < kGradBlock ? m : i + kGradBlock;
    vec block = zero();
    for (; i < end; ++i) block = body(rows ? rows[i] : i, block);
    total = add(total, block);
  }
  return total;
}

// mean = sum x / m, variance = sum (x - mean)^2 / m, both 0 of no rows.
void batch_moments(const BatchMomentsArgs& a) {
  const vec count = set1(static_cast<float>(a.m > 0 ? a.m : 1));
  for_each(a.n, [=](auto at) {
    const auto x = [=](std::int64_t r) { return at.load(a.x + r * a.ldx); };
    const vec sum = sum_of_rows(a.m, a.rows, [=](std::int64_t r, vec acc) { return add(acc, x(r)); });
    const vec mean = div(sum, count);
    const vec squares = sum_of_rows(a.m, a.rows, [=](std::int64_t r, vec acc) {
      const vec d = sub(x(r), mean);
      return fma(d, d, acc);
    });
    at.store(a.mean, mean);
    at.store(a.variance, div(squares, count));
  });
}

// inv_std = 1 / sqrt(variance + epsilon), scale = inv_std gamma.
void batch_norm_scale(std::int64_t n, const float* variance, float epsilon, const float* gamma, float* inv_std,
                      float* scale) {
  for_each(n, [=](auto at) {
    const vec inverse = div(set1(1.0f), sqrt(add(at.load(variance), set1(epsilon))));
    at.store(inv_std, inverse);
    at.store(scale, gamma ? mul(inverse, at.load(gamma)) : inverse);
  });
}

// y = (x - mean) scale + beta. x may be y.
void batch_norm(const BatchNormArgs& a) {
  for (std::int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.ldx;
    float* y = a.y + r * a.ldy;
    for_each(a.n, [=](auto at) {
      const vec d = sub(at.load(x), at.load(a.mean));
      at.store(y, a.beta ? fma(d, at.load(a.scale), at.load(a.beta)) : mul(d, at.load(a.scale)));
    });
  }
}

// With xhat = (x - mean) inv_std: dbeta = sum dy, dgamma = sum dy xhat, over the listed rows.
void batch_norm_sums(const BatchNormSumsArgs& a) {
  for_each(a.n, [=](auto at) {
    const vec mean = at.load(a.mean), inv_std = at.load(a.inv_std);
    const auto dy = [=](std::int64_t r) { return at.load(a.dy + r * a.lddy); };
    const vec sum = sum_of_rows(a.m, a.rows, [=](std::int64_t r, vec acc) { return add(acc, dy(r)); });
    const vec product = sum_of_rows(a.m, a.rows, [=](std::int64_t r, vec acc) {
      return fma(dy(r), mul(sub(at.load(a.x + r * a.ldx), mean), inv_std), acc);
    });
    at.store(a.dbeta, sum);
    at.store(a.dgamma, product);
  });
}

// dx = scale (dy - (dbeta + xhat dgamma) share) where the row is one of those that the statistics are of, else
// dx = scale dy. dx may be dy.
void batch_norm_backward(const BatchNormGradArgs& a) {
  const vec share = set1(a.share);
  for (std::int64_t r = 0; r < a.rows; ++r) {
    const float *x = a.x + r * a.ldx, *dy = a.dy + r * a.lddy;
    float* dx = a.dx + r * a.lddx;
    const bool counts = a.share != 0 && (!a.mask || a.mask[r]);
    for_each(a.n, [=](auto at) {
      vec d = at.load(dy);
      if (counts) {
        const vec xhat = mul(sub(at.load(x), at.load(a.mean)), at.load(a.inv_std));
        d = fnma(fma(xhat, at.load(a.dgamma), at.load(a.dbeta)), share, d);
      }
      at.store(dx, mul(at.load(a.scale), d));
    });
  }
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
