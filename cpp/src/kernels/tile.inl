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
// Bytes that not every L2 keeps until they are read again: those of processors with 32 registers have a megabyte and more.
constexpr std::int64_t kFarWeights = kRegisters >= 32 ? INT64_C(3) << 19 : INT64_C(1) << 19;
constexpr int kWideRows = 6;              // of a tile with two panels
constexpr std::int64_t kWideDepth = 768;  // of a sum over two panels, at most: 192 KB with AVX-512
constexpr int kTileRows = kRegisters >= 32 ? 8 : kRegisters >= 16 ? 6 : 2;
constexpr int kFetchRows = kTileRows < 4 ? kTileRows : 4;  // fewer leave the bus no time but for their own weights
// Panels side by side: with few rows it takes several to have enough chains in flight.
constexpr int tile_panels(int rows) {
  const int fit = kRegisters * 3 / 8 / rows;
  return fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
}

alignas(64) constexpr float kZeros[4 * kPanel] = {};

// Columns whose chains are made at once, of so many rows, kRowBlock at most; kChains floats in all.
constexpr std::int64_t kChains = 2 * kRowBlock * kPanel;
constexpr std::int64_t columns_at_once(std::int64_t rows) { return (rows * 4 <= kRowBlock ? 4 : 2) * kPanel; }

constexpr std::int64_t vectors(std::int64_t n) { return (n + W - 1) / W; }
constexpr std::int64_t packed_columns(std::int64_t n) { return vectors(n) * W; }
SEQCORE_INLINE std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
SEQCORE_INLINE vec load_upto(const float* p, std::int64_t n) { return n >= W ? load(p) : load_n(p, n); }
SEQCORE_INLINE void store_upto(float* p, vec v, std::int64_t n) {
  if (n >= W) return store(p, v);
  store_n(p, v, n);
}

// What a word of A and a word of W add to a chain; others than one_instruction need registers of their own for it. Sums of
// scaled ones are int32.
struct Float32 {
  static constexpr bool one_instruction = true, scaled = false;
  using Word = vec;
  static SEQCORE_INLINE Word broadcast(const float* a) { return set1(*a); }
  static SEQCORE_INLINE vec accumulate(Word a, vec w, vec sum) { return fma(a, w, sum); }
};
struct BFloat16 {
  static constexpr bool one_instruction = false, scaled = false;
  using Word = halves;
  static SEQCORE_INLINE Word broadcast(const float* a) { return halves_of(set1(*a)); }
  static SEQCORE_INLINE vec accumulate(Word a, vec w, vec sum) { return dot2(a, w, sum); }
};
struct Int8 {
  static constexpr bool one_instruction = false, scaled = true;
  using Word = bytes;
  static SEQCORE_INLINE Word broadcast(const float* a) { return bytes_of(set1(*a)); }
  static SEQCORE_INLINE vec accumulate(Word a, vec w, vec sum) { return float_of(dot4(a, w, bits(sum))); }
};

// Where a tile's rows lie: each by itself, its numbers side by side, or MR rows interleaved, [k][MR].
enum class Layout { rows, interleaved };

// f(Number<i>) for i in 0 .. N, written out: numbers that the compiler knows from the start stay in registers.
template <int i>
struct Number {
  static constexpr int value = i;
};
template <int N, class F>
SEQCORE_INLINE void unrolled(F f) {
  if constexpr (N > 0) {
    unrolled<N - 1>(f);
    f(Number<N - 1>{});
  }
}

// f(k) for the numbers of a summed index. Words without instructions of their own take so many others that a loop costs
// nothing beside them, but much space where it is unrolled.
template <class Kind, class F>
SEQCORE_INLINE void each_number(std::int64_t count, F f) {
  if constexpr (Kind::one_instruction || kWordInstructions) {
#pragma GCC unroll kUnroll
    for (std::int64_t k = 0; k < count; ++k) f(k);
  } else {
#pragma GCC unroll 1
    for (std::int64_t k = 0; k < count; ++k) f(k);
  }
}

// A pointer of which the compiler knows nothing: else it keeps differences between them, in more registers than there are.
template <class T>
SEQCORE_INLINE T* opaque(T* p) {
  __asm__("" : "+r"(p));
  return p;
}

