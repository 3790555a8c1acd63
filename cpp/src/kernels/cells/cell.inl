// What the recurrent cells share: packing, the walk over steps, rows and groups of units, the gradient of the state, and
// activations that are known at compile time where it pays. Included by isa.inl, before the cells.
//
// Forward, a cell is one or two passes over its units in groups of a few vectors. A group's pre-activations are strips,
// products over the input, the state or both that share their packed columns; they go to L1, for all rows, and the cell's
// `finish` makes h, c and caches of them there.

namespace seqcore::SEQCORE_ISA {
namespace {

// -------------------------------------------------------------------------------------------------- activations
// An activation is a type where it is common enough to be inlined into a cell, else a value.

template <Activation a>
struct Fixed {
  static constexpr Activation value = a;
  explicit Fixed(Activation = a) {}
};
struct Chosen {
  Activation value;
  explicit Chosen(Activation a) : value(a) {}
};
using Linear = Fixed<Activation::linear>;

__attribute__((noinline)) vec activate_chosen(Activation a, vec x) { return activate(a, x); }
__attribute__((noinline)) vec slope_chosen(Activation a, vec cache) { return activation_gradient(a, cache); }
template <Activation a, class V>
SEQCORE_INLINE V apply(Fixed<a>, V x) {
  return activate(a, x);
}
SEQCORE_INLINE vec apply(Chosen a, vec x) { return activate_chosen(a.value, x); }
template <class V>
SEQCORE_INLINE twice<V> apply(Chosen a, twice<V> x) {
  return {apply(a, x.a), apply(a, x.b)};
}
template <Activation a, class V>
SEQCORE_INLINE V slope(Fixed<a>, V cache) {
  return activation_gradient(a, cache);
}
SEQCORE_INLINE vec slope(Chosen a, vec cache) { return slope_chosen(a.value, cache); }
template <class V>
SEQCORE_INLINE twice<V> slope(Chosen a, twice<V> cache) {
  return {slope(a, cache.a), slope(a, cache.b)};
}
// What a slot keeps of (pre-activation x, output y), and the output from what it keeps.
template <class A, class V>
SEQCORE_INLINE V kept(A a, V x, V y) {
  return needs_input(a.value) ? x : y;
}
template <class A, class V>
SEQCORE_INLINE V output(A a, V cache) {
  return needs_input(a.value) ? apply(a, cache) : cache;
}

// The instance of a function template over the two activations' types.
#define SEQCORE_BY_ACTIVATIONS(function, act, rec)                      \
  ((rec) == Activation::sigmoid && (act) == Activation::tanh            \
       ? &function<Fixed<Activation::tanh>, Fixed<Activation::sigmoid>> \
   : (rec) == Activation::sigmoid && (act) == Activation::relu          \
       ? &function<Fixed<Activation::relu>, Fixed<Activation::sigmoid>> \
       : &function<Chosen, Chosen>)

// f(j) over the vectors from `begin` to `end`.
template <class F>
SEQCORE_INLINE void each_vector(std::int64_t begin, std::int64_t end, F f) {
  for (std::int64_t j = begin; j < end; j += W) f(j);
}
template <class F>
SEQCORE_INLINE void each_vector(std::int64_t units, F f) {
  each_vector(0, units, f);
}

void copy_row(std::int64_t units, const float* from, float* to) {
  each_vector(units, [=](std::int64_t j) { store(to + j, load(from + j)); });
}

// ------------------------------------------------------------------------------------------------------ packing
// A group of n units: for each strip, whose columns are gates x n units, its bias, then the packed columns of W and of U.
// The last group has the units that are left, so that its gates lie side by side without a gap; with per_gate it is as
// wide as the others, so that each gate's panels are its own.

enum class Bias { input, recurrent, both };  // Keras's b[2][3H] of reset after; others have only the first row
struct Strip {
  int gate, gates;
  bool input, state;  // which of the two it sums over
  Bias bias;
};
struct Strips {
  int width;  // of a group, in vectors of units
  int count;
  Strip strip[3];
};
constexpr Strips gru_strips(int width) {
  return {width,
          3,
          {{0, 2, true, true, Bias::both}, {2, 1, true, false, Bias::input}, {2, 1, false, true, Bias::recurrent}}};
}
struct StripsOfPasses {
  Strips pass[2];
  constexpr const Strips* begin() const { return pass; }
  constexpr const Strips* end() const { return pass + (pass[1].count > 0 ? 2 : 1); }
};
constexpr StripsOfPasses kPasses[kCellKinds] = {
    {{{8, 1, {{0, 1, true, true, Bias::input}}}, {}}},
    {{{2, 1, {{0, 4, true, true, Bias::input}}}, {}}},
    {{gru_strips(W < 16 ? 4 : 2), {}}},
    {{{4, 1, {{0, 2, true, true, Bias::input}}}, {4, 1, {{2, 1, true, true, Bias::input}}}}},
};
// Words come so fast that two vectors would be two chains that wait for themselves.
constexpr StripsOfPasses kGruWords = {{gru_strips(4), {}}};
constexpr const StripsOfPasses& passes_of(CellKind kind, Precision precision) {
  const bool words = kind == CellKind::gru_reset_after && precision != Precision::float32;
  return words ? kGruWords : kPasses[static_cast<int>(kind)];
}
constexpr int kGroupColumns = 16 * W;  // at most
constexpr int kStripColumns = 8 * W;

// The sizes that a cell's packed weights follow from.
struct Geometry {
  std::int64_t input, units;
  bool per_gate;
  Precision precision;

