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

template <class V>
SEQCORE_INLINE V gru_mix(V z, V h, V hh) {
  return fma(z, sub(h, hh), hh);
}

// --------------------------------------------------------------------------------------------------- reset after

// In two rounds, for the reason that LSTM has two. In between z and the candidate's pre-activation lie where the chains of z
// and of x_h did; where z runs over, into r's first columns, these have been read.
template <class Each, class A, class R>
SEQCORE_INLINE void gru_after_finish_units(const Step& s, const Block& b, Each each, A act, R rec) {
  // Not read again after each store, which might change them for all the compiler knows.
  const std::int32_t* const rows = s.rows;
  const std::int64_t count = b.rows, stride = s.stride;
  const bool keep = s.gates;
  const float* const h = s.h + b.unit;
  float* const h_next = s.h_next + b.unit;
  float *bz = b.at(0, 0), *br = b.at(0, 1), *bh = b.at(0, 2), *bu = b.at(0, 3);
  for (std::int64_t n = 0; n < count; ++n, bz += b.row, br += b.row, bh += b.row, bu += b.row) {
    float* const slots = keep ? s.slot(rows[n], 0) + b.unit : nullptr;
    each([&](auto at) __attribute__((always_inline)) {
      const auto zz = at.load(bz), zr = at.load(br), u = at.load(bu);
      const auto z = apply(rec, zz), r = apply(rec, zr);
      at.store(bz, z);
      at.store(bh, fma(r, u, at.load(bh)));
      if (slots) {
        at.store(slots, kept(rec, zz, z));
        at.store(slots + stride, kept(rec, zr, r));
        at.store(slots + 3 * stride, u);
      }
    });
  }
  bz = b.at(0, 0), bh = b.at(0, 2);
  for (std::int64_t n = 0; n < count; ++n, bz += b.row, bh += b.row) {
    const std::int64_t first = rows[n] * stride;
    float* const slot = keep ? s.slot(rows[n], 2) + b.unit : nullptr;
    each([&](auto at) __attribute__((always_inline)) {
      const auto p = at.load(bh);
      const auto hh = apply(act, p);
      at.store(h_next + first, gru_mix(at.load(bz), at.load(h + first), hh));
      if (slot) at.store(slot, kept(act, p, hh));
    });
  }
}

template <class A, class R>
void gru_after_finish(const Step& s, const Block& b) {
  const A act(s.activation);
  const R rec(s.recurrent_activation);
  if (b.width == Four::size)
    gru_after_finish_units(s, b, Just<Four>{}, act, rec);
  else if (b.width == Two::size)
    gru_after_finish_units(s, b, Just<Two>{}, act, rec);
  else
    gru_after_finish_units(s, b, Upto<Two>{b.width}, act, rec);
}

void gru_after_finish_all(const Step& s, const Block& b) {
  settle(s, b, 0, s.recurrent_activation);
  settle(s, b, 1, s.recurrent_activation);
  for (std::int64_t n = 0; n < b.rows; ++n) {
    each_vector(s.units, [&](std::int64_t j) {
      store(b.at(n, 2) + j, fma(load(b.at(n, 1) + j), load(b.at(n, 3) + j), load(b.at(n, 2) + j)));
    });
    if (s.gates) copy_row(s.units, b.at(n, 3), s.slot(s.rows[n], 3));
  }
  settle(s, b, 2, s.activation);
  for (std::int64_t n = 0; n < b.rows; ++n) {
    const std::int64_t at = s.rows[n] * s.stride;
    each_vector(s.units, [&](std::int64_t j) {
      store(s.h_next + at + j, gru_mix(load(b.at(n, 0) + j), load(s.h + at + j), load(b.at(n, 2) + j)));
    });
  }
}

Passes gru_after_passes(const CellForwardArgs& a) {
  const bool whole = is_whole(a.activation, a.recurrent_activation);
  return {{{SEQCORE_BY_ACTIVATIONS(gru_after_finish, a.activation, a.recurrent_activation),
            whole ? gru_after_finish_all : nullptr},
           {}}};
}
void cell_forward_gru_reset_after(const CellForwardArgs& a) {
  forward(a, CellKind::gru_reset_after, gru_after_passes(a));
}