// Rows row .. row + MR, P panels of U vectors from column `column` on. A part of what is needed next is fetched meanwhile, so
// many lines (kFetch) with each number of the summed index.
template <class Kind, Layout layout, int MR, int P, int U, int kFetch>
__attribute__((noinline)) void tile(const Product& t, std::int64_t row, std::int64_t column) {
  constexpr int N = P * U;
  constexpr bool kRows = layout == Layout::rows;
  constexpr std::ptrdiff_t step = kRows ? 1 : MR;
  vec acc[MR][N];
  const float* init = t.init + row * t.init_row + column;
  unrolled<MR>([&](auto m) {
    unrolled<N>([&](auto j) { acc[m.value][j.value] = load(init + j.value * W); });
    init += t.init_row;
  });
  const Operand* o = t.a;
  for (int s = t.segments; s > 0; --s, ++o) {
    const float* a[MR];
    if constexpr (kRows) {
      const std::ptrdiff_t* const offset = opaque(o->offset + row);
      unrolled<MR>([&](auto m) { a[m.value] = opaque(o->base + offset[m.value]); });
    } else {
      unrolled<MR>([&](auto m) { a[m.value] = o->base + m.value; });
    }
    const std::int64_t count = o->k;
    const std::ptrdiff_t panel = count * kPanel;
    const float* w = o->w + column * count;
    const float* next = (o->next ? o->next : w + P * panel) + t.part * count * t.ahead;
    each_number<Kind>(
        count, [&](std::int64_t k) __attribute__((always_inline)) {
          for (int line = 0; line < kFetch; ++line) __builtin_prefetch(next + k * t.ahead + line * kPad, 0, 2);
          if constexpr (MR < N) {  // the fewer of the two stay in registers
            typename Kind::Word v[MR];
            unrolled<MR>([&](auto m) { v[m.value] = Kind::broadcast(a[m.value] + k * step); });
            unrolled<N>([&](auto j) {
              const vec b = load(w + j.value / U * panel + j.value % U * W);
              unrolled<MR>(
                  [&](auto m) { acc[m.value][j.value] = Kind::accumulate(v[m.value], b, acc[m.value][j.value]); });
            });
          } else {
            vec b[N];
            unrolled<N>([&](auto j) { b[j.value] = load(w + j.value / U * panel + j.value % U * W); });
            unrolled<MR>([&](auto m) {
              const typename Kind::Word v = Kind::broadcast(a[m.value] + k * step);
              unrolled<N>(
                  [&](auto j) { acc[m.value][j.value] = Kind::accumulate(v, b[j.value], acc[m.value][j.value]); });
            });
          }
          w += U * W;
        });
  }
  float* out = t.out + row * t.out_row + column;
  unrolled<MR>([&](auto m) {
    unrolled<N>([&](auto j) {
      vec& sum = acc[m.value][j.value];
      if constexpr (!kRows)
        if (t.add) sum = add(load(out + j.value * W), sum);
      store(out + j.value * W, sum);
    });
    out += t.out_row;
  });
}
template <class Kind, Layout layout, int MR, int P, int U>
SEQCORE_INLINE void run_tile(const Product& t, std::int64_t row, std::int64_t column) {
  if constexpr (layout == Layout::rows && MR >= kFetchRows && U == 2) {
    if constexpr (Kind::one_instruction)
      if (t.ahead > kPad) return tile<Kind, layout, MR, P, U, 2>(t, row, column);
    if (t.ahead > 0) return tile<Kind, layout, MR, P, U, 1>(t, row, column);
  }
  tile<Kind, layout, MR, P, U, 0>(t, row, column);
}

// MR rows, `panels` panels from `column` on, as many at a time as pays.
template <class Kind, Layout layout, int MR, int P = layout == Layout::rows ? tile_panels(MR) : 1>
SEQCORE_INLINE void run_panels(const Product& t, std::int64_t row, std::int64_t column, std::int64_t panels) {
  for (; panels >= P; panels -= P, column += P * kPanel) run_tile<Kind, layout, MR, P, 2>(t, row, column);
  if constexpr (P > 1) run_panels<Kind, layout, MR, P / 2>(t, row, column, panels);
}

