// Products: the register tile that every product of the project runs through, the dense product and the weight
// gradients over it. Included by isa.inl, once per ISA.
//
// The tile is MR rows x NV vectors of accumulators, each one chain of fused multiply-adds over the whole summed index:
// how rows and columns are cut into tiles changes nothing in the bits. Its rows are given as offsets from a base, so
// that lists of rows, two-level rows and packed blocks are all the same to it.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr std::int64_t kRowBlock = 96;  // rows whose offsets are computed at once: stays in L2 beside a panel

struct Operand {  // one segment of the summed index
  const float* base;
  const std::ptrdiff_t* offset;  // of each row
  std::ptrdiff_t step;           // from k to k + 1
  std::ptrdiff_t gate;           // from gate to gate, for tiles whose gates have operands of their own
  std::int64_t k;
};

struct Tile {
  int segments;
  Operand a[4];
  const float* w;  // panel [K][G][U][W], w_step floats from k to k + 1
  std::ptrdiff_t w_step;
  const float* init;  // row m, accumulator j at init + m*init_row + j*W
  std::ptrdiff_t init_row;
  float* out;  // row m, gate g, vector u at out + m*out_row + g*out_gate + u*W; may be init
  std::ptrdiff_t out_row, out_gate;
  const float* ahead;  // what the L2 should have next: a line of it is prefetched at each k; or null
  std::ptrdiff_t ahead_step;
};

// Three quarters of the registers are accumulators.
constexpr int kTileVectors = kRegisters * 3 / 4;
constexpr int kTileFloats = kTileVectors * W;
constexpr int tile_rows(int vectors) { return kTileVectors / vectors < 8 ? kTileVectors / vectors : 8; }

alignas(64) constexpr float kZeros[4 * W] = {};
constexpr std::ptrdiff_t kAdjacent[8] = {0, 1, 2, 3, 4, 5, 6, 7};

// acc += A*W over one segment; the last gate's accumulators are those of gate Last. Returns the end of the weights.
template <int MR, int G, int U, int A, bool Gated, int Last>
SEQCORE_INLINE const float* accumulate(vec (&acc)[MR][A * U], const Operand& s, std::int64_t row, const float* w,
                                       std::ptrdiff_t w_step, const float*& ahead, std::ptrdiff_t ahead_step) {
  const float* a[MR];
  for (int m = 0; m < MR; ++m) a[m] = s.base + s.offset[row + m];
  const std::ptrdiff_t step = s.step;
  const std::ptrdiff_t gate = s.gate;
  std::ptrdiff_t at = 0;
  for (std::int64_t k = s.k; k > 0; --k, at += step, w += w_step, ahead += ahead_step) {
    __builtin_prefetch(ahead, 0, 2);
    if constexpr (Gated) {
      for (int g = 0; g < G; ++g)
        for (int u = 0; u < U; ++u) {
          const vec b = load(w + (g * U + u) * W);
          const int j = (g == G - 1 ? Last : g) * U + u;
          for (int m = 0; m < MR; ++m) acc[m][j] = fma(set1(a[m][at + g * gate]), b, acc[m][j]);
        }
    } else if constexpr (MR < G * U) {  // the fewer of the two stay in registers
      vec v[MR];
      for (int m = 0; m < MR; ++m) v[m] = set1(a[m][at]);
      for (int i = 0; i < G * U; ++i) {
        const vec b = load(w + i * W);
        const int j = i / U == G - 1 ? Last * U + i % U : i;
        for (int m = 0; m < MR; ++m) acc[m][j] = fma(v[m], b, acc[m][j]);
      }
    } else {
      vec b[G * U];
      for (int i = 0; i < G * U; ++i) b[i] = load(w + i * W);
      for (int m = 0; m < MR; ++m) {
        const vec v = set1(a[m][at]);
        for (int i = 0; i < G * U; ++i) {
          const int j = i / U == G - 1 ? Last * U + i % U : i;
          acc[m][j] = fma(v, b[i], acc[m][j]);
        }
      }
    }
  }
  return w;
}

