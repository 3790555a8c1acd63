// The register tile that every product of the project runs through, and the walk over rows and packed columns that calls
// it. Included by isa.inl, once per ISA.
//
// A tile is MR rows x P panels of accumulators, each one chain of fused multiply-adds over the whole summed index: how
// rows and columns are cut into tiles changes nothing in the bits. Rows are given as offsets from a base, so that lists
// of rows, two-level rows and packed blocks are all the same to it.
//
// Packed: a matrix W[k][n], zero beyond n, is panels of two vectors of columns, [k][2][W] each, one after the other; the
// last one is [k][1][W] where the number of vectors is odd.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int kPanel = 2 * W;                    // columns
constexpr std::int64_t kRowBlock = 64;           // rows whose offsets are computed at once
constexpr std::int64_t kFar = INT64_C(2) << 20;  // bytes that no L2 holds
constexpr int kTileRows = kRegisters >= 32 ? 8 : kRegisters >= 16 ? 6 : 2;
// Panels side by side: with few rows it takes several to have enough chains in flight.
constexpr int tile_panels(int rows) {
  const int fit = kRegisters * 3 / 8 / rows;
  return fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
}

alignas(64) constexpr float kZeros[4 * kPanel] = {};
constexpr std::ptrdiff_t kAdjacent[8] = {0, 1, 2, 3, 4, 5, 6, 7};

constexpr std::int64_t vectors(std::int64_t n) { return (n + W - 1) / W; }
constexpr std::int64_t packed_columns(std::int64_t n) { return vectors(n) * W; }
SEQCORE_INLINE std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
SEQCORE_INLINE vec load_upto(const float* p, std::int64_t n) { return n >= W ? load(p) : load_n(p, n); }
SEQCORE_INLINE void store_upto(float* p, vec v, std::int64_t n) {
  if (n >= W) return store(p, v);
  store_n(p, v, n);
}

// What a word of A and a word of W add to a chain.
struct Float32 {
  using Word = vec;
  static SEQCORE_INLINE Word broadcast(const float* a) { return set1(*a); }
  static SEQCORE_INLINE vec accumulate(Word a, vec w, vec sum) { return fma(a, w, sum); }
};
struct BFloat16 {
  using Word = halves;
  static SEQCORE_INLINE Word broadcast(const float* a) { return halves_of(set1(*a)); }
  static SEQCORE_INLINE vec accumulate(Word a, vec w, vec sum) { return dot2(a, w, sum); }
};
struct Int8 {
  using Word = bytes;
  static SEQCORE_INLINE Word broadcast(const float* a) { return bytes_of(set1(*a)); }
  static SEQCORE_INLINE vec accumulate(Word a, vec w, vec sum) { return float_of(dot4(a, w, bits(sum))); }
};

// Rows row .. row + MR, P panels of U vectors from column `column` on.
template <class Kind, int MR, int P, int U>
__attribute__((noinline)) void tile(const Product& t, std::int64_t row, std::int64_t column) {
  constexpr int N = P * U;
  vec acc[MR][N];
  const float* init = t.init + row * t.init_row + column;
  for (int m = 0; m < MR; ++m)
    for (int j = 0; j < N; ++j) acc[m][j] = load(init + m * t.init_row + j * W);
  for (int s = 0; s < t.segments; ++s) {
    const Operand& o = t.a[s];
    const float* a[MR];
    for (int m = 0; m < MR; ++m) a[m] = o.base + o.offset[row + m];
    const std::ptrdiff_t step = o.step, panel = o.k * kPanel;
    const float* w = o.w + column * o.k;
    const float* next = row > 0 ? w : o.next ? o.next : w + P * panel;
    const std::ptrdiff_t next_step = row == 0 && o.next ? o.next_step : U * W;
    std::ptrdiff_t at = 0;
#pragma GCC unroll kUnroll
    for (std::int64_t k = 0; k < o.k; ++k, at += step, w += U * W, next += next_step) {
      if constexpr (MR >= 4)
        for (int j = 0; j < U * W; j += kPad) __builtin_prefetch(next + j, 0, 2);
      if constexpr (MR < N) {  // the fewer of the two stay in registers
        typename Kind::Word v[MR];
        for (int m = 0; m < MR; ++m) v[m] = Kind::broadcast(a[m] + at);
        for (int p = 0; p < P; ++p)
          for (int u = 0; u < U; ++u) {
            const vec b = load(w + p * panel + u * W);
            for (int m = 0; m < MR; ++m) acc[m][p * U + u] = Kind::accumulate(v[m], b, acc[m][p * U + u]);
          }
      } else {
        vec b[N];
        for (int j = 0; j < N; ++j) b[j] = load(w + j / U * panel + j % U * W);
        for (int m = 0; m < MR; ++m) {
          const typename Kind::Word v = Kind::broadcast(a[m] + at);
          for (int j = 0; j < N; ++j) acc[m][j] = Kind::accumulate(v, b[j], acc[m][j]);
        }
      }
    }
  }
  float* out = t.out + row * t.out_row + column;
  for (int m = 0; m < MR; ++m)
    for (int j = 0; j < N; ++j) store(out + m * t.out_row + j * W, acc[m][j]);
}