template <class Kind, Layout layout, int MR = kTileRows>
void run_rows(std::int64_t rows, const Product& t, std::int64_t row, std::int64_t column, std::int64_t vectors) {
  if constexpr (MR > 1)
    if (rows < MR) return run_rows<Kind, layout, MR - 1>(rows, t, row, column, vectors);
  run_panels<Kind, layout, MR>(t, row, column, vectors / 2);
  if (vectors % 2) run_tile<Kind, layout, MR, 1, 1>(t, row, column + vectors / 2 * kPanel);
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

// Two panels side by side take fewer loads a multiply-add than one with more rows: that counts where another thread of the
// core takes half of its loads. Deeper ones would have to come from the L2 too fast.
template <class Kind>
constexpr bool may_be_wide(std::int64_t vectors) {
  return Kind::one_instruction && kTileRows > kWideRows && vectors >= 4;
}

// How m rows are cut into tiles, and the panels that all of them meet before the next: as many as the smallest one takes.
struct Cut {
  int rows;  // of a tile, at most
  std::int64_t panels;
};
template <class Kind>
SEQCORE_INLINE Cut cut(std::int64_t m, std::int64_t k, std::int64_t vectors) {
  // Not for seven or eight rows: two low tiles would read twice from the L2 what one high one reads once.
  const bool wide = may_be_wide<Kind>(vectors) && k <= kWideDepth && m > kTileRows;
  const int rows = wide ? kWideRows : kTileRows;
  return {rows, tile_panels(static_cast<int>(m / ((m + rows - 1) / rows)))};
}

// So many rows at a time that all are fetched by a product of m rows and `vectors` vectors of columns, however many panels
// they have.
SEQCORE_INLINE void fetch_evenly(Soon& soon, std::int64_t m, std::int64_t k, std::int64_t vectors) {
  const Cut c = cut<Float32>(m, k, vectors);
  const std::int64_t tiles = (m + c.rows - 1) / c.rows * ((vectors + 2 * c.panels - 1) / (2 * c.panels));
  soon.rows = (soon.end + tiles - 1) / tiles;
}

// To L2, to be written there too. In so small portions no load waits for it.
SEQCORE_INLINE void fetch(Soon& soon) {
  const std::int64_t n = least(soon.rows, soon.end - soon.row);
  if (n == 0) return;
  for (int p = 0; p < soon.pieces; ++p) {
    const float* at = soon.piece[p].at + soon.row * soon.piece[p].row;
    for (std::int64_t i = 0; i < n; ++i, at += soon.piece[p].row)
      for (int j = 0; j < soon.lines; ++j) __builtin_prefetch(at + j * kPad, 1, 2);
  }
  soon.row += n;
}

// out = init + A*W for m rows and `vectors` vectors of columns.
template <class Kind>
void multiply(const Product& product, std::int64_t m, std::int64_t vectors) {
  if (m < kFetchRows) {
    if (m > 0) run_rows<Kind, Layout::rows>(m, product, 0, 0, vectors);
    return;
  }
  Product t = product;
  const auto depth = [&](int begin, int end) {
    std::int64_t k = 0;
    for (int s = begin; s < end; ++s) k += t.a[s].k;
    return k;
  };
  const std::int64_t k = depth(0, t.segments);
  const int half = t.segments / 2;
  if (may_be_wide<Kind>(vectors) && m > kTileRows && k > kWideDepth && depth(0, half) <= kWideDepth &&
      depth(half, t.segments) <= kWideDepth) {
    // In two passes, each short enough for two panels side by side: chains go on where the first left them.
    t.segments = half;
    multiply<Kind>(t, m, vectors);
    for (int s = half; s < product.segments; ++s) t.a[s - half] = t.a[s];
    t.segments = product.segments - half;
    t.init = t.out;
    t.init_row = t.out_row;
    t.soon = nullptr;
    return multiply<Kind>(t, m, vectors);
  }
  const Cut c = cut<Kind>(m, k, vectors);
  const std::int64_t step = c.panels * 2, tiles = (m + c.rows - 1) / c.rows;
  // By half a line with each number at least, else most of it is fetched again and again. One tile alone reads what it
  // fetches as soon as it has fetched it: the processor does as well.
  const std::int64_t ahead = !t.far || tiles == 1           ? 0
                             : step * W >= tiles * kPad / 2 ? (step * W + tiles - 1) / tiles
                                                            : kPad / 2;
  for (std::int64_t v = 0; v < vectors; v += step) {
    if (v + step >= vectors)
      for (int s = 0; s < t.segments; ++s) t.a[s].next = t.a[s].after;
    t.part = 0;
    split_evenly(m, c.rows, [&](std::int64_t row, std::int64_t rows) {
      if (t.soon) fetch(*t.soon);
      t.ahead = t.part * ahead < step * W ? ahead : 0;
      run_rows<Kind, Layout::rows>(rows, t, row, v * W, least(step, vectors - v));
      ++t.part;
    });
  }
}

// The (t, b) of rows, with a division for every stretch in which they ascend.
struct RowCursor {
  std::int64_t batch, t, b;
  RowCursor(std::int64_t batch_size, std::int64_t row) : batch(batch_size), t(row / batch_size), b(row % batch_size) {}
  void seek(std::int64_t row) {
    if (row < t * batch) t = row / batch;
    b = row - t * batch;
    for (; b >= batch; b -= batch) ++t;
  }
  std::ptrdiff_t in(std::ptrdiff_t step, std::ptrdiff_t row) const { return t * step + b * row; }
};

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