// out = init + A*W for MR rows from `row` on. G gates of U vectors each. Split: the last gate has two chains, one for
// segment 0 and one, kept as gate G, for segment 1 (GRU, reset after).
template <int G, int U, bool Split, bool Gated, int MR>
__attribute__((noinline)) void tile(const Tile& t, std::int64_t row) {
  constexpr int A = G + (Split ? 1 : 0);
  vec acc[MR][A * U];
  for (int m = 0; m < MR; ++m)
    for (int j = 0; j < A * U; ++j) acc[m][j] = load(t.init + m * t.init_row + j * W);
  const float* w = t.w;
  const float* ahead = t.ahead ? t.ahead : t.w;
  if constexpr (Split) {
    w = accumulate<MR, G, U, A, Gated, G - 1>(acc, t.a[0], row, w, t.w_step, ahead, t.ahead_step);
    accumulate<MR, G, U, A, Gated, G>(acc, t.a[1], row, w, t.w_step, ahead, t.ahead_step);
  } else {
    for (int s = 0; s < t.segments; ++s)
      w = accumulate<MR, G, U, A, Gated, G - 1>(acc, t.a[s], row, w, t.w_step, ahead, t.ahead_step);
  }
  for (int m = 0; m < MR; ++m)
    for (int g = 0; g < A; ++g)
      for (int u = 0; u < U; ++u) store(t.out + m * t.out_row + g * t.out_gate + u * W, acc[m][g * U + u]);
}

template <int G, int U, bool Split, bool Gated, int MR = tile_rows((G + (Split ? 1 : 0)) * U)>
SEQCORE_INLINE void run_tile(std::int64_t rows, const Tile& t, std::int64_t row) {
  if constexpr (MR > 1)
    if (rows < MR) return run_tile<G, U, Split, Gated, MR - 1>(rows, t, row);
  tile<G, U, Split, Gated, MR>(t, row);
}

// f(first, count) over m rows in even pieces of at most `most`: 7 rows are 4 + 3, not 6 + 1.
template <class F>
SEQCORE_INLINE void split_evenly(std::int64_t m, std::int64_t most, F f) {
  if (m <= 0) return;
  const std::int64_t pieces = (m + most - 1) / most;
  const std::int64_t longer = m % pieces;
  std::int64_t first = 0;
  for (std::int64_t i = 0; i < pieces; ++i) {
    const std::int64_t count = m / pieces + (i < longer ? 1 : 0);
    f(first, count);
    first += count;
  }
}

// Has the tile at `done` of a panel's rows, of `depth` k each, prefetch its share of the next panel.
SEQCORE_INLINE void look_ahead(Tile& t, const float* next, std::int64_t size, std::int64_t tile, std::int64_t depth) {
  const std::int64_t at = tile * depth * kPad;
  const bool more = at < size;
  t.ahead = next + (more ? at : 0);
  t.ahead_step = more ? kPad : 0;
}

// f(integral constant U, first vector) over panels of at most Most vectors.
template <int U>
struct Count {
  static constexpr int value = U;
};
template <int Most, class F>
SEQCORE_INLINE void with_count(std::int64_t u, F f) {
  if constexpr (Most > 1)
    if (u < Most) return with_count<Most - 1>(u, f);
  f(Count<Most>{});
}

constexpr std::int64_t vectors(std::int64_t n) { return (n + W - 1) / W; }
SEQCORE_INLINE std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
SEQCORE_INLINE vec load_upto(const float* p, std::int64_t n) { return n >= W ? load(p) : load_n(p, n); }
SEQCORE_INLINE void store_upto(float* p, vec v, std::int64_t n) {
  if (n >= W) return store(p, v);
  store_n(p, v, n);
}

// The (t, b) of ascending rows, with one division in all.
struct RowCursor {
  std::int64_t batch, t, b;
  RowCursor(std::int64_t batch_size, std::int64_t row) : batch(batch_size), t(row / batch_size), b(row % batch_size) {}
  void seek(std::int64_t row) {
    b = row - t * batch;
    for (; b >= batch; b -= batch) ++t;
  }
  std::ptrdiff_t in(std::ptrdiff_t step, std::ptrdiff_t row) const { return t * step + b * row; }
};

// ---------------------------------------------------------------------------------------------------- packing
// W[k][n], zero beyond n, as panels of U = 4 vectors (the last one of what is left): [K][U][W].

std::int64_t packed_product_size(std::int64_t k, std::int64_t n) { return k * vectors(n) * W; }

// One stretch of the summed index of one panel: `columns` true columns of `width`, row k at out + k*width.
void pack_panel(const float* w, std::ptrdiff_t k_stride, std::ptrdiff_t n_stride, std::int64_t k, std::int64_t columns,
                std::int64_t width, std::int64_t out_row, float* out) {
  if (n_stride == 1) {
    for (std::int64_t i = 0; i < k; ++i)
      for (std::int64_t j = 0; j < width; j += W)
        store(out + i * out_row + j, columns > j ? load_upto(w + i * k_stride + j, columns - j) : zero());
    return;
  }
  for (std::int64_t i0 = 0; i0 < k; i0 += 16) {  // 16 rows of the panel stay in L1 while the source is read in order
    const std::int64_t rows = least(16, k - i0);
    for (std::int64_t j = 0; j < width; ++j)
      for (std::int64_t i = i0; i < i0 + rows; ++i)
        out[i * out_row + j] = j < columns ? w[i * k_stride + j * n_stride] : 0.0f;
  }
}

