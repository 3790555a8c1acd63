// Backward: the walk back over steps, and the gradient of the state. Included by isa.inl after cell.inl.

namespace seqcore::SEQCORE_ISA {
namespace {

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
