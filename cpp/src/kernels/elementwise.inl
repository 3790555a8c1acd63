// The table's element-wise kernels and sums over arrays. Included by isa.inl, once per ISA.

namespace seqcore::SEQCORE_ISA {
namespace {

// y = a + b
void add(std::int64_t n, const float* a, const float* b, float* y) {
  for_each(n, [=](auto at) { at.store(y, add(at.load(a), at.load(b))); });
}
// y = a * b
void multiply(std::int64_t n, const float* a, const float* b, float* y) {
  for_each(n, [=](auto at) { at.store(y, mul(at.load(a), at.load(b))); });
}
// y = s a
void scale(std::int64_t n, float s, const float* a, float* y) {
  for_each(n, [=](auto at) { at.store(y, mul(set1(s), at.load(a))); });
}
// y = fma(s, x, y)
void axpy(std::int64_t n, float s, const float* x, float* y) {
  for_each(n, [=](auto at) { at.store(y, fma(set1(s), at.load(x), at.load(y))); });
}
// y = min(max(y, lo), hi), NaN stays NaN
void clip(std::int64_t n, float lo, float hi, float* y) {
  for_each(n, [=](auto at) { at.store(y, clamp(at.load(y), lo, hi)); });
}

// Float sums of blocks of kSumBlock elements, added in double in order.
template <class F>
SEQCORE_INLINE double block_sums(std::int64_t n, const float* x, F body) {
  double total = 0.0;
  for (std::int64_t i = 0; i < n; i += kSumBlock) {
    const std::int64_t m = n - i < kSumBlock ? n - i : kSumBlock;
    const float* p = x + i;
    total += static_cast<double>(sum(m, [=](auto at, vec acc) { return body(at.load(p), acc); }));
  }
  return total;
}
double sum_squares(std::int64_t n, const float* x) {
  return block_sums(n, x, [](vec v, vec acc) { return fma(v, v, acc); });
}
double sum_abs(std::int64_t n, const float* x) {
  return block_sums(n, x, [](vec v, vec acc) { return add(abs(v), acc); });
}

// Eight chains of additions: loads are what it waits for.
float read_all(std::int64_t n, const float* x) {
  constexpr int kChains = 8;
  vec acc[kChains];
  for (vec& a : acc) a = zero();
  for (std::int64_t i = 0; i + kChains * W <= n; i += kChains * W)
    for (int c = 0; c < kChains; ++c) acc[c] = add(acc[c], load(x + i + c * W));
  vec total = acc[0];
  for (int c = 1; c < kChains; ++c) total = add(total, acc[c]);
  float lanes[W];
  store(lanes, total);
  for (int l = 1; l < W; ++l) lanes[0] += lanes[l];
  return lanes[0];
}

// y[c] = or += sum over rows of x[r][c]: blocks of kGradBlock rows, each a chain from 0, added in order.
void column_sums(std::int64_t rows, std::int64_t n, const float* x, std::ptrdiff_t ldx, bool accumulate, float* y) {
  for_each(n, [=](auto at) {
    vec total = accumulate ? at.load(y) : zero();
    for (std::int64_t r = 0; r < rows;) {
      const std::int64_t end = rows - r < kGradBlock ? rows : r + kGradBlock;
      vec block = zero();
      for (; r < end; ++r) block = add(block, at.load(x + r * ldx));
      total = add(total, block);
    }
    at.store(y, total);
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