// dz and p of one row into slots 0 and 2, dh * z into dh: the part that both forms share.
template <class At, class A, class R>
SEQCORE_INLINE void gru_unfinish_candidate(const BackwardStep& s, std::int64_t row, At at, A act, R rec) {
  float *dz = s.slot(row, 0), *p = s.slot(row, 2), *dh_row = s.dh + row * s.stride;
  const auto kz = at.load(dz), kh = at.load(p), dh = at.load(dh_row);
  const auto z = output(rec, kz);
  at.store(dz, mul(mul(dh, sub(at.load(s.h + row * s.stride), output(act, kh))), slope(rec, kz)));
  at.store(p, mul(mul(dh, sub(constant(z, 1.0f), z)), slope(act, kh)));
  at.store(dh_row, mul(dh, z));
}

// dr and drec of one row from p in slot 2.
template <class At, class R>
SEQCORE_INLINE void gru_unfinish_reset(const BackwardStep& s, std::int64_t row, At at, R rec) {
  float *dr = s.slot(row, 1), *drec = s.slot(row, 3);
  const auto kr = at.load(dr), p = at.load(s.slot(row, 2));
  at.store(dr, mul(mul(p, at.load(drec)), slope(rec, kr)));
  at.store(drec, mul(p, output(rec, kr)));
}

// The part of gru_unfinish_candidate when an activation is row-wise.
void gru_unfinish_candidate_all(const BackwardStep& s) {
  for (std::int64_t i = 0; i < s.m; ++i) {
    const std::int64_t row = s.rows[i];
    unsettle(s, row, 0, 0, s.recurrent_activation);
    unsettle(s, row, 2, 2, s.activation);
    each_place<Four>(0, s.units, [&](auto at) { gru_unfinish_candidate(s, row, at, Linear{}, Linear{}); });
    resettle(s, row, 0, 0, s.recurrent_activation);
    resettle(s, row, 2, 2, s.activation);
  }
}

template <class A, class R>
void gru_after_unfinish(const BackwardStep& s) {
  const A act(s.activation);
  const R rec(s.recurrent_activation);
  for (std::int64_t i = 0; i < s.m; ++i)
    each_place<Four>(s.begin, s.end, [&](auto at) {
      gru_unfinish_candidate(s, s.rows[i], at, act, rec);
      gru_unfinish_reset(s, s.rows[i], at, rec);
    });
}

void gru_after_unfinish_all(const BackwardStep& s) {
  gru_unfinish_candidate_all(s);
  for (std::int64_t i = 0; i < s.m; ++i) {
    unsettle(s, s.rows[i], 1, 1, s.recurrent_activation);
    each_place<Four>(0, s.units, [&](auto at) { gru_unfinish_reset(s, s.rows[i], at, Linear{}); });
    resettle(s, s.rows[i], 1, 1, s.recurrent_activation);
  }
}

void cell_backward_gru_reset_after(const CellBackwardArgs& a) {
  const auto unfinish = is_whole(a.activation, a.recurrent_activation)
                            ? gru_after_unfinish_all
                            : SEQCORE_BY_ACTIVATIONS(gru_after_unfinish, a.activation, a.recurrent_activation);
  each_step_back(a, CellKind::gru_reset_after, [&](const BackwardStep& s) {
    unfinish(s);
    sync(a.share);
    state_gradient(s, a.packed, {0, 1, 3}, 0, true, s.dh);
  });
}

// -------------------------------------------------------------------------------------------------- reset before
// z of all rows and units lies in s.own[0] between the two passes, r*h' (scaled) in s.own[1], [row][stride].

template <class, class R>
void gru_before_gates(const Step& s, const Block& b) {
  const R rec(s.recurrent_activation);
  for (std::int64_t n = 0; n < b.rows; ++n) {
    const std::int64_t first = s.rows[n] * s.stride + b.unit, stride = s.stride;
    const float *const bz = b.at(n, 0), *const br = b.at(n, 1), *const h = s.h + first;
    const float* const scale = s.scale ? s.scale + 2 * s.scale_gate + first : nullptr;
    float *const own_z = s.own[0] + first, *const own_rh = s.own[1] + first;
    float* const slots = s.gates ? s.slot(s.rows[n], 0) + b.unit : nullptr;
    each_place<Four>(0, b.width, [&](auto at) {
      const auto zz = at.load(bz), zr = at.load(br);
      const auto z = apply(rec, zz), r = apply(rec, zr);
      const auto rh = mul(r, at.load(h));
      at.store(own_z, z);
      at.store(own_rh, scale ? mul(rh, at.load(scale)) : rh);
      if (slots) {
        at.store(slots, kept(rec, zz, z));
        at.store(slots + stride, kept(rec, zr, r));
        at.store(slots + 3 * stride, rh);
      }
    });
  }
}

