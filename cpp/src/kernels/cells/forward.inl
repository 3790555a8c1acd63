// The walk over rows and steps. Included by isa.inl after pass.inl.

namespace seqcore::SEQCORE_ISA {
namespace {

// Scratch of a block of rows. Planes are [rows][pad(units)].
struct ForwardScratch {
  std::int64_t scaled, whole, own, chains, hoisted, x_row, h_row, x_words, h_words, scales, sums, row, end;
  ForwardScratch(CellKind kind, const CellForwardArgs& a, std::int64_t rows) {
    const std::int64_t plane = rows * pad(a.units);
    const bool hoist = hoists(a, rows), coded = a.precision != Precision::float32;
    const std::int64_t coded_rows = coded ? (hoist ? kHoistRows : rows) : 0;
    scaled = 0;                                                           // states, a plane for each gate
    whole = scaled + (a.recurrent_scale ? cell_gates(kind) * plane : 0);  // pre-activations of whole rows
    own = whole + (is_whole(a.activation, a.recurrent_activation) ? 4 * plane : 0);
    chains = own + (kind == CellKind::gru_reset_before ? 2 * plane : 0);  // of a group
    hoisted = chains + (rows == 1 ? kRowChains : rows) * kGroupColumns;
    x_words = hoisted + (hoist ? pad(kHoistRows * cell_gates(kind) * (a.units + kGroupColumns)) : 0);
    x_row = encoded_row(a.precision, a.input);
    h_row = encoded_row(a.precision, a.units);
    h_words = x_words + coded_rows * x_row;
    scales = h_words + (coded ? rows * h_row : 0);  // of x, then of the state
    sums = scales + (coded ? 2 * pad(kHoistRows + kRowBlock) : 0);
    row = sums + (coded ? (rows + coded_rows) * kStripColumns : 0);
    end = row + (rows == 1 && is_row(a) ? row_groups(kind, a) * kRowGroups : 0);
  }
  static std::int64_t row_groups(CellKind kind, const CellForwardArgs& a) {
    const Geometry geometry{a.input, a.units, a.per_gate, a.precision};
    std::int64_t groups = 0;
    for (const Strips& strips : passes_of(kind, a.precision)) groups += geometry.groups(strips);
    return groups;
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
  auto* row = count == 1 && is_row(a) ? reinterpret_cast<RowGroups*>(a.scratch + space.row) : nullptr;
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
         0,
         nullptr,
         0};
    for (int i = 0; i < strips.count; ++i) {
      p.gates += strips.strip[i].gates;
      if (strips.strip[i].input) p.columns += packed_columns(strips.strip[i].gates * width);
    }
    if (row) {
      make_row(s, p, a.scratch + space.chains, row);
      row += p.rows;
    }
    packed += s.geometry.pass_size(strips);
    if (hoisted) hoisted += kHoistRows * groups * p.columns;
    ++plan.count;
  }
  return plan;
}

SEQCORE_INLINE void run(const Step& s, const PassPlan& pass, float* chains, bool backwards) {
  if (pass.row) return run_row(s, pass, backwards);
  run_pass(s, pass, chains, backwards);
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
      run(s, plan.passes[p], a.scratch + space.chains, t & 1);
    }
    sync(a.share);
  }
}

void forward(const CellForwardArgs& a, CellKind kind, const Passes& passes) {
  split_evenly(a.row_end - a.row_begin, kRowBlock, [&](std::int64_t first, std::int64_t count) {
    forward_block(a, kind, passes, a.row_begin + first, count);
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
