// One pass of a step forward: the chains of a group of units, and what is made of them. Included by isa.inl after cell.inl.

namespace seqcore::SEQCORE_ISA {
namespace {

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

struct RowGroups;

// What a pass does in every step.
struct PassPlan {
  const Strips* strips;
  Pass pass;
  const float* packed;
  float* hoisted;
  std::int64_t size, columns;  // of a group: packed floats; columns that x's half is hoisted from
  std::int64_t begin, end;     // this call's groups
  std::int64_t last;           // of all
  int gates;
  RowGroups* row;  // for a single row (row.inl), or null
  int rows;        // of these
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

// Row-wise path: gate g of whole rows through its activation, in place, and what the slot keeps of it into the cache.
void settle(const Step& s, const Block& z, int g, Activation a) {
  for (std::int64_t i = 0; i < z.rows; ++i) {
    float* row = z.at(i, g);
    if (s.gates && needs_input(a)) copy_row(s.units, row, s.slot(s.rows[i], g));
    activate(a, 1, s.units, row, 0, row, 0);
    if (s.gates && !needs_input(a)) copy_row(s.units, row, s.slot(s.rows[i], g));
  }
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
