// LSTM. Gates i, f, c, o: z = b + W x + U h';  i, f, o = rec(z), g = act(z_c). Included by isa.inl after cell.inl.
//
// Order. Forward: each z is one chain, bias, x, h'.  c = fma(f, c', i*g)   h = o * act(c)
// Backward: dh += dy;  s = dh*o;  dc = fma(s, act'(c), dc) (row-wise act: dc + the product with its Jacobian)
//   do = (dh * act(c)) * rec'(o)   di = (dc*g) * rec'(i)   df = (dc*c') * rec'(f)   dg = (dc*i) * act'(g)
//   dc' = dc*f   dh' = [di df dg do] Uᵀ

namespace seqcore::SEQCORE_ISA {
namespace {

template <class A, class R>
SEQCORE_INLINE void lstm_finish(const Step& s, const Block& z, A act, R rec) {
  for (std::int64_t n = 0; n < z.rows; ++n) {
    const std::int64_t row = s.rows[z.first + n];
    each_vector(z.width, [&](std::int64_t j) {
      const vec zi = load(z.at(n, 0, j)), zf = load(z.at(n, 1, j)), zc = load(z.at(n, 2, j)), zo = load(z.at(n, 3, j));
      const vec i = apply(rec, zi), f = apply(rec, zf), g = apply(act, zc), o = apply(rec, zo);
      const std::int64_t at = row * s.stride + z.unit + j;
      const vec c = fma(f, load(s.c + at), mul(i, g));
      store(s.c_next + at, c);
      store(s.h_next + at, mul(o, apply(act, c)));
      if (s.gates) {
        float* slot = s.slot(row, 0) + z.unit + j;
        store(slot, kept(rec, zi, i));
        store(slot + s.stride, kept(rec, zf, f));
        store(slot + 2 * s.stride, kept(act, zc, g));
        store(slot + 3 * s.stride, kept(rec, zo, o));
      }
    });
  }
}

void lstm_finish_rowwise(const Step& s, const Block& z, Activation act, Activation rec) {
  for (int g = 0; g < 4; ++g) settle(s, z, g, g == 2 ? act : rec);
  Step settled = s;
  settled.gates = nullptr;
  lstm_finish(settled, z, Linear{}, Linear{});
  for (std::int64_t i = 0; i < z.rows; ++i) {
    const std::int64_t at = s.rows[i] * s.stride;
    activate(act, 1, s.units, s.c_next + at, 0, s.h_next + at, 0);
    each_vector(s.units,
                [&](std::int64_t j) { store(s.h_next + at + j, mul(load(z.at(i, 3, j)), load(s.h_next + at + j))); });
  }
}

void cell_forward_lstm(const CellForwardArgs& a) {
  with_activations(a.activation, a.recurrent_activation, [&](auto act, auto rec) {
    each_step(a, CellKind::lstm, [&](const Step& s, auto plane) {
      if (is_rowwise(act.value) || is_rowwise(rec.value))
        pre_activations<4, 1, false>(s, a.packed, plane(0),
                                     [&](const Block& z) { lstm_finish_rowwise(s, z, act.value, rec.value); });
      else
        pre_activations<4, 1, false>(s, a.packed, nullptr, [&](const Block& z) { lstm_finish(s, z, act, rec); });
    });
  });
}

// `through`: act(c) and s * act'(c) of the row are given (row-wise act), else null.
template <class A, class R>
SEQCORE_INLINE void lstm_unfinish(const BackwardStep& s, std::int64_t row, A act, R rec, const float* act_c,
                                  const float* through) {
  float* slot = s.slot(row, 0);
  const std::int64_t first = row * s.stride;
  each_vector(s.units, [&](std::int64_t j) {
    float* at = slot + j;
    const vec ki = load(at), kf = load(at + s.stride), kg = load(at + 2 * s.stride), ko = load(at + 3 * s.stride);
    const vec i = output(rec, ki), f = output(rec, kf), g = output(act, kg), o = output(rec, ko);
    const vec c = load(s.c_next + first + j), dh = load(s.dh + first + j);
    const vec y = through ? load(act_c + j) : apply(act, c);
    vec dc = load(s.dc + first + j);
    dc = through ? add(dc, load(through + j)) : fma(mul(dh, o), slope(act, kept(act, c, y)), dc);
    store(at, mul(mul(dc, g), slope(rec, ki)));
    store(at + s.stride, mul(mul(dc, load(s.c + first + j)), slope(rec, kf)));
    store(at + 2 * s.stride, mul(mul(dc, i), slope(act, kg)));
    store(at + 3 * s.stride, mul(mul(dh, y), slope(rec, ko)));
    store(s.dc + first + j, mul(dc, f));
  });
}

void lstm_unfinish_rowwise(const BackwardStep& s, std::int64_t row, Activation act, Activation rec) {
  float* const act_c = s.spare(4);
  float* const through = s.spare(5);
  const float* c = s.c_next + row * s.stride;
  for (int g = 0; g < 4; ++g) unsettle(s, row, g, g, g == 2 ? act : rec);
  each_vector(s.units, [&](std::int64_t j) {
    store(through + j, mul(load(s.dh + row * s.stride + j), load(s.slot(row, 3) + j)));
  });
  activate(act, 1, s.units, c, 0, act_c, 0);
  activate_backward(act, 1, s.units, needs_input(act) ? c : act_c, 0, through, 0, through, 0);
  lstm_unfinish(s, row, Linear{}, Linear{}, act_c, through);
  for (int g = 0; g < 4; ++g) resettle(s, row, g, g, g == 2 ? act : rec);
}

void cell_backward_lstm(const CellBackwardArgs& a) {
  with_activations(a.activation, a.recurrent_activation, [&](auto act, auto rec) {
    each_step_back(a, CellKind::lstm, [&](const BackwardStep& s) {
      for (std::int64_t i = 0; i < s.m; ++i)
        if (is_rowwise(act.value) || is_rowwise(rec.value))
          lstm_unfinish_rowwise(s, s.rows[i], act.value, rec.value);
        else
          lstm_unfinish(s, s.rows[i], act, rec, nullptr, nullptr);
      state_gradient(s, a.packed, {0, 1, 2, 3}, 0, false, s.dh);
    });
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