void pack_product(const float* w, std::ptrdiff_t k_stride, std::ptrdiff_t n_stride, std::int64_t k, std::int64_t n,
                  float* packed) {
  for (std::int64_t v = 0; v < vectors(n); v += 4) {
    const std::int64_t width = least(4, vectors(n) - v) * W;
    pack_panel(w + v * W * n_stride, k_stride, n_stride, k, n - v * W, width, width, packed);
    packed += k * width;
  }
}

// ------------------------------------------------------------------------------------------------ dense product

void product_panel_out(const ProductArgs& p, const float* chains, std::int64_t rows, std::int64_t width,
                       std::int64_t n0, const std::ptrdiff_t* c, const std::ptrdiff_t* z, const std::ptrdiff_t* scale,
                       float* work) {
  if (p.z.data)
    for (std::int64_t m = 0; m < rows; ++m)
      for (std::int64_t j = 0; j < width; j += W)
        store_upto(p.z.data + z[m] + n0 + j, load(chains + m * width + j), p.n - n0 - j);
  if (!p.scale && p.activation != Activation::linear) {
    activate(p.activation, 1, rows * width, chains, 0, work, 0);
    chains = work;
  }
  for (std::int64_t m = 0; m < rows; ++m)
    for (std::int64_t j = 0; j < width; j += W) {
      const std::int64_t left = p.n - n0 - j;
      float* out = p.c.data + c[m] + n0 + j;
      vec v = load(chains + m * width + j);
      if (p.scale) v = add(load_upto(out, left), mul(load_upto(p.scale + scale[m] + n0 + j, left), v));
      store_upto(out, v, left);
    }
}

void product(const ProductArgs& p) {
  std::ptrdiff_t a[4][kRowBlock], c[kRowBlock], z[kRowBlock], scale[kRowBlock];
  alignas(64) float chains[kTileFloats], start[4 * W], work[kTileFloats];
  std::int64_t depth = 0;
  for (int s = 0; s < p.segments; ++s) depth += p.a[s].k;

  split_evenly(p.m, kRowBlock, [&](std::int64_t first, std::int64_t count) {
    RowCursor cursor(p.batch, p.rows ? p.rows[first] : p.row_begin + first);
    for (std::int64_t i = 0; i < count; ++i) {
      cursor.seek(p.rows ? p.rows[first + i] : p.row_begin + first + i);
      for (int s = 0; s < p.segments; ++s) a[s][i] = cursor.in(p.a[s].a.step, p.a[s].a.row);
      c[i] = cursor.in(p.c.step, p.c.row);
      z[i] = cursor.in(p.z.step, p.z.row);
      scale[i] = cursor.in(0, p.scale_row);
    }
    Tile t{};
    t.segments = p.segments;
    for (int s = 0; s < p.segments; ++s) t.a[s] = {p.a[s].a.data, a[s], 1, 0, p.a[s].k};
    t.w = p.packed;
    t.out = chains;
    t.init = p.init == Init::accumulate ? chains : start;
    for (std::int64_t n0 = 0; n0 < p.n; n0 += 4 * W)
      with_count<4>(vectors(p.n - n0), [&](auto u) {
        constexpr int U = decltype(u)::value;
        t.w_step = t.out_row = U * W;
        t.init_row = p.init == Init::accumulate ? U * W : 0;
        for (std::int64_t j = 0; j < U * W; j += W)
          store(start + j, p.init == Init::bias ? load_upto(p.bias + n0 + j, p.n - n0 - j) : zero());
        split_evenly(count, tile_rows(U), [&](std::int64_t row, std::int64_t rows) {
          if (p.init == Init::accumulate)
            for (std::int64_t m = 0; m < rows; ++m)
              for (std::int64_t j = 0; j < U * W; j += W)
                store(chains + m * U * W + j, load_upto(p.c.data + c[row + m] + n0 + j, p.n - n0 - j));
          run_tile<1, U, false, false>(rows, t, row);
          product_panel_out(p, chains, rows, U * W, n0, c + row, z + row, scale + row, work);
        });
        t.w += depth * U * W;
      });
  });
}