  std::int64_t group_units(const Strips& strips, std::int64_t unit) const {
    return per_gate ? strips.width * W : least(strips.width * W, units - unit);
  }
  std::int64_t groups(const Strips& strips) const { return (units + strips.width * W - 1) / (strips.width * W); }
  std::int64_t input_size(const Strip& strip, std::int64_t columns) const {
    return strip.input ? packed_matrix_size(precision, input, columns) : 0;
  }
  std::int64_t state_size(const Strip& strip, std::int64_t columns) const {
    return strip.state ? packed_matrix_size(precision, units, columns) : 0;
  }
  std::int64_t group_size(const Strips& strips, std::int64_t n) const {
    std::int64_t size = 0;
    for (int i = 0; i < strips.count; ++i) {
      const std::int64_t columns = packed_columns(strips.strip[i].gates * n);
      size += columns + input_size(strips.strip[i], columns) + state_size(strips.strip[i], columns);
    }
    return size;
  }
  std::int64_t pass_size(const Strips& strips) const {
    const std::int64_t whole = groups(strips) - 1;
    return whole * group_size(strips, strips.width * W) +
           group_size(strips, group_units(strips, whole * strips.width * W));
  }
};

std::int64_t packed_cell_size(CellKind kind, std::int64_t input, std::int64_t units, bool per_gate,
                              Precision precision) {
  const Geometry geometry{input, units, per_gate, precision};
  std::int64_t size = 0;
  for (const Strips& strips : passes_of(kind, precision)) size += geometry.pass_size(strips);
  return size;
}

std::int64_t cell_shares(CellKind kind, std::int64_t units, bool backward, Precision precision) {
  const std::int64_t unit = backward ? kPanel : passes_of(kind, precision).pass[0].width * W;
  return (units + unit - 1) / unit;
}

// The columns of one strip and group, of a matrix with k rows of `row` floats: column c is gate c / n, unit + c % n.
void pack_strip(const float* from, std::int64_t row, std::int64_t k, const Strip& strip, std::int64_t unit,
                std::int64_t n, std::int64_t units, Packing packing, float* packed) {
  const std::int64_t columns = strip.gates * n, all = packed_columns(columns);
  float* const to = packed + words_at(packing.precision, all);
  for (std::int64_t c = 0; c < columns; c += kPanel) {
    const std::int64_t width = least(kPanel, all - c);
    if (n % kPanel == 0 && packing.precision == Precision::float32) {
      const std::int64_t first = unit + c % n;
      pack_panel(from + (strip.gate + c / n) * units + first, row, 1, k, units - first, width, to + c * k);
      continue;
    }
    const float* column[kPanel];  // where each begins, or null: zeros
    for (std::int64_t j = 0; j < width; ++j) {
      const std::int64_t u = unit + (c + j) % n;
      column[j] = c + j < columns && u < units ? from + (strip.gate + (c + j) / n) * units + u : nullptr;
    }
    const auto at = [&](std::int64_t i, std::int64_t j) { return column[j] ? column[j][i * row] : 0.0f; };
    if (packing.precision != Precision::float32) {
      pack_words(packing, k, width, at, packed + c, packed + all + c, to + c * words(packing.precision, k));
      continue;
    }
    for (std::int64_t i = 0; i < k; ++i)
      for (std::int64_t j = 0; j < width; ++j) to[c * k + i * width + j] = at(i, j);
  }
}

void pack_cell(CellKind kind, const CellWeights& w, bool per_gate, Packing packing, float* packed) {
  const std::int64_t row = cell_gates(kind) * w.units;
  const Geometry geometry{w.input, w.units, per_gate, packing.precision};
  for (const Strips& strips : passes_of(kind, packing.precision)) {
    const std::int64_t width = strips.width * W;
    const Stretch mine = stretch_of(geometry.groups(strips), packing);
    float* const pass = packed;
    packed += mine.begin * geometry.group_size(strips, width);
    for (std::int64_t group = mine.begin; group < mine.end; ++group) {
      const std::int64_t unit = group * width, n = geometry.group_units(strips, unit);
      for (int i = 0; i < strips.count; ++i) {
        const Strip& strip = strips.strip[i];
        const std::int64_t columns = packed_columns(strip.gates * n);
        for (std::int64_t c = 0; c < columns; ++c) {
          const std::int64_t at = unit + c % n;
          const float* b =
              w.b && c < strip.gates * n && at < w.units ? w.b + (strip.gate + c / n) * w.units + at : nullptr;
          *packed++ = !b                              ? 0.0f
                      : strip.bias == Bias::recurrent ? b[row]
                      : strip.bias == Bias::both      ? b[0] + b[row]
                                                      : b[0];
        }
        if (strip.input) pack_strip(w.w, row, w.input, strip, unit, n, w.units, packing, packed);
        packed += geometry.input_size(strip, columns);
        if (strip.state) pack_strip(w.u, row, w.units, strip, unit, n, w.units, packing, packed);
        packed += geometry.state_size(strip, columns);
      }
    }
    packed = pass + geometry.pass_size(strips);
  }
}

// The transposed recurrent weights, a product of depth H for each gate.
std::int64_t packed_cell_backward_size(CellKind kind, std::int64_t units) {
  return cell_gates(kind) * packed_product_size(units, units, Precision::float32);
}

void pack_cell_backward(CellKind kind, const CellWeights& w, Packing packing, float* packed) {
  const std::int64_t row = cell_gates(kind) * w.units;
  const std::int64_t one = packed_product_size(w.units, w.units, Precision::float32);
  for (int g = 0; g < cell_gates(kind); ++g)
    pack_product(w.u + g * w.units, 1, row, w.units, w.units, packing, packed + g * one);
}

// ------------------------------------------------------------------------------------------------------- forward

// With so few rows a step is bound by reading its weights. Then x's half of as many steps as make this many rows is made at
// once, and the chains go on from there: W is read once a stretch, not once a step.
constexpr std::int64_t kHoistRows = 24;
constexpr std::int64_t kHoistBelow = 4;   // rows
constexpr std::int64_t kHoistInput = 32;  // features

// Rows that meet a half of the weights: of x or of the state; floats or words.
struct Side {
  const float* base;
  const std::ptrdiff_t* offset;  // of each valid row
  std::int64_t k;
  std::ptrdiff_t gate;  // 0, or the distance between the gates' own
  const float* scale;   // int8: of each valid row
};

// One step of one block of rows. Pointers are at the block's first row; rows lists the valid ones, counted from there.
struct Step {
  Activation activation, recurrent_activation;
  Geometry geometry;
  const Dot* dot;
  std::int64_t units, stride, slots, m;  // stride = pad(units)
  const std::int32_t* rows;
  Side x, state;
  const float* h;
  float* h_next;
  const float* c;
  float* c_next;
  float* gates;        // or null
  Side ahead;          // x of the stretch of steps that starts here, k 0 if none does
  std::int64_t steps;  // of that stretch
  std::int64_t past;   // steps of the stretch that lie before this one
  const float* scale;  // recurrent dropout [G][..][stride], or null
  std::ptrdiff_t scale_gate;
  float* own[2];  // a cell's own planes, [row][stride]
  float* whole;   // for row-wise activations: [4 gates][row][stride]
  float* sums;    // int8: [rows][kStripColumns]
  Soon* soon;     // or null
  bool far;       // its weights
  float* slot(std::int64_t row, int s) const { return gates + (row * slots + s) * stride; }
};

// Pre-activations of all valid rows and of units unit .. unit + width.
struct Block {
  float* data;
  std::ptrdiff_t row;
  std::ptrdiff_t gate[4];  // where its columns begin
  std::int64_t rows, unit, width;
  float* at(std::int64_t i, int g) const { return data + i * row + gate[g]; }
};

using Finish = void (*)(const Step& s, const Block& z);
struct Pass {
  Finish finish;      // of a group
  Finish finish_all;  // where an activation is row-wise: of whole rows
  // Or null: of two whole groups at once, for a single row, where one leaves the processor waiting.
  void (*finish_two)(const Step& s, const Block& z, const Block& second) = nullptr;
};
struct Passes {
  Pass at[2];
};

// Where chains start and where they go, and how far it is to the weights of the group after theirs.
struct Chains {
  const float* init;
  std::ptrdiff_t init_row;
  float* out;
  std::ptrdiff_t out_row;
  std::ptrdiff_t next_group;
};

// The chains of one strip over the sides, two at most, whose packed halves are w[i].
void strip_chains(const Step& s, const Side* const* sides, const float* const* w, int count, std::int64_t m,
                  std::int64_t columns, Chains c) {
  if (s.geometry.precision == Precision::int8 && count > 0) {
    for (int i = 0; i < count; ++i) {
      Product t;
      t.segments = 1;
      t.a[0] = {sides[i]->base, sides[i]->offset, sides[i]->k, w[i] + 2 * columns};
      t.init = w[i] + columns;
      t.init_row = 0;
      t.out = s.sums;
      t.out_row = columns;
      s.dot->int8(t, m, columns / W);
      add_scaled(m, columns, s.sums, sides[i]->scale, w[i], c.init, c.init_row, c.out, c.out_row);
      c.init = c.out;
      c.init_row = c.out_row;
    }
    return;
  }
  Product t;
  t.segments = count;
  for (int i = 0; i < count; ++i) t.a[i] = {sides[i]->base, sides[i]->offset, sides[i]->k, w[i], w[i] + c.next_group};
  t.init = c.init;
  t.init_row = c.init_row;
  t.out = c.out;
  t.out_row = c.out_row;
  t.soon = s.soon;
  t.far = s.far;
  if (s.geometry.precision == Precision::bfloat16)
    s.dot->bfloat16(t, m, columns / W);
  else  // or no side at all: a copy
    multiply<Float32>(t, m, columns / W);
}

// f(strip, first column, columns, bias, w, u) of each strip of a group of n units, packed from `packed` on.
template <class F>
SEQCORE_INLINE void each_strip(const Geometry& geometry, const Strips& strips, std::int64_t n, const float* packed,
                               F f) {
  std::ptrdiff_t column = 0;
  for (int i = 0; i < strips.count; ++i) {
    const Strip& strip = strips.strip[i];
    const std::int64_t columns = packed_columns(strip.gates * n);
    const float* const w = packed + columns;
    const float* const u = w + geometry.input_size(strip, columns);
    f(strip, column, columns, packed, w, u);
    column += columns;
    packed = u + geometry.state_size(strip, columns);
  }
}

// The strips of a group, each gate's columns to z.
void group_chains(const Step& s, const Strips& strips, std::int64_t n, const float* packed, std::ptrdiff_t next_group,
                  float* hoisted, Block& z) {
  int gate = 0;
  each_strip(s.geometry, strips, n, packed,
             [&](const Strip& strip, std::ptrdiff_t column, std::int64_t columns, const float* bias, const float* w,
                 const float* u) {
               for (int g = 0; g < strip.gates; ++g) z.gate[gate++] = column + g * n;
               Chains c{bias, 0, z.data + column, z.row, next_group};
               const Side* sides[2];
               const float* halves[2];
               int count = 0;
               if (strip.input && hoisted) {
                 const Side* ahead = &s.ahead;
                 if (ahead->k > 0)
                   strip_chains(s, &ahead, &w, 1, s.steps * s.m, columns, {bias, 0, hoisted, columns, next_group});
                 c.init = hoisted + s.past * s.m * columns;
                 c.init_row = columns;
                 hoisted += kHoistRows * columns;
               } else if (strip.input) {
                 sides[count] = &s.x;
                 halves[count++] = w;
               }
               if (strip.state) {
                 sides[count] = &s.state;
                 halves[count++] = u;
               }
               if (s.x.gate == 0 && s.state.gate == 0) return strip_chains(s, sides, halves, count, s.m, columns, c);
               for (int g = 0; g < strip.gates; ++g) {
                 Side own[2];
                 const Side* mine[2] = {&own[0], &own[1]};
                 const float* w_own[2];
                 for (int k = 0; k < count; ++k) {
                   own[k] = *sides[k];
                   own[k].base += (strip.gate + g) * own[k].gate;
                   w_own[k] = halves[k] + g * n * own[k].k;
                 }
                 strip_chains(s, mine, w_own, count, s.m, n,
                              {c.init + g * n, c.init_row, c.out + g * n, c.out_row, next_group});
               }
             });
}

// Row-wise path: a group's pre-activations to their whole rows.
void keep_whole(const Step& s, const Block& z, int gates) {
  for (std::int64_t i = 0; i < z.rows; ++i)
    for (int g = 0; g < gates; ++g)
      each_vector(z.width, [&](std::int64_t j) {
        store(s.whole + (g * z.rows + i) * s.stride + z.unit + j, load(z.at(i, g) + j));
      });
}

// What a pass does in every step.
struct PassPlan {
  const Strips* strips;
  Pass pass;
  const float* packed;
  float* hoisted;
  std::int64_t size, columns;  // of a group: packed floats; columns that x's half is hoisted from
  std::int64_t begin, end;     // this call's groups
  std::int64_t last;           // of all
  bool even;                   // the last is as wide as the others
  int gates;
};

// What the cell's finish reads and writes of a group's units.
void fetch_group(const Step& s, const Strips& strips, std::int64_t unit, std::int64_t width) {
  Soon& soon = *s.soon;
  soon.pieces = 0;
  const auto add = [&](const float* at, std::ptrdiff_t row) { soon.piece[soon.pieces++] = {at + unit, row}; };
  if (s.c) add(s.c_next, s.stride);
  add(s.h_next, s.stride);
  for (int i = 0; i < s.slots; ++i) add(s.slot(0, i), s.slots * s.stride);
  soon.lines = static_cast<int>((width + kPad - 1) / kPad);
  soon.row = 0;
  soon.end = s.rows[s.m - 1] + 1;
  fetch_evenly(soon, s.m, s.geometry.input + s.geometry.units, strips.strip[0].gates * vectors(width));
}

// One pass of a step. Backwards every other step, so that of weights beyond the L2 what was read last is still there.
void run_pass(const Step& s, const PassPlan& p, float* chains, bool backwards) {
  const std::int64_t width = p.strips->width * W;
  for (std::int64_t i = p.begin; i < p.end; ++i) {
    const std::int64_t group = backwards ? p.begin + p.end - 1 - i : i, unit = group * width;
    Block z{chains, p.gates * width, {}, s.m, unit, least(width, vectors(s.units - unit) * W)};
    if (s.soon) fetch_group(s, *p.strips, unit, z.width);
    const std::ptrdiff_t next_group = i + 1 == p.end ? 0 : backwards ? -p.size : p.size;
    group_chains(s, *p.strips, s.geometry.group_units(*p.strips, unit), p.packed + group * p.size, next_group,
                 p.hoisted ? p.hoisted + group * p.columns * kHoistRows : nullptr, z);
    if (p.pass.finish_all)
      keep_whole(s, z, p.gates);
    else
      p.pass.finish(s, z);
  }
  if (p.pass.finish_all) {
    Block z{s.whole, s.stride, {}, s.m, 0, vectors(s.units) * W};
    for (int g = 0; g < p.gates; ++g) z.gate[g] = g * s.m * s.stride;
    p.pass.finish_all(s, z);
  }
}

constexpr bool is_whole(Activation act, Activation rec) { return is_rowwise(act) || is_rowwise(rec); }

// Scratch of a block of rows. Planes are [rows][pad(units)].
struct ForwardScratch {
  std::int64_t scaled, whole, own, chains, hoisted, x_row, h_row, x_words, h_words, scales, sums, end;
  ForwardScratch(CellKind kind, const CellForwardArgs& a, std::int64_t rows) {
    const std::int64_t plane = rows * pad(a.units);
    const bool hoist = hoists(a, rows), coded = a.precision != Precision::float32;
    const std::int64_t coded_rows = coded ? (hoist ? kHoistRows : rows) : 0;
    scaled = 0;                                                           // states, a plane for each gate
    whole = scaled + (a.recurrent_scale ? cell_gates(kind) * plane : 0);  // pre-activations of whole rows
    own = whole + (is_whole(a.activation, a.recurrent_activation) ? 4 * plane : 0);
    chains = own + (kind == CellKind::gru_reset_before ? 2 * plane : 0);  // of a group
    hoisted = chains + (rows == 1 ? 2 : rows) * kGroupColumns;
    x_words = hoisted + (hoist ? pad(kHoistRows * cell_gates(kind) * (a.units + kGroupColumns)) : 0);
    x_row = encoded_row(a.precision, a.input);
    h_row = encoded_row(a.precision, a.units);
    h_words = x_words + coded_rows * x_row;
    scales = h_words + (coded ? rows * h_row : 0);  // of x, then of the state
    sums = scales + (coded ? 2 * pad(kHoistRows + kRowBlock) : 0);
    end = sums + (coded ? (rows + coded_rows) * kStripColumns : 0);
  }
  static bool hoists(const CellForwardArgs& a, std::int64_t rows) {
    return rows <= kHoistBelow && a.input >= kHoistInput && !a.mask && a.x_gate == 0 && !a.recurrent_scale &&
           a.t_end - a.t_begin > 1;
  }
};
std::int64_t forward_scratch(CellKind kind, const CellForwardArgs& a) {
  const std::int64_t rows = a.row_end - a.row_begin;
  std::int64_t size = 0;  // whoever shares the rows out may call with any part of them
  for (std::int64_t r = 1; r <= least(rows, kRowBlock); ++r) {
    const std::int64_t end = ForwardScratch(kind, a, r).end;
    size = end > size ? end : size;
  }
  return pad(size);
}

// Slots of the whole sequence that no L2 holds: they are fetched while products are made.
template <class Args>
bool slots_are_far(const Args& a, std::int64_t slots) {
  return (a.t_end - a.t_begin) * a.batch * slots * pad(a.units) * 4 >= kFar;
}

SEQCORE_INLINE void sync(const Share& share) {
  if (share.sync) share.sync(share.context);
}

constexpr std::ptrdiff_t kNoOffset[1] = {0};
constexpr std::int32_t kFirstRow[1] = {0};

// The rows of a side as words, one after the other; offsets for them are written to `offset`.
Side encoded(const Step& s, const Side& side, std::int64_t m, std::int64_t row, float* to, float* scale,
             std::ptrdiff_t* offset) {
  for (std::int64_t i = 0; i < m; ++i) {
    encode(s.geometry.precision, side.base + side.offset[i], side.k, to + i * row, scale + i);
    offset[i] = i * row;
  }
  return {to, offset, words(s.geometry.precision, side.k), 0, scale};
}

// What does not change from step to step.
struct Plan {
  Step s;
  PassPlan passes[2];
  int count;
  bool coded;
  Side x, state;  // without their rows
};

// Of `count` rows from row0 on.
Plan make_plan(const CellForwardArgs& a, CellKind kind, const Passes& passes, std::int64_t row0, std::int64_t count,
               const ForwardScratch& space) {
  const std::int64_t stride = pad(a.units);
  Plan plan{};
  Step& s = plan.s;
  s.activation = a.activation;
  s.recurrent_activation = a.recurrent_activation;
  s.geometry = {a.input, a.units, a.per_gate, a.precision};
  s.dot = a.dot;
  s.units = a.units;
  s.stride = stride;
  s.slots = cell_slots(kind);
  s.far = packed_cell_size(kind, a.input, a.units, a.per_gate, a.precision) * 4 >= kFarWeights;
  s.whole = a.scratch + space.whole;
  s.own[0] = a.scratch + space.own;
  s.own[1] = s.own[0] + count * stride;
  s.sums = a.scratch + space.sums;
  s.scale = a.recurrent_scale ? a.recurrent_scale + row0 * stride : nullptr;
  s.scale_gate = a.batch * stride;
  plan.coded = a.precision != Precision::float32;
  plan.x = {nullptr, nullptr, a.input, a.x_gate, nullptr};
  plan.state = {nullptr, nullptr, a.units, 0, nullptr};
  const float* packed = a.packed;
  float* hoisted = ForwardScratch::hoists(a, count) ? a.scratch + space.hoisted : nullptr;
  for (const Strips& strips : passes_of(kind, a.precision)) {
    const std::int64_t groups = s.geometry.groups(strips), width = strips.width * W;
    PassPlan& p = plan.passes[plan.count];
    p = {&strips,
         passes.at[plan.count],
         packed,
         hoisted,
         s.geometry.group_size(strips, width),
         0,
         groups * a.share.part / a.share.parts,
         groups * (a.share.part + 1) / a.share.parts,
         groups - 1,
         a.units % width == 0,
         0};
    for (int i = 0; i < strips.count; ++i) {
      p.gates += strips.strip[i].gates;
      if (strips.strip[i].input) p.columns += packed_columns(strips.strip[i].gates * width);
    }
    packed += s.geometry.pass_size(strips);
    if (hoisted) hoisted += kHoistRows * groups * p.columns;
    ++plan.count;
  }
  return plan;
}

void forward_block(const CellForwardArgs& a, CellKind kind, const Passes& passes, std::int64_t row0,
                   std::int64_t count) {
  std::int32_t rows[kRowBlock];
  std::ptrdiff_t x_offset[kRowBlock], h_offset[kRowBlock], ahead_offset[kHoistRows];
  std::ptrdiff_t x_words_offset[kRowBlock], h_words_offset[kRowBlock], ahead_words_offset[kHoistRows];
  const std::int64_t stride = pad(a.units), all = a.batch * stride;
  const int gates = cell_gates(kind);
  const ForwardScratch space(kind, a, count);
  float* const x_scale = a.scratch + space.scales;
  float* const h_scale = x_scale + pad(kHoistRows + kRowBlock);
  const bool hoist = ForwardScratch::hoists(a, count);
  Plan plan = make_plan(a, kind, passes, row0, count, space);
  Step& s = plan.s;
  const bool coded = plan.coded;

  if (count == 1 && !a.mask) {
    s.rows = kFirstRow;
    s.x.offset = s.state.offset = kNoOffset;
    s.m = 1;
  } else {
    s.rows = rows;
    for (std::int64_t r = 0; r < count; ++r) {
      rows[r] = static_cast<std::int32_t>(r);
      x_offset[r] = r * a.x.row;
      h_offset[r] = r * stride;
    }
    s.x.offset = x_offset;
    s.state.offset = h_offset;
    s.m = count;
  }
  Side x = plan.x, state = plan.state;
  x.offset = s.x.offset;
  state.offset = s.state.offset;
  Soon soon{};
  const bool far = a.gates && slots_are_far(a, s.slots);
  s.soon = far ? &soon : nullptr;
  const std::int64_t stretch = hoist ? kHoistRows / count : 1;
  std::int64_t h_slot = a.t_begin % a.h_slots, c_slot = a.c ? a.t_begin % a.c_slots : 0;
  for (std::int64_t t = a.t_begin; t < a.t_end; ++t) {
    const std::int64_t h_after = h_slot + 1 == a.h_slots ? 0 : h_slot + 1;
    s.h = a.h + h_slot * all + row0 * stride;
    s.h_next = a.h + h_after * all + row0 * stride;
    h_slot = h_after;
    if (a.c) {
      const std::int64_t c_after = c_slot + 1 == a.c_slots ? 0 : c_slot + 1;
      s.c = a.c + c_slot * all + row0 * stride;
      s.c_next = a.c + c_after * all + row0 * stride;
      c_slot = c_after;
    }
    if (a.gates) s.gates = a.gates + (t * a.batch + row0) * s.slots * stride;
    if (a.mask) {
      s.m = 0;
      for (std::int64_t r = 0; r < count; ++r) {
        if (!a.mask[t * a.mask_step + row0 + r]) {
          if (a.share.part > 0) continue;
          copy_row(a.units, s.h + r * stride, s.h_next + r * stride);
          if (a.c && s.c != s.c_next) copy_row(a.units, s.c + r * stride, s.c_next + r * stride);
          continue;
        }
        rows[s.m] = static_cast<std::int32_t>(r);
        x_offset[s.m] = r * a.x.row;
        h_offset[s.m++] = r * stride;
      }
    }
    s.x = x;
    s.x.base = a.x.data + t * a.x.step + row0 * a.x.row;
    s.state = state;
    s.state.base = s.h;
    if (s.scale) {
      for (int g = 0; g < gates; ++g)
        for (std::int64_t i = 0; i < s.m; ++i) {
          const std::ptrdiff_t at = state.offset[i];
          each_vector(a.units, [&](std::int64_t j) {
            store(a.scratch + space.scaled + g * count * stride + at + j,
                  mul(load(s.h + at + j), load(s.scale + g * s.scale_gate + at + j)));
          });
        }
      s.state.base = a.scratch + space.scaled;
      s.state.gate = count * stride;
    }
    if (hoist) {
      s.past = s.past + 1 < stretch && t > a.t_begin ? s.past + 1 : 0;
      s.steps = s.past == 0 ? least(stretch, a.t_end - t) : 0;
      s.ahead = {s.x.base, ahead_offset, s.steps > 0 ? a.input : 0, 0, nullptr};
      for (std::int64_t step = 0, i = 0; step < s.steps; ++step)
        for (std::int64_t r = 0; r < count; ++r) ahead_offset[i++] = step * a.x.step + r * a.x.row;
      if (coded && s.steps > 0)
        s.ahead =
            encoded(s, s.ahead, s.steps * count, space.x_row, a.scratch + space.x_words, x_scale, ahead_words_offset);
    } else if (coded) {
      s.x = encoded(s, s.x, s.m, space.x_row, a.scratch + space.x_words, x_scale, x_words_offset);
    }
    for (int p = 0; p < plan.count && s.m > 0; ++p) {
      if (p == 1) {  // the second pass of reset before: r*h is the state
        s.state = state;
        s.state.base = s.own[1];
      }
      if (coded) s.state = encoded(s, s.state, s.m, space.h_row, a.scratch + space.h_words, h_scale, h_words_offset);
      run_pass(s, plan.passes[p], a.scratch + space.chains, t & 1);
    }
    sync(a.share);
  }
}

void forward(const CellForwardArgs& a, CellKind kind, const Passes& passes) {
  split_evenly(a.row_end - a.row_begin, kRowBlock, [&](std::int64_t first, std::int64_t count) {
    forward_block(a, kind, passes, a.row_begin + first, count);
  });
}

// Row-wise path: gate g of whole rows through its activation, in place, and what the slot keeps of it into the cache.
void settle(const Step& s, const Block& z, int g, Activation a) {
  for (std::int64_t i = 0; i < z.rows; ++i) {
    float* row = z.at(i, g);
    if (s.gates && needs_input(a)) copy_row(s.units, row, s.slot(s.rows[i], g));
    activate(a, 1, s.units, row, 0, row, 0);
    if (s.gates && !needs_input(a)) copy_row(s.units, row, s.slot(s.rows[i], g));
  }
}

// ------------------------------------------------------------------------------------------------------ backward

struct BackwardStep {
  Activation activation, recurrent_activation;
  std::int64_t units, stride, slots, m;
  std::int64_t begin, end;  // of the units, this call's share
  std::int32_t rows[kRowBlock];
  std::ptrdiff_t dz_offset[kRowBlock];
  float* gates;
  const float* h;       // before the step
  const float* c;       // before the step
  const float* c_next;  // after it
  float* dh;
  float* dc;
  const float* scale;
  std::ptrdiff_t scale_gate;
  Soon* soon;      // or null
  float* chains;   // [2][kChains]
  float* scratch;  // [kSpareRows][stride] for one row, then, for gru_reset_before, [rows][stride]