// MR rows, `panels` panels from `column` on, as many at a time as pays.
template <class Kind, int MR, int P = tile_panels(MR)>
SEQCORE_INLINE void run_panels(const Product& t, std::int64_t row, std::int64_t column, std::int64_t panels) {
  for (; panels >= P; panels -= P, column += P * kPanel) tile<Kind, MR, P, 2>(t, row, column);
  if constexpr (P > 1) run_panels<Kind, MR, P / 2>(t, row, column, panels);
}

template <class Kind, int MR = kTileRows>
void run_rows(std::int64_t rows, const Product& t, std::int64_t row, std::int64_t column, std::int64_t vectors) {
  if constexpr (MR > 1)
    if (rows < MR) return run_rows<Kind, MR - 1>(rows, t, row, column, vectors);
  run_panels<Kind, MR>(t, row, column, vectors / 2);
  if (vectors % 2) tile<Kind, MR, 1, 1>(t, row, column + vectors / 2 * kPanel);
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

// Panels that are done for all tiles of m rows before the next: as many as the smallest tile takes.
SEQCORE_INLINE std::int64_t panels_of_tiles(std::int64_t m) {
  return tile_panels(static_cast<int>(m / ((m + kTileRows - 1) / kTileRows)));
}

// To L2, to be written there too. In so small portions no load waits for it.
SEQCORE_INLINE void fetch(Soon& soon) {
  for (int i = 0; i < soon.lines && soon.at < soon.end; ++i, soon.at += kPad) __builtin_prefetch(soon.at, 1, 2);
}

// What products of m rows and `vectors` vectors of columns in all are to fetch in equal portions; nothing if m rows are one
// tile, for which little is to be fetched.
SEQCORE_INLINE Soon fetched_during(std::int64_t m, std::int64_t vectors, const float* begin, std::int64_t floats) {
  const std::int64_t tiles = (m + kTileRows - 1) / kTileRows * (vectors / (2 * panels_of_tiles(m)) + 1);
  return {begin, begin + floats, static_cast<int>((floats / kPad + tiles - 1) / tiles)};
}

// out = init + A*W for m rows and `vectors` vectors of columns.
template <class Kind>
void multiply(const Product& product, std::int64_t m, std::int64_t vectors) {
  if (m <= kTileRows) {
    if (m > 0) run_rows<Kind>(m, product, 0, 0, vectors);
    return;
  }
  Product t = product;
  const std::int64_t step = panels_of_tiles(m) * 2;
  for (std::int64_t v = 0; v < vectors; v += step) {
    if (v + step >= vectors)
      for (int s = 0; s < t.segments; ++s) {
        t.a[s].next = t.a[s].after;
        t.a[s].next_step = kPanel;
      }
    split_evenly(m, kTileRows, [&](std::int64_t row, std::int64_t rows) {
      if (t.soon) fetch(*t.soon);
      run_rows<Kind>(rows, t, row, v * W, least(step, vectors - v));
    });
  }
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

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