// --------------------------------------------------------------------------------------------- weight gradients
// Per block of rows A is copied to [rows][k, and 1 for the bias] (scaled), and four vectors of D's columns, unless they
// can be read in place, to [rows][4][W]. Then it is the same tile, with k for rows and rows for k. The bias is the
// weight of a constant input 1.

std::int64_t grad_row(std::int64_t k) {
  return pad(k + 1) + kPad;
}  // not a power of two: spreads over the cache's sets

std::int64_t grad_scratch(std::int64_t k, int, std::int64_t) { return kGradBlock * (grad_row(k) + 4 * W); }

void grad(const GradArgs& g) {
  std::ptrdiff_t d_offset[kGradBlock];
  alignas(64) float sums[kTileFloats];
  const bool bias = g.bias && g.k_begin == 0;
  const std::int64_t k = g.k_end - g.k_begin;
  const std::int64_t lda = grad_row(k);
  float* const a = g.scratch;
  float* const d = a + kGradBlock * lda;
  const std::int64_t per_group = vectors(g.n_end - g.n_begin);
  const std::int64_t total = g.groups * per_group;

  std::int64_t first = 0;
  do {
    const std::int64_t rows = least(kGradBlock, g.m - first);
    const bool overwrite = first == 0 && !g.accumulate;
    RowCursor cursor(g.batch, rows <= 0 ? 0 : g.rows ? g.rows[first] : g.row_begin + first);
    for (std::int64_t i = 0; i < rows; ++i) {
      cursor.seek(g.rows ? g.rows[first + i] : g.row_begin + first + i);
      d_offset[i] = cursor.in(g.d.step, g.d.row);
      const float* from = g.a.data + cursor.in(g.a.step, g.a.row) + g.k_begin;
      const float* scale = g.a_scale ? g.a_scale + cursor.in(0, g.a_scale_row) + g.k_begin : nullptr;
      for (std::int64_t j = 0; j < k; j += W) {
        vec v = load_upto(from + j, k - j);
        if (scale) v = mul(v, load_upto(scale + j, k - j));
        store(a + i * lda + j, v);
      }
      a[i * lda + k] = 1.0f;
    }
    // D is read where it is if its rows are evenly spaced, and within a page: else the TLB and prefetching suffer.
    bool even = rows > 1 && d_offset[1] - d_offset[0] < 1024;
    for (std::int64_t i = 2; i < rows; ++i) even = even && d_offset[i] - d_offset[i - 1] == d_offset[1] - d_offset[0];
    for (std::int64_t v0 = 0; v0 < total; v0 += 4)
      with_count<4>(total - v0, [&](auto u) {
        constexpr int U = decltype(u)::value;
        std::int64_t group[U], column[U];
        const float* from[U];
        for (int j = 0; j < U; ++j) {
          group[j] = (v0 + j) / per_group;
          column[j] = g.n_begin + (v0 + j) % per_group * W;
          from[j] = g.d.data + group[j] * g.d_group + column[j];
        }
        Tile t{1, {{a, kAdjacent, lda, 0, rows}}, d, U * W, kZeros, 0, sums, U * W, 0, nullptr, 0};
        if (even && from[U - 1] == from[0] + (U - 1) * W) {
          t.w = from[0] + d_offset[0];
          t.w_step = d_offset[1] - d_offset[0];
        } else {
          for (std::int64_t i = 0; i < rows; ++i)
            for (int j = 0; j < U; ++j) store(d + (i * U + j) * W, load(from[j] + d_offset[i]));
        }
        const auto out = [&](std::int64_t at, int j) {
          return at == k ? g.bias + group[j] * g.bias_group + column[j]
                         : g.c + (g.k_begin + at) * g.c_row + group[j] * g.c_group + column[j];
        };
        split_evenly(k + (bias ? 1 : 0), tile_rows(U), [&](std::int64_t k0, std::int64_t count) {
          for (std::int64_t m = 0; m < count; ++m)
            for (int j = 0; j < U; ++j) __builtin_prefetch(out(k0 + m, j), 1);
          t.a[0].base = a + k0;
          run_tile<1, U, false, false>(count, t, 0);
          for (std::int64_t m = 0; m < count; ++m)
            for (int j = 0; j < U; ++j) {
              float* to = out(k0 + m, j);
              const std::int64_t left = g.n_end - column[j];
              const vec sum = load(sums + (m * U + j) * W);
              store_upto(to, overwrite ? sum : add(load_upto(to, left), sum), left);
            }
        });
      });
    first += kGradBlock;
  } while (first < g.m);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
