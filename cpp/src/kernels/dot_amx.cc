// Products of words in tiles of AMX. Used through dispatch.h only.
//
// bfloat16 in the order of the tiles (simd/amx.h), in blocks of 16 words from the start of each segment. A single row is
// made of fused multiply-adds in the same order: a tile would be filled for one sixteenth, and loading it may cost more
// than the products. So is everything where the system does not let a process have tiles.
#define SEQCORE_ISA amx
#define SEQCORE_AVX512_VNNI
#include "simd/avx512.h"

#include "simd/amx.h"

#include "kernels/dots.h"

#include "kernels/tile.inl"

namespace seqcore::SEQCORE_ISA {

namespace {

// The first of vector v's words of a segment, and the floats from one k to the next.
struct Columns {
  const float* w;
  std::ptrdiff_t row;
};
SEQCORE_INLINE Columns columns_of(const Operand& o, std::int64_t v, std::int64_t vectors) {
  return {o.w + (v >> 1) * (o.k * kPanel) + (v & 1) * W, (v & 1) == 0 && v + 1 == vectors ? W : 2 * W};
}

// ------------------------------------------------------------------------------------------------------ a single row

// P panels of U vectors from v on.
template <int P, int U>
void row_chains(const Product& t, std::int64_t row, std::int64_t v) {
  alignas(64) float low[kTileWords], high[kTileWords];
  vec sum[P][U];
  for (int p = 0; p < P; ++p)
    for (int u = 0; u < U; ++u) sum[p][u] = load(t.init + row * t.init_row + (v + p * 2 + u) * W);
  for (int s = 0; s < t.segments; ++s) {
    const Operand& o = t.a[s];
    const float *a = o.base + o.offset[row], *w = o.w + v * W * o.k;
    const std::ptrdiff_t panel = o.k * kPanel;
    for (std::int64_t left = o.k; left > 0; left -= kTileWords, a += kTileWords) {
      const halves both = halves_of(load(a));
      store(low, both.even);
      store(high, both.odd);
      vec even[P][U], odd[P][U];
      for (int p = 0; p < P; ++p)
        for (int u = 0; u < U; ++u) even[p][u] = odd[p][u] = zero();
      const std::int64_t count = least(kTileWords, left);
#pragma GCC unroll 4
      for (std::int64_t i = 0; i < count; ++i, w += U * W) {
        const vec x_low = set1(low[i]), x_high = set1(high[i]);
        for (int p = 0; p < P; ++p)
          for (int u = 0; u < U; ++u) {
            const halves words = halves_of(load(w + p * panel + u * W));
            even[p][u] = fma(x_low, words.even, even[p][u]);
            odd[p][u] = fma(x_high, words.odd, odd[p][u]);
          }
      }
      for (int p = 0; p < P; ++p)
        for (int u = 0; u < U; ++u) sum[p][u] = add(sum[p][u], add(even[p][u], odd[p][u]));
    }
  }
  for (int p = 0; p < P; ++p)
    for (int u = 0; u < U; ++u) store(t.out + row * t.out_row + (v + p * 2 + u) * W, sum[p][u]);
}

void row_by_row(const Product& t, std::int64_t m, std::int64_t vectors) {
  for (std::int64_t row = 0; row < m; ++row) {
    std::int64_t v = 0;
    for (; v + 4 <= vectors; v += 4) row_chains<2, 2>(t, row, v);
    for (; v + 2 <= vectors; v += 2) row_chains<1, 2>(t, row, v);
    if (v < vectors) row_chains<1, 1>(t, row, v);
  }
}

// Each chain of a row by itself.
void strip_by_strip(const RowProduct& r) {
  constexpr std::ptrdiff_t kNoOffset[1] = {0};
  const auto chain = [&](int strip, int side, int end, const float* init, float* out) {
    Product t;
    t.segments = 0;
    for (; side < end; ++side) t.a[t.segments++] = {r.a[side], kNoOffset, r.k[side], r.w[side][strip]};
    t.init = init;
    t.init_row = 0;
    t.out = out;
    t.out_row = 0;
    row_by_row(t, 1, r.vectors[strip]);
  };
  chain(0, 0, 2, r.init[0], r.out[0]);
  if (r.vectors[1] == 0) return;
  chain(1, 0, r.twice ? 1 : 2, r.init[1], r.out[1]);
  if (r.twice) chain(1, 1, 2, r.init[2], r.out[2]);
}

// ------------------------------------------------------------------------------------------------------------- tiles

constexpr int kRowTile = 4, kColumnTile = 6;  // the first of two registers; those before are sums

struct BFloat16Tiles {
  static constexpr bool starts_from_init = true;
  template <int sum, int a, int b>
  static SEQCORE_INLINE void dot() {
    tile_dot2<sum, a, b>();
  }
};
struct Int8Tiles {
  static constexpr bool starts_from_init = false;  // init takes an offset away that signed bytes do not have
  template <int sum, int a, int b>
  static SEQCORE_INLINE void dot() {
    tile_dot4<sum, a, b>();
  }
};

// R tiles of `rows` rows from `row` on, V vectors from v on.
template <class Kind, int R, int V>
void tile_block(const Product& t, std::int64_t row, std::int64_t rows, std::int64_t v, std::int64_t vectors) {
  static_assert(R <= 2 && R * V <= 4);
  alignas(64) float rest[V][kTileWords * W];
  unrolled<R>([&](auto r) {
    unrolled<V>([&](auto j) {
      constexpr int sum = decltype(r)::value * V + decltype(j)::value;
      if constexpr (Kind::starts_from_init)
        tile_load<sum>(t.init + (row + decltype(r)::value * rows) * t.init_row + (v + decltype(j)::value) * W,
                       t.init_row);
      else
        tile_zero<sum>();
    });
  });
  for (int s = 0; s < t.segments; ++s) {
    const Operand& o = t.a[s];
    const std::ptrdiff_t a_row = rows > 1 ? o.offset[row + 1] - o.offset[row] : 0;
    const float* const a = o.base + o.offset[row];
    const auto block = [&](std::int64_t k, const Columns* c) {
      unrolled<R>(
          [&](auto r) { tile_load<kRowTile + decltype(r)::value>(a + decltype(r)::value * rows * a_row + k, a_row); });
      unrolled<V>([&](auto j) {
        constexpr int column = kColumnTile + decltype(j)::value % 2;
        const Columns& from = c[decltype(j)::value];
        tile_load<column>(from.w, from.row);
        unrolled<R>([&](auto r) {
          Kind::template dot<decltype(r)::value * V + decltype(j)::value, kRowTile + decltype(r)::value, column>();
        });
      });
    };
    Columns c[V];
    for (int j = 0; j < V; ++j) c[j] = columns_of(o, v + j, vectors);
    std::int64_t k = 0;
    for (; k + kTileWords <= o.k; k += kTileWords) {
      block(k, c);
      for (int j = 0; j < V; ++j) c[j].w += kTileWords * c[j].row;
    }
    if (k == o.k) continue;
    for (int j = 0; j < V; ++j) {
      for (std::int64_t i = 0; i < kTileWords; ++i)
        store(rest[j] + i * W, k + i < o.k ? load(c[j].w + i * c[j].row) : zero());
      c[j] = {rest[j], W};
    }
    block(k, c);
  }
  unrolled<R>([&](auto r) {
    unrolled<V>([&](auto j) {
      tile_store<decltype(r)::value * V + decltype(j)::value>(
          t.out + (row + decltype(r)::value * rows) * t.out_row + (v + decltype(j)::value) * W, t.out_row);
    });
  });
}

// Vectors from v to `end`, as many at a time as there are sums for.
template <class Kind, int R, int V = 4 / R>
void tile_rows(const Product& t, std::int64_t row, std::int64_t rows, std::int64_t v, std::int64_t end,
               std::int64_t vectors) {
  for (; v + V <= end; v += V) tile_block<Kind, R, V>(t, row, rows, v, vectors);
  if constexpr (V > 1) tile_rows<Kind, R, V / 2>(t, row, rows, v, end, vectors);
}

// Rows go into tiles of equal height, and what is left of them into a lower one, after the others. All of one height meet
// two vectors of columns before the next two, so that these are read from beyond L1 but once.
template <class Kind>
void in_tiles(const Product& t, std::int64_t m, std::int64_t vectors) {
  const std::int64_t pieces = (m + kTileWords - 1) / kTileWords, rows = (m + pieces - 1) / pieces;
  const std::int64_t whole = m / rows * rows, step = pieces == 1 ? 4 : 2;
  tiles_begin(kColumnTile, static_cast<int>(rows));
  for (std::int64_t v = 0; v < vectors; v += step) {
    const std::int64_t end = least(v + step, vectors);
    std::int64_t row = 0;
    for (; row + 2 * rows <= whole; row += 2 * rows) tile_rows<Kind, 2>(t, row, rows, v, end, vectors);
    if (row < whole) tile_rows<Kind, 1>(t, row, rows, v, end, vectors);
  }
  if (whole < m) {
    tiles_begin(kColumnTile, static_cast<int>(m - whole));
    tile_rows<Kind, 1>(t, whole, m - whole, 0, vectors, vectors);
  }
  tiles_end();
}

SEQCORE_INLINE bool use_tiles(std::int64_t m) { return m > 1 && __atomic_load_n(&allowed, __ATOMIC_RELAXED); }

}  // namespace

bool allowed = false;

void bfloat16(const Product& t, std::int64_t m, std::int64_t vectors) {
  if (use_tiles(m))
    in_tiles<BFloat16Tiles>(t, m, vectors);
  else
    row_by_row(t, m, vectors);
}
RowTile bfloat16_row(const RowProduct&) { return strip_by_strip; }
void int8(const Product& t, std::int64_t m, std::int64_t vectors) {
  if (use_tiles(m))
    in_tiles<Int8Tiles>(t, m, vectors);
  else
    avx512_vnni::dot(t, m, vectors);
}

}  // namespace seqcore::SEQCORE_ISA
