// GRU, both forms. z, r = rec(b + W x + U h');  h = fma(z, h' - hh, hh). Included by isa.inl after cell.inl.
//
// Order, reset after. Forward: z and r are one chain, the sum of the two biases, x, h'; x_h is bias, x; rec is the
// recurrent bias, h'.  hh = act(fma(r, rec, x_h))
// Backward: dh += dy;  dz = (dh * (h' - hh)) * rec'(z)   p = (dh * (1 - z)) * act'(hh), x_h's gradient
//   dr = (p * rec) * rec'(r)   drec = p * r   dh' = [dz dr drec] Uᵀ + dh*z
// Order, reset before. Forward: hh = act(one chain: bias, x, r*h') (with recurrent dropout (r*h') * scale).
// Backward: dz, p as above;  q = p U_hᵀ (with recurrent dropout scale * it);  dr = (q * h') * rec'(r)
//   dh' = [dz dr] Uᵀ + fma(q, r, dh*z)

namespace seqcore::SEQCORE_ISA {
namespace {

SEQCORE_INLINE vec gru_mix(vec z, vec h, vec hh) { return fma(z, sub(h, hh), hh); }

// --------------------------------------------------------------------------------------------------- reset after

template <class A, class R>
SEQCORE_INLINE void gru_after_finish(const Step& s, const Block& b, A act, R rec) {
  for (std::int64_t n = 0; n < b.rows; ++n) {
    const std::int64_t row = s.rows[b.first + n];
    each_vector(b.width, [&](std::int64_t j) {
      const vec zz = load(b.at(n, 0, j)), zr = load(b.at(n, 1, j)), u = load(b.at(n, 3, j));
      const vec z = apply(rec, zz), r = apply(rec, zr);
      const vec p = fma(r, u, load(b.at(n, 2, j)));
      const vec hh = apply(act, p);
      const std::int64_t at = row * s.stride + b.unit + j;
      store(s.h_next + at, gru_mix(z, load(s.h + at), hh));
      if (s.gates) {
        float* slot = s.slot(row, 0) + b.unit + j;
        store(slot, kept(rec, zz, z));
        store(slot + s.stride, kept(rec, zr, r));
        store(slot + 2 * s.stride, kept(act, p, hh));
        store(slot + 3 * s.stride, u);
      }
    });
  }
}

void gru_after_finish_rowwise(const Step& s, const Block& b, Activation act, Activation rec) {
  settle(s, b, 0, rec);
  settle(s, b, 1, rec);
  for (std::int64_t n = 0; n < b.rows; ++n) {
    each_vector(s.units, [&](std::int64_t j) {
      store(b.at(n, 2, j), fma(load(b.at(n, 1, j)), load(b.at(n, 3, j)), load(b.at(n, 2, j))));
    });
    if (s.gates) copy_row(s.units, b.at(n, 3, 0), s.slot(s.rows[n], 3));
  }
  settle(s, b, 2, act);
  for (std::int64_t n = 0; n < b.rows; ++n) {
    const std::int64_t at = s.rows[n] * s.stride;
    each_vector(s.units, [&](std::int64_t j) {
      store(s.h_next + at + j, gru_mix(load(b.at(n, 0, j)), load(s.h + at + j), load(b.at(n, 2, j))));
    });
  }
}

void cell_forward_gru_reset_after(const CellForwardArgs& a) {
  with_activations(a.activation, a.recurrent_activation, [&](auto act, auto rec) {
    each_step(a, CellKind::gru_reset_after, [&](const Step& s, auto plane) {
      if (is_rowwise(act.value) || is_rowwise(rec.value))
        pre_activations<3, 1, true>(s, a.packed, plane(0),
                                    [&](const Block& b) { gru_after_finish_rowwise(s, b, act.value, rec.value); });
      else
        pre_activations<3, 1, true>(s, a.packed, nullptr, [&](const Block& b) { gru_after_finish(s, b, act, rec); });
    });
  });
}

// dz and p of one row into slots 0 and 2, dh * z into dh: the part that both forms share.
template <class A, class R>
SEQCORE_INLINE void gru_unfinish_candidate(const BackwardStep& s, std::int64_t row, std::int64_t j, A act, R rec) {
  float* at = s.slot(row, 0) + j;
  const std::int64_t unit = row * s.stride + j;
  const vec kz = load(at), kh = load(at + 2 * s.stride), dh = load(s.dh + unit);
  const vec z = output(rec, kz);
  store(at, mul(mul(dh, sub(load(s.h + unit), output(act, kh))), slope(rec, kz)));
  store(at + 2 * s.stride, mul(mul(dh, sub(set1(1.0f), z)), slope(act, kh)));
  store(s.dh + unit, mul(dh, z));
}

// dr and drec of one row from p in slot 2.
template <class R>
SEQCORE_INLINE void gru_unfinish_reset(const BackwardStep& s, std::int64_t row, std::int64_t j, R rec) {
  float* at = s.slot(row, 0) + j;
  const vec kr = load(at + s.stride), p = load(at + 2 * s.stride);
  store(at + s.stride, mul(mul(p, load(at + 3 * s.stride)), slope(rec, kr)));
  store(at + 3 * s.stride, mul(p, output(rec, kr)));
}

// The part of gru_unfinish_candidate when an activation is row-wise.
void gru_unfinish_candidate_rowwise(const BackwardStep& s, std::int64_t row, Activation act, Activation rec) {
  unsettle(s, row, 0, 0, rec);
  unsettle(s, row, 2, 2, act);
  each_vector(s.units, [&](std::int64_t j) { gru_unfinish_candidate(s, row, j, Linear{}, Linear{}); });
  resettle(s, row, 0, 0, rec);
  resettle(s, row, 2, 2, act);
}

void cell_backward_gru_reset_after(const CellBackwardArgs& a) {
  with_activations(a.activation, a.recurrent_activation, [&](auto act, auto rec) {
    each_step_back(a, CellKind::gru_reset_after, [&](const BackwardStep& s) {
      for (std::int64_t i = 0; i < s.m; ++i) {
        const std::int64_t row = s.rows[i];
        if (is_rowwise(act.value) || is_rowwise(rec.value)) {
          gru_unfinish_candidate_rowwise(s, row, act.value, rec.value);
          unsettle(s, row, 1, 1, rec.value);
          each_vector(s.units, [&](std::int64_t j) { gru_unfinish_reset(s, row, j, Linear{}); });
          resettle(s, row, 1, 1, rec.value);
        } else {
          each_vector(s.units, [&](std::int64_t j) {
            gru_unfinish_candidate(s, row, j, act, rec);
            gru_unfinish_reset(s, row, j, rec);
          });
        }
      }
      state_gradient(s, a.packed, {0, 1, 3}, 0, true, s.dh);
    });
  });
}

// -------------------------------------------------------------------------------------------------- reset before

// First phase: z of some rows and units to `update`, r*h' to `reset`, both [row][stride].
template <class R>
SEQCORE_INLINE void gru_before_gates(const Step& s, const Block& b, R rec, float* update, float* reset) {
  for (std::int64_t n = 0; n < b.rows; ++n) {
    const std::int64_t row = s.rows[b.first + n];
    each_vector(b.width, [&](std::int64_t j) {
      const vec zz = load(b.at(n, 0, j)), zr = load(b.at(n, 1, j));
      const vec z = apply(rec, zz), r = apply(rec, zr);
      const std::int64_t at = row * s.stride + b.unit + j;
      const vec rh = mul(r, load(s.h + at));
      store(update + at, z);
      store(reset + at, s.scale ? mul(rh, load(s.scale + 2 * s.scale_gate + at)) : rh);
      if (s.gates) {
        float* slot = s.slot(row, 0) + b.unit + j;
        store(slot, kept(rec, zz, z));
        store(slot + s.stride, kept(rec, zr, r));
        store(slot + 3 * s.stride, rh);
      }
    });
  }
}

template <class A>
SEQCORE_INLINE void gru_before_finish(const Step& s, const Block& b, A act, const float* update) {
  for (std::int64_t n = 0; n < b.rows; ++n) {
    const std::int64_t row = s.rows[b.first + n];
    each_vector(b.width, [&](std::int64_t j) {
      const vec p = load(b.at(n, 0, j));
      const vec hh = apply(act, p);
      const std::int64_t at = row * s.stride + b.unit + j;
      store(s.h_next + at, gru_mix(load(update + at), load(s.h + at), hh));
      if (s.gates) store(s.slot(row, 2) + b.unit + j, kept(act, p, hh));
    });
  }
}

void cell_forward_gru_reset_before(const CellForwardArgs& a) {
  with_activations(a.activation, a.recurrent_activation, [&](auto act, auto rec) {
    each_step(a, CellKind::gru_reset_before, [&](const Step& s, auto plane) {
      float* const update = plane(4);
      float* const reset = plane(5);
      if (!is_rowwise(rec.value)) {
        pre_activations<2, 2, false>(s, a.packed, nullptr,
                                     [&](const Block& b) { gru_before_gates(s, b, rec, update, reset); });
      } else {
        pre_activations<2, 2, false>(s, a.packed, plane(0), [&](const Block& b) {
          settle(s, b, 0, rec.value);
          settle(s, b, 1, rec.value);
          gru_before_gates(s, b, Linear{}, update, reset);  // writes the slots again: row-wise ones keep the output
        });
      }
      const float* packed = a.packed + packed_gates_size(2, 2, a.input, a.units);
      Operand x = s.x, rh = s.state;
      x.base += 2 * x.gate;
      rh.base = reset;
      if (!is_rowwise(act.value))
        return pre_activations<1, 4, false, false>(s, x, rh, packed, nullptr, nullptr,
                                                   [&](const Block& b) { gru_before_finish(s, b, act, update); });
      pre_activations<1, 4, false, false>(s, x, rh, packed, plane(0), nullptr, [&](const Block& b) {
        for (std::int64_t n = 0; n < b.rows; ++n) activate(act.value, 1, s.units, b.at(n, 0, 0), 0, b.at(n, 0, 0), 0);
        gru_before_finish(s, b, Linear{}, update);  // its slot: as above
      });
    });
  });
}

void cell_backward_gru_reset_before(const CellBackwardArgs& a) {
  const float* const packed_candidate = a.packed + packed_product_size(2 * a.units, a.units);
  with_activations(a.activation, a.recurrent_activation, [&](auto act, auto rec) {
    each_step_back(a, CellKind::gru_reset_before, [&](const BackwardStep& s) {
      for (std::int64_t i = 0; i < s.m; ++i)
        if (is_rowwise(act.value) || is_rowwise(rec.value))
          gru_unfinish_candidate_rowwise(s, s.rows[i], act.value, rec.value);
        else
          each_vector(s.units, [&](std::int64_t j) { gru_unfinish_candidate(s, s.rows[i], j, act, rec); });
      float* const q = s.spare(kSpareRows);
      state_gradient(s, packed_candidate, {2}, 2, false, q);
      for (std::int64_t i = 0; i < s.m; ++i) {
        const std::int64_t row = s.rows[i];
        const auto through_reset = [&](auto gate) {
          each_vector(s.units, [&](std::int64_t j) {
            float* at = s.slot(row, 1) + j;
            const std::int64_t unit = row * s.stride + j;
            const vec kr = load(at), dq = load(q + unit);
            store(s.dh + unit, fma(dq, output(gate, kr), load(s.dh + unit)));
            store(at, mul(mul(dq, load(s.h + unit)), slope(gate, kr)));
          });
        };
        if (is_rowwise(rec.value)) {
          unsettle(s, row, 1, 1, rec.value);
          through_reset(Linear{});
          resettle(s, row, 1, 1, rec.value);
        } else {
          through_reset(rec);
        }
      }
      state_gradient(s, a.packed, {0, 1}, 0, true, s.dh);
    });
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
