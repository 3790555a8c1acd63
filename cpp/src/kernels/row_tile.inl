// Products of a single row. With one row a tile has only as many chains as vectors of columns: two strips of columns run
// side by side, so that the loads of their weights, and not the latency of a multiply-add, are what is waited for. Included
// after tile.inl.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int kRowVectors = 8;     // of strip 0, at most
constexpr int kVectorsBeside = 4;  // of strip 1, at most

// What a side adds to a strip's chains, N vectors of them. Vector j is in panel j / 2; the last one is a panel of its own where
// N is odd. Scaled: int32 sums that start from the strip's own, then scale of the row * scale of the column * sum, as
// add_scaled adds it.
template <class Kind, int N>
struct StripSums {
  const float* scale;  // [N * W], then as many to start from: before scaled words
  const float* w;
  std::ptrdiff_t panel;
  vec sum[N > 0 ? N : 1];

  SEQCORE_INLINE StripSums(const float* packed, std::int64_t k, const vec* chains)
      : scale(packed), w(packed + (Kind::scaled ? 2 * N * W : 0)), panel(k * kPanel) {
    unrolled<N>([&](auto j) { sum[j.value] = Kind::scaled ? load(scale + (N + j.value) * W) : chains[j.value]; });
  }
  SEQCORE_INLINE void accumulate(typename Kind::Word v, std::int64_t k) {
    unrolled<N>([&](auto j) {
      constexpr bool alone = j.value + 1 == N && N % 2;
      const vec b = load(w + j.value / 2 * panel + (alone ? k * W : k * kPanel + j.value % 2 * W));
      sum[j.value] = Kind::accumulate(v, b, sum[j.value]);
    });
  }
  SEQCORE_INLINE void finish(const float* row_scale, vec* chains) const {
    unrolled<N>([&](auto j) {
      if constexpr (Kind::scaled)
        chains[j.value] =
            fma(mul(set1(*row_scale), load(scale + j.value * W)), to_float(bits(sum[j.value])), chains[j.value]);
      else
        chains[j.value] = sum[j.value];
    });
  }
};

// Strip 0 has N0 vectors, strip 1 N1; `twice` as RowProduct says.
template <class Kind, int N0, int N1, bool twice>
void row_tile(const RowProduct& t) {
  vec chain0[N0], chain1[N1 > 0 ? N1 : 1];
  unrolled<N0>([&](auto j) { chain0[j.value] = load(t.init[0] + j.value * W); });
  unrolled<N1>([&](auto j) { chain1[j.value] = load(t.init[1] + j.value * W); });
  for (int side = 0; side < 2; ++side) {
    const float* const a = t.a[side];
    const std::int64_t count = t.k[side];
    if (count > 0) {
      StripSums<Kind, N0> sums0(t.w[side][0], count, chain0);
      StripSums<Kind, N1> sums1(t.w[side][1], count, chain1);
      each_number<Kind>(
          count, [&](std::int64_t k) __attribute__((always_inline)) {
            const typename Kind::Word v = Kind::broadcast(a + k);
            sums0.accumulate(v, k);
            sums1.accumulate(v, k);
          });
      sums0.finish(t.scale[side], chain0);
      sums1.finish(t.scale[side], chain1);
    }
    if constexpr (twice)
      if (side == 0)
        unrolled<N1>([&](auto j) {
          store(t.out[1] + j.value * W, chain1[j.value]);
          chain1[j.value] = load(t.init[2] + j.value * W);
        });
  }
  float *const out0 = t.out[0], *const out1 = t.out[twice ? 2 : 1];
  unrolled<N0>([&](auto j) { store(out0 + j.value * W, chain0[j.value]); });
  unrolled<N1>([&](auto j) { store(out1 + j.value * W, chain1[j.value]); });
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
