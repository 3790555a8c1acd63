// Products of a single row. With one row a tile has only as many chains as vectors of columns: two strips of columns run
// side by side, so that the loads of their weights, and not the latency of a multiply-add, are what is waited for. Included
// after tile.inl.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int kRowVectors = 8;     // of strip 0, at most
constexpr int kVectorsBeside = 4;  // of strip 1, at most

// Strip 0 has N0 vectors, strip 1 N1; `twice` as RowProduct says.
template <class Kind, int N0, int N1, bool twice>
void row_tile(const RowProduct& t) {
  vec acc0[N0], acc1[N1 > 0 ? N1 : 1];
  unrolled<N0>([&](auto j) { acc0[j.value] = load(t.init[0] + j.value * W); });
  unrolled<N1>([&](auto j) { acc1[j.value] = load(t.init[1] + j.value * W); });
  for (int side = 0; side < 2; ++side) {
    const float* const a = t.a[side];
    const std::int64_t count = t.k[side];
    const std::ptrdiff_t panel = count * kPanel;
    const float *const w0 = t.w[side][0], *const w1 = t.w[side][1];
    // Vector j of N: the last is a panel of its own where N is odd.
    const auto at = [&](const float* w, std::int64_t k, int j, int n) __attribute__((always_inline)) {
      return load(w + j / 2 * panel + (j + 1 == n && n % 2 ? k * W : k * kPanel + j % 2 * W));
    };
#pragma GCC unroll kUnroll
    for (std::int64_t k = 0; k < count; ++k) {
      const typename Kind::Word v = Kind::broadcast(a + k);
      unrolled<N0>([&](auto j) { acc0[j.value] = Kind::accumulate(v, at(w0, k, j.value, N0), acc0[j.value]); });
      unrolled<N1>([&](auto j) { acc1[j.value] = Kind::accumulate(v, at(w1, k, j.value, N1), acc1[j.value]); });
    }
    if constexpr (twice)
      if (side == 0)
        unrolled<N1>([&](auto j) {
          store(t.out[1] + j.value * W, acc1[j.value]);
          acc1[j.value] = load(t.init[2] + j.value * W);
        });
  }
  float *const out0 = t.out[0], *const out1 = t.out[twice ? 2 : 1];
  unrolled<N0>([&](auto j) { store(out0 + j.value * W, acc0[j.value]); });
  unrolled<N1>([&](auto j) { store(out1 + j.value * W, acc1[j.value]); });
}

// The tile of so many vectors. REQUIRES: strip 0 has 1 to kRowVectors; strip 1 none, or up to kVectorsBeside beside the most
// that strip 0 may have, or, twice, half as many as strip 0, rounded up.
template <class Kind>
RowTile row_tile_of(const RowProduct& t) {
  RowTile found = nullptr;
  unrolled<kRowVectors>([&](auto i) {
    constexpr int n = i.value + 1;
    if (t.vectors[0] == n) found = t.twice ? &row_tile<Kind, n, (n + 1) / 2, true> : &row_tile<Kind, n, 0, false>;
  });
  unrolled<kVectorsBeside>([&](auto i) {
    constexpr int n = i.value + 1;
    if (!t.twice && t.vectors[1] == n) found = &row_tile<Kind, kRowVectors, n, false>;
  });
  return found;
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
