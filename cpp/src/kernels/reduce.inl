// Loops over a row of floats and reductions along it. Included by isa.inl, once per ISA.
//
// A body is called with a place in the row, One (or several) for full vectors or `Part` for the last few elements, and
// loads and stores through it: nothing beyond the row is touched.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int kLanes = 16;  // virtual lanes of a reduction, on every ISA

struct Part {
  std::int64_t i, n;
  SEQCORE_INLINE vec load(const float* p) const { return load_n(p + i, n); }
  SEQCORE_INLINE void store(float* p, vec v) const { store_n(p + i, v, n); }
};

template <class P = One, class F>
SEQCORE_INLINE void for_each(std::int64_t n, F body) {
  const std::int64_t whole = n / W * W;
  each_place<P>(0, whole, body);
  if (whole < n) body(Part{whole, n - whole});
}

struct Lanes {
  vec v[kLanes / W];
};

// Lane l folds the elements l, l+16, … in order: acc = body(place, acc).
template <class F>
SEQCORE_INLINE Lanes fold(std::int64_t n, float init, F body) {
  Lanes acc;
  for (vec& a : acc.v) a = set1(init);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int j = 0; j < kLanes / W; ++j) acc.v[j] = body(One{i + j * W}, acc.v[j]);
  for (int j = 0; i < n; ++j, i += W) {
    const std::int64_t m = n - i < W ? n - i : W;
    acc.v[j] = select(first_n(m), body(Part{i, m}, acc.v[j]), acc.v[j]);
  }
  return acc;
}

// The tree: the upper half is combined into the lower, 16 -> 8 -> 4 -> 2 -> 1.
template <int half = kLanes / 2, class T, class F>
SEQCORE_INLINE T halve(T* x, F combine) {
  for (int l = 0; l < half; ++l) x[l] = combine(x[l], x[l + half]);
  if constexpr (half > 1) return halve<half / 2>(x, combine);
  return x[0];
}
template <class F>
SEQCORE_INLINE float tree(const Lanes& lanes, F combine) {
  float x[kLanes];
  for (int j = 0; j < kLanes / W; ++j) store(x + j * W, lanes.v[j]);
  return halve(x, combine);
}

SEQCORE_INLINE float first(vec v) {
  float x[W];
  store(x, v);
  return x[0];
}

// Sum over the row of what `body(place, acc)` adds to acc.
template <class F>
SEQCORE_INLINE float sum(std::int64_t n, F body) {
  return tree(fold(n, 0.0f, body), [](float a, float b) { return a + b; });
}

// Largest of the row, -inf of an empty one. A NaN may or may not win: what is computed from it is NaN either way.
SEQCORE_INLINE float row_max(std::int64_t n, const float* x) {
  const Lanes m = fold(n, -kInfinity, [=](auto at, vec acc) { return max(at.load(x), acc); });
  return tree(m, [](float a, float b) { return a > b ? a : b; });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