  float* slot(std::int64_t row, int s) const { return gates + (row * slots + s) * stride; }
  float* spare(int i) const { return scratch + i * stride; }
};

constexpr int kSpareRows = 6;
std::int64_t backward_scratch(CellKind kind, const CellBackwardArgs& a) {
  const std::int64_t planes = kind == CellKind::gru_reset_before ? least(a.row_end - a.row_begin, kRowBlock) : 0;
  return (kSpareRows + planes) * pad(a.units) + 2 * kChains;
}

// Walks back in time; dh holds dy of the step too when body(step) is called. Between turning the slots into gradients and
// summing over them a body calls sync(share).
template <class F>
void each_step_back(const CellBackwardArgs& a, CellKind kind, F body) {
  const std::int64_t stride = pad(a.units);
  const std::int64_t panels = (a.units + kPanel - 1) / kPanel;
  split_evenly(a.row_end - a.row_begin, kRowBlock, [&](std::int64_t first, std::int64_t count) {
    const std::int64_t row0 = a.row_begin + first;
    BackwardStep s{};
    s.activation = a.activation;
    s.recurrent_activation = a.recurrent_activation;
    s.units = a.units;
    s.stride = stride;
    s.slots = cell_slots(kind);
    s.begin = panels * a.share.part / a.share.parts * kPanel;
    s.end = least(panels * (a.share.part + 1) / a.share.parts * kPanel, a.units);
    s.dh = a.dh + row0 * stride;
    s.dc = a.dc ? a.dc + row0 * stride : nullptr;
    s.scale = a.recurrent_scale ? a.recurrent_scale + row0 * stride : nullptr;
    s.scale_gate = a.batch * stride;
    Soon soon{};
    // Not where reading the weights would drive them out of an L2 again.
    const bool far =
        a.share.parts == 1 && slots_are_far(a, s.slots) && packed_cell_backward_size(kind, a.units) * 4 < kFar;
    s.soon = far ? &soon : nullptr;
    s.chains = a.scratch;
    s.scratch = a.scratch + 2 * kChains;
    for (std::int64_t t = a.t_end - 1; t >= a.t_begin; --t) {
      s.gates = a.gates + (t * a.batch + row0) * s.slots * stride;
      s.h = a.h + (t * a.batch + row0) * stride;
      if (a.c) {
        s.c = a.c + (t * a.batch + row0) * stride;
        s.c_next = s.c + a.batch * stride;
      }
      s.m = 0;
      for (std::int64_t r = 0; r < count; ++r) {
        const bool valid = !a.mask || a.mask[t * a.mask_step + row0 + r];
        if (a.dy.data && (valid || !a.zero_output_for_mask)) {
          const float* dy = a.dy.data + t * a.dy.step + (row0 + r) * a.dy.row;
          float* dh = s.dh + r * stride;
          each_vector(s.begin, s.end,
                      [&](std::int64_t j) { store(dh + j, add(load(dh + j), load_upto(dy + j, a.units - j))); });
        }
        if (!valid) continue;
        s.rows[s.m] = static_cast<std::int32_t>(r);
        s.dz_offset[s.m++] = r * s.slots * stride;
      }
      if (s.m == 0) continue;
      if (far && t > a.t_begin) {
        const std::int64_t all = s.slots * stride;
        soon = {{{s.gates - a.batch * all, kPad}}, 1, 1, 0, 0, count * all / kPad};
        fetch_evenly(soon, s.m, cell_gates(kind) * a.units, vectors(a.units));
      }
      body(s);
    }
  });
}

// out = chain from 0 over the gates' slots, units in order, of dz * Uᵀ; with recurrent dropout the sum over gates, in
// order, of scale * (the gate's own chain). `direct`: plus what out holds, added last. out: [rows][stride]. Of Uᵀ's
// panels only this call's share.
template <int G>
void state_gradient(const BackwardStep& s, const float* packed, const int (&slots)[G], int first_gate, bool direct,
                    float* out) {
  const std::int64_t size = packed_product_size(s.units, s.units, Precision::float32);
  const std::int64_t most = columns_at_once(s.m);
  for (std::int64_t unit = s.begin; unit < s.end; unit += most) {
    const std::int64_t width = least(most, packed_columns(s.end - unit));
    Product t;
    t.init = kZeros;
    t.init_row = 0;
    t.out_row = width;
    const auto operand = [&](int g) {
      return Operand{s.gates + slots[g] * s.stride, s.dz_offset, s.units, packed + g * size + unit * s.units};
    };
    if (!s.scale) {
      t.segments = G;
      for (int g = 0; g < G; ++g) t.a[g] = operand(g);
      // Where the rows are neither listed nor added to, the chains are made where they belong.
      const bool there = !direct && s.rows[s.m - 1] == s.m - 1;
      t.soon = s.soon;
      t.far = G * size * 4 >= kFarWeights;
      t.out = there ? out + unit : s.chains;
      if (there) t.out_row = s.stride;
      multiply<Float32>(t, s.m, width / W);
      if (there) continue;
    } else {
      t.segments = 1;
      for (int g = 0; g < G; ++g) {
        t.a[0] = operand(g);
        t.out = g == 0 ? s.chains : s.chains + s.m * width;
        multiply<Float32>(t, s.m, width / W);
        for (std::int64_t i = 0; i < s.m; ++i)
          each_vector(width, [&](std::int64_t j) {
            const float* scale = s.scale + (first_gate + g) * s.scale_gate + s.rows[i] * s.stride + unit + j;
            float* sum = s.chains + i * width + j;
            const vec v = mul(load(scale), load(t.out + i * width + j));
            store(sum, g == 0 ? v : add(load(sum), v));
          });
      }
    }
    for (std::int64_t i = 0; i < s.m; ++i)
      each_vector(width, [&](std::int64_t j) {
        float* to = out + s.rows[i] * s.stride + unit + j;
        const vec v = load(s.chains + i * width + j);
        store(to, direct ? add(v, load(to)) : v);
      });
  }
}

// Row-wise path. unsettle: the slot's cache to spare row i, the activated values to the slot. resettle: the slot's
// gradient through the activation, whose cache is spare row i.
void unsettle(const BackwardStep& s, std::int64_t row, int slot, int i, Activation a) {
  float* at = s.slot(row, slot);
  copy_row(s.units, at, s.spare(i));
  if (needs_input(a)) activate(a, 1, s.units, at, 0, at, 0);
}
void resettle(const BackwardStep& s, std::int64_t row, int slot, int i, Activation a) {
  float* at = s.slot(row, slot);
  activate_backward(a, 1, s.units, s.spare(i), 0, at, 0, at, 0);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