void gru_before_gates_all(const Step& s, const Block& b) {
  settle(s, b, 0, s.recurrent_activation);
  settle(s, b, 1, s.recurrent_activation);
  gru_before_gates<Linear, Linear>(s, b);  // writes the slots again: row-wise ones keep the output
}

template <class A, class>
void gru_before_finish(const Step& s, const Block& b) {
  const A act(s.activation);
  for (std::int64_t n = 0; n < b.rows; ++n) {
    const std::int64_t first = s.rows[n] * s.stride + b.unit;
    const float *const bh = b.at(n, 0), *const z = s.own[0] + first, *const h = s.h + first;
    float* const h_next = s.h_next + first;
    float* const slot = s.gates ? s.slot(s.rows[n], 2) + b.unit : nullptr;
    each_place<Four>(0, b.width, [&](auto at) {
      const auto p = at.load(bh);
      const auto hh = apply(act, p);
      at.store(h_next, gru_mix(at.load(z), at.load(h), hh));
      if (slot) at.store(slot, kept(act, p, hh));
    });
  }
}

void gru_before_finish_all(const Step& s, const Block& b) {
  for (std::int64_t n = 0; n < b.rows; ++n) activate(s.activation, 1, s.units, b.at(n, 0), 0, b.at(n, 0), 0);
  gru_before_finish<Linear, Linear>(s, b);  // its slot: as above
}

Passes gru_before_passes(const CellForwardArgs& a) {
  return {{{SEQCORE_BY_ACTIVATIONS(gru_before_gates, a.activation, a.recurrent_activation),
            is_rowwise(a.recurrent_activation) ? gru_before_gates_all : nullptr},
           {SEQCORE_BY_ACTIVATIONS(gru_before_finish, a.activation, a.recurrent_activation),
            is_rowwise(a.activation) ? gru_before_finish_all : nullptr}}};
}
void cell_forward_gru_reset_before(const CellForwardArgs& a) {
  forward(a, CellKind::gru_reset_before, gru_before_passes(a));
}

template <class A, class R>
void gru_before_unfinish(const BackwardStep& s) {
  for (std::int64_t i = 0; i < s.m; ++i)
    each_place<Four>(0, s.units, [&](auto at) {
      gru_unfinish_candidate(s, s.rows[i], at, A(s.activation), R(s.recurrent_activation));
    });
}

// From q, the gradient of r*h' as the product saw it.
template <class R>
SEQCORE_INLINE void gru_through_reset(const BackwardStep& s, std::int64_t row, const float* q, R rec) {
  float *dr = s.slot(row, 1), *dh = s.dh + row * s.stride;
  each_place<Four>(0, s.units, [&](auto at) {
    const auto kr = at.load(dr), dq = at.load(q + row * s.stride);
    at.store(dh, fma(dq, output(rec, kr), at.load(dh)));
    at.store(dr, mul(mul(dq, at.load(s.h + row * s.stride)), slope(rec, kr)));
  });
}

void cell_backward_gru_reset_before(const CellBackwardArgs& a) {
  const bool whole = is_whole(a.activation, a.recurrent_activation);
  const auto unfinish = whole ? gru_unfinish_candidate_all
                              : SEQCORE_BY_ACTIVATIONS(gru_before_unfinish, a.activation, a.recurrent_activation);
  const float* const candidate = a.packed + 2 * packed_product_size(a.units, a.units, Precision::float32);
  each_step_back(a, CellKind::gru_reset_before, [&](const BackwardStep& s) {
    unfinish(s);
    float* const q = s.spare(kSpareRows);
    state_gradient(s, candidate, {2}, 2, false, q);
    for (std::int64_t i = 0; i < s.m; ++i) {
      const std::int64_t row = s.rows[i];
      if (is_rowwise(s.recurrent_activation)) {
        unsettle(s, row, 1, 1, s.recurrent_activation);
        gru_through_reset(s, row, q, Linear{});
        resettle(s, row, 1, 1, s.recurrent_activation);
      } else if (s.recurrent_activation == Activation::sigmoid) {
        gru_through_reset(s, row, q, Fixed<Activation::sigmoid>{});
      } else {
        gru_through_reset(s, row, q, Chosen(s.recurrent_activation));
      }
    }
    state_gradient(s, a.packed, {0, 1}, 0, true, s.dh);
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
