// Weight gradients: the product Aᵀ D over rows, in blocks of kGradBlock of them. Included by isa.inl, once per ISA.
//
// Per block A is copied to tiles of a few columns, [tile][rows][columns], so that the register tile reads it in one
// stream; the bias is the weight of a constant column of ones behind the last. Then D's columns are copied, some panels of
// two vectors at a time, each to [rows][2][W], and each panel meets all tiles of A. To copy a few rows beside every tile
// instead takes longer: each time it has to wait for memory anew.
// Groups whose columns of dW follow each other are copied without gaps, so that odd widths waste less than a vector.

namespace seqcore::SEQCORE_ISA {
namespace {

// Columns of D that are copied at once: rows may lie a page apart, and then what costs is to come to a row at all.
constexpr std::int64_t kGradColumns = 128;
constexpr std::int64_t kGradAhead = 8;    // rows
constexpr std::int64_t kGradAtOnce = 32;  // rows of A that are copied to all tiles before those after them
// Columns of A in a tile, whose rows are interleaved: one pointer for all of them leaves registers for more than kTileRows.
constexpr int kGradTile = kRegisters >= 32 ? 12 : kTileRows;

// Floats of scratch for k columns of A.
std::int64_t grad_scratch(std::int64_t k) { return kGradBlock * (k + 1 + kGradColumns) + 2 * kPad; }

struct GradRows {  // offsets of a block's rows in each A, in its scale, and in D
  std::int64_t count;
  std::ptrdiff_t a[2][kGradBlock], scale[2][kGradBlock], d[kGradBlock];
};

// Of rows begin .. end columns first .. first + count of the A's, side by side, to [rows][count]; column `ones` is 1.
void gather_columns(const GradArgs& g, const GradRows& rows, std::int64_t begin, std::int64_t end, std::int64_t first,
                    std::int64_t count, std::int64_t ones, float* out) {
  std::int64_t done = 0;
  for (std::int64_t k0 = 0, f = 0; f < g.factors; k0 += g.a[f++].k) {
    const GradFactor& from = g.a[f];
    const std::int64_t at = first + done - k0;
    const std::int64_t some = least(least(first + count, ones), k0 + from.k) - (first + done);
    for (std::int64_t j = 0; j < some; j += W) {
      const std::int64_t n = least(some - j, W);
      // The very first columns may be stored as a whole vector where that stays in the tile: what runs over is written
      // after it.
      const std::int64_t left = from.k - at - j, over = done + j == 0 ? rows.count + 1 - (W + count - 1) / count : 0;
      const float* a = from.a.data + at + j;
      for (std::int64_t i = begin; i < end; ++i) {
        __builtin_prefetch(a + rows.a[f][least(i + kGradAtOnce, rows.count - 1)]);
        vec v = load_upto(a + rows.a[f][i], left);
        if (from.scale) v = mul(v, load_upto(from.scale + rows.scale[f][i] + at + j, left));
        store_upto(out + i * count + done + j, v, i < over ? W : n);
      }
    }
    if (some > 0) done += some;
  }
  for (; done < count; ++done)
    for (std::int64_t i = begin; i < end; ++i) out[i * count + done] = 1.0f;
}

// Vector v of the columns of all groups.
struct GradColumn {
  std::int64_t group, column;
};
// What one group gives of a vector of D: where it comes from, where it goes to, and how far apart that is from row to row. As
// many floats are stored as are taken, behind the last column zeros too.
struct GradPiece {
  const float* from;
  std::int64_t to, row, taken, stored;
};
constexpr std::int64_t kGradVectors = kGradColumns / W;
constexpr int kGroupsJoined = 4;  // at most

// Some vectors of D's columns, on their way to panels, kGradBlock rows apart.
struct GradPanels {
  std::int64_t count = 0;
  GradColumn column[kGradVectors] = {};
  std::int64_t pieces = 0;
  GradPiece piece[kGradVectors + kGroupsJoined] = {};
  bool whole = true;  // each piece is a vector
};

// kCount is their count where each is one piece, or 0.
template <std::int64_t kCount>
void gather_panels(const GradRows& rows, const GradPanels& p, float* out) {
  const std::int64_t count = kCount ? kCount : p.pieces;
  for (std::int64_t i = 0; i < rows.count; ++i) {
    const std::ptrdiff_t row = rows.d[i], ahead = rows.d[least(i + kGradAhead, rows.count - 1)];
    for (std::int64_t j = 0; j < count; ++j) {
      const GradPiece& piece = p.piece[j];
      if (j * W % kPad == 0 || !kCount) __builtin_prefetch(piece.from + ahead);  // lines
      if constexpr (kCount > 0)
        store(out + j / 2 * kPanel * kGradBlock + i * kPanel + j % 2 * W, load(piece.from + row));
      else
        store_upto(out + piece.to + i * piece.row, load_upto(piece.from + row, piece.taken), piece.stored);
    }
  }
}
void gather_panels(const GradRows& rows, const GradPanels& p, float* out) {
  if (p.count == kGradVectors && p.whole)
    gather_panels<kGradVectors>(rows, p, out);
  else
    gather_panels<0>(rows, p, out);
}

// Vectors v0 .. of D, of which there are `all`, per_group of each group; if `joined`, of all groups without gaps.
GradPanels panels_from(const GradArgs& g, std::int64_t v0, std::int64_t all, std::int64_t per_group, bool joined) {
  GradPanels p;
  p.count = least(kGradVectors, all - v0);
  for (std::int64_t j = 0; j < p.count; ++j) {
    const std::int64_t v = v0 + j, wide = least(2, p.count - j / 2 * 2) * W;
    const std::int64_t to = j / 2 * kPanel * kGradBlock + j % 2 * W;
    if (!joined) {
      p.column[j] = {v / per_group, g.n_begin + v % per_group * W};
      p.piece[p.pieces++] = {g.d.data + p.column[j].group * g.d_group + p.column[j].column, to, wide, W, W};
      continue;
    }
    p.column[j] = {0, v * W};
    for (std::int64_t lane = 0, taken; lane < W && v * W + lane < g.groups * g.n; lane += taken) {
      const std::int64_t group = (v * W + lane) / g.n, column = (v * W + lane) % g.n;
      taken = least(W - lane, g.n - column);
      const bool last = group + 1 == g.groups && column + taken == g.n;
      p.piece[p.pieces++] = {g.d.data + group * g.d_group + column, to + lane, wide, taken, last ? W - lane : taken};
      p.whole = p.whole && taken == W;
    }
  }
  return p;
}

void grad(const GradArgs& g) {
  GradRows rows;
  alignas(64) float sums[kGradTile * kPanel];
  const std::int64_t ones = g.k_end;
  const std::int64_t columns = g.k_end - g.k_begin + (g.bias && g.k_begin == 0 ? 1 : 0);
  float *const panels = g.scratch, *const a = panels + kGradBlock * kGradColumns;
  const std::int64_t without_gaps = vectors(g.groups * g.n), with_gaps = g.groups * vectors(g.n);
  const bool joined = g.groups <= kGroupsJoined && g.n_begin == 0 && g.n_end == g.n && g.c_group == g.n &&
                      (!g.bias || g.bias_group == g.n) && without_gaps * 32 < with_gaps * 31;  // or it is not worth it
  const std::int64_t n_end = joined ? g.groups * g.n : g.n_end, per_group = vectors(n_end - g.n_begin);
  const std::int64_t all = joined ? per_group : g.groups * per_group;
  if (columns == 0) return;

  std::int64_t first = 0;
  do {
    rows.count = least(kGradBlock, g.m - first);
    const bool overwrite = first == 0 && !g.accumulate;
    RowCursor cursor(g.batch, rows.count <= 0 ? 0 : g.rows ? g.rows[first] : g.row_begin + first);
    for (std::int64_t i = 0; i < rows.count; ++i) {
      cursor.seek(g.rows ? g.rows[first + i] : g.row_begin + first + i);
      rows.d[i] = cursor.in(g.d.step, g.d.row);
      for (int f = 0; f < g.factors; ++f) {
        rows.a[f][i] = cursor.in(g.a[f].a.step, g.a[f].a.row);
        rows.scale[f][i] = cursor.in(0, g.a[f].scale_row);
      }
    }
    for (std::int64_t i = 0; i < rows.count; i += kGradAtOnce)
      split_evenly(columns, kGradTile, [&](std::int64_t at, std::int64_t count) {
        gather_columns(g, rows, i, least(i + kGradAtOnce, rows.count), g.k_begin + at, count, ones,
                       a + at * kGradBlock);
      });
    Product t;
    t.segments = 1;
    t.init = kZeros;
    t.init_row = 0;
    for (std::int64_t v0 = 0; v0 < all; v0 += kGradVectors) {
      const GradPanels now = panels_from(g, v0, all, per_group, joined);
      gather_panels(rows, now, panels);
      for (std::int64_t v = 0; v < now.count; v += 2) {
        const std::int64_t wide = least(2, now.count - v);
        std::ptrdiff_t to_weight[2], to_bias[2];  // from the first column of D to these
        for (std::int64_t j = 0; j < wide; ++j) {
          to_weight[j] = now.column[v + j].group * g.c_group + now.column[v + j].column;
          to_bias[j] = now.column[v + j].group * g.bias_group + now.column[v + j].column;
        }
        const GradColumn &left_most = now.column[v], &right_most = now.column[v + wide - 1];
        const bool whole = left_most.group == right_most.group && right_most.column + W <= n_end;
        split_evenly(columns, kGradTile, [&](std::int64_t k0, std::int64_t count) {
          float* to[kGradTile][2];
          for (std::int64_t m = 0; m < count; ++m) {
            const std::int64_t at = g.k_begin + k0 + m;
            const int f = g.factors > 1 && at >= g.a[0].k ? 1 : 0;
            float* const row = at == ones ? g.bias : g.a[f].c + (f ? at - g.a[0].k : at) * g.c_row;
            const std::ptrdiff_t* const column = at == ones ? to_bias : to_weight;
            for (std::int64_t j = 0; j < wide; ++j) {
              to[m][j] = row + column[j];
              __builtin_prefetch(to[m][j], 1);
            }
          }
          t.a[0] = {a + k0 * kGradBlock, nullptr, rows.count, panels + v * W * kGradBlock};
          // Where rows and columns are evenly spaced, the tile adds to them itself.
          const std::int64_t begin = g.k_begin + k0, end = begin + count;
          const bool direct = whole && end <= ones && (g.factors == 1 || end <= g.a[0].k || begin >= g.a[0].k);
          t.out = direct ? to[0][0] : sums;
          t.out_row = direct ? g.c_row : kPanel;
          t.add = direct && !overwrite;
          run_rows<Float32, Layout::interleaved, kGradTile>(count, t, 0, 0, wide);
          for (std::int64_t m = 0; m < count && !direct; ++m)
            for (std::int64_t j = 0; j < wide; ++j) {
              const std::int64_t left = n_end - now.column[v + j].column;
              const vec sum = load(sums + m * kPanel + j * W);
              store_upto(to[m][j], overwrite ? sum : add(load_upto(to[m][j], left), sum), left);
            }
        });
      }
    }
    first += kGradBlock;
  } while (first < g.m);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
