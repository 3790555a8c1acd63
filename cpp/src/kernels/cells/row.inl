// A pass for a single row: what streams run, and sequences of one. A group's products are described once, but for where the
// row's input and state are; those of a last group too small to keep the loads busy run beside the group's before it.
// Included by isa.inl after pass.inl.

namespace seqcore::SEQCORE_ISA {
namespace {

// One group, or two whose chains are made together.
struct RowGroups {
  RowProduct product;
  RowTile tile;
  const float* init[2];    // of product.init, in the first step of a stretch whose chains over x are made at once
  std::ptrdiff_t step[2];  // from one of its steps to the next
  int count;
  Block z[2];
  bool whole[2];  // as many units as a group can have
};

constexpr std::int64_t kRowGroups = (sizeof(RowGroups) + 63) / 64 * 16;  // floats

bool is_row(const CellForwardArgs& a) {
  return !is_whole(a.activation, a.recurrent_activation) && a.x_gate == 0 && !a.recurrent_scale;
}

// Chains of groups that follow each other lie apart: one waits for the next, which may be two.
constexpr int kRowChains = 3;

void make_row(const Step& s, PassPlan& pass, float* chains, RowGroups* groups) {
  const Strips& strips = *pass.strips;
  const std::int64_t width = strips.width * W;
  pass.row = groups;
  for (std::int64_t group = pass.begin; group < pass.end; ++group) {
    const std::int64_t unit = group * width, n = s.geometry.group_units(strips, unit);
    const bool beside = strips.count == 1 && group == pass.last && group > pass.begin &&
                        vectors(strips.strip[0].gates * n) <= kVectorsBeside &&
                        groups[-1].product.vectors[0] == kRowVectors;
    RowGroups& r = beside ? groups[-1] : *groups++;
    if (!beside) r = {};
    Block& z = r.z[r.count];
    z.data = chains + group % kRowChains * kGroupColumns;
    z.rows = 1;
    z.unit = unit;
    z.width = least(width, vectors(s.units - unit) * W);
    r.whole[r.count++] = n == width && z.width == width;
    RowProduct& t = r.product;
    t.twice = strips.count > 1;
    t.k[0] = pass.hoisted ? 0 : words(s.geometry.precision, s.geometry.input);
    t.k[1] = words(s.geometry.precision, s.geometry.units);
    const float* hoisted = pass.hoisted ? pass.hoisted + group * pass.columns * kHoistRows : nullptr;
    int gate = 0;
    each_strip(s.geometry, strips, n, pass.packed + group * pass.size,
               [&](const Strip& strip, std::ptrdiff_t column, std::int64_t columns, const float* bias, const float* w,
                   const float* u) {
                 for (int g = 0; g < strip.gates; ++g) z.gate[gate++] = column + g * n;
                 const int k = beside || !(strip.input && strip.state);
                 const int chain = k + (strip.input ? 0 : 1);
                 t.vectors[k] = static_cast<int>(columns / W);
                 if (strip.input) t.w[0][k] = w;
                 if (strip.state) t.w[1][k] = u;
                 t.init[chain] = bias;
                 t.out[chain] = z.data + column;
                 if (!strip.input) return;
                 r.init[k] = hoisted ? hoisted : bias;
                 r.step[k] = hoisted ? columns : 0;
                 if (hoisted) hoisted += kHoistRows * columns;
               });
    r.tile = s.geometry.precision == Precision::float32    ? row_tile_of<Float32>(t)
             : s.geometry.precision == Precision::bfloat16 ? s.dot->bfloat16_row(t)
                                                           : s.dot->int8_row(t);
  }
  pass.rows = static_cast<int>(groups - pass.row);
}

// The chains over x of the steps that start here.
void row_ahead(const Step& s, const PassPlan& pass) {
  const Side* const ahead = &s.ahead;
  const std::int64_t width = pass.strips->width * W;
  for (std::int64_t group = pass.begin; group < pass.end; ++group) {
    float* hoisted = pass.hoisted + group * pass.columns * kHoistRows;
    each_strip(
        s.geometry, *pass.strips, s.geometry.group_units(*pass.strips, group * width), pass.packed + group * pass.size,
        [&](const Strip& strip, std::ptrdiff_t, std::int64_t columns, const float* bias, const float* w, const float*) {
          if (!strip.input) return;
          strip_chains(s, &ahead, &w, 1, s.steps, columns,
                       {bias, 0, hoisted, columns, group + 1 < pass.end ? pass.size : 0});
          hoisted += kHoistRows * columns;
        });
  }
}

// run_pass for a single row. Two whole groups are finished at once where the cell can.
void run_row(const Step& s, const PassPlan& pass, bool backwards) {
  if (s.ahead.k > 0) row_ahead(s, pass);
  const Block* waiting = nullptr;
  const int step = backwards ? -1 : 1;
  RowGroups* r = backwards ? pass.row + pass.rows - 1 : pass.row;
  for (int i = 0; i < pass.rows; ++i, r += step) {
    RowProduct& t = r->product;
    // By themselves: both at once would be loaded as a vector, from what was stored as single words just now.
    t.a[0] = opaque(s.x.base);
    t.a[1] = opaque(s.state.base);
    t.scale[0] = opaque(s.x.scale);
    t.scale[1] = opaque(s.state.scale);
    for (int k = 0; k < 2; ++k) t.init[k] = opaque(r->init[k] + s.past * r->step[k]);
    r->tile(t);
    for (int k = 0; k < r->count; ++k) {
      const Block& z = r->z[k];
      if (!pass.pass.finish_two || !r->whole[k]) {
        pass.pass.finish(s, z);
      } else if (waiting) {
        pass.pass.finish_two(s, *waiting, z);
        waiting = nullptr;
      } else {
        waiting = &z;
      }
    }
  }
  if (waiting) pass.pass.finish(s, *waiting);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
