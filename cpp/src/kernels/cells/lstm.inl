// LSTM. Gates i, f, c, o: z = b + W x + U h';  i, f, o = rec(z), g = act(z_c). Included by isa.inl after cell.inl.
//
// Order. Forward: each z is one chain, bias, x, h'.  c = fma(f, c', i*g)   h = o * act(c)
// With sigmoid and tanh, whose results are fractions, i = 1 / di, g = n / dg and so on, a division is made for two of them:
//   r = 1 / (di * dg), i = dg * r, g = n * (di * r), i*g = n * r;  likewise o and act(c), whose h = n * r
// Backward: dh += dy;  s = dh*o;  dc = fma(s, act'(c), dc) (row-wise act: dc + the product with its Jacobian)
//   do = (dh * act(c)) * rec'(o)   di = (dc*g) * rec'(i)   df = (dc*c') * rec'(f)   dg = (dc*i) * act'(g)
//   dc' = dc*f   dh' = [di df dg do] Uᵀ

namespace seqcore::SEQCORE_ISA {
namespace {

// What is made of a step's pre-activations, and what of o, which is then the gate itself or its divisor, and c.
template <class V>
struct LstmGates {
  V i, f, g, i_g, o;
};
template <class V>
struct LstmOutput {
  V h, o;
};
template <class A, class R, class V>
SEQCORE_INLINE LstmGates<V> lstm_gates(A act, R rec, twice<V> i_f, V c, V o) {
  i_f = apply(rec, i_f);
  const V g = apply(act, c);
  return {i_f.a, i_f.b, g, mul(i_f.a, g), apply(rec, o)};
}
template <class A, class R, class V>
SEQCORE_INLINE LstmOutput<V> lstm_output(A act, R, V o, V c) {
  return {mul(o, apply(act, c)), o};
}
// i, o and h are never beyond 1: a reciprocal is off by half a unit in the last place, a divisor that is not 1 by a whole
// one. Where the product of divisors is infinite, i or o, 10^-30 or less, counts as 0, and so does g, which has no effect.
template <class V>
SEQCORE_INLINE LstmGates<V> lstm_gates(Fixed<Activation::tanh>, Fixed<Activation::sigmoid>, twice<V> i_f, V c, V o) {
  i_f = sigmoid_divisor(i_f);
  const fraction<V> g = tanh_fraction(c);
  const twice<V> r = reciprocal(twice<V>{mul(i_f.a, g.below), i_f.b});
  return {mul(g.below, r.a), r.b, mul(g.above, mul(i_f.a, r.a)), mul(g.above, r.a), sigmoid_divisor(o)};
}
template <class V>
SEQCORE_INLINE LstmOutput<V> lstm_output(Fixed<Activation::tanh>, Fixed<Activation::sigmoid>, V o, V c) {
  const fraction<V> y = tanh_fraction(c);
  const V r = reciprocal(mul(o, y.below));
  return {mul(y.above, r), mul(y.below, r)};
}

// In two rounds, gates and c, then h: an activation of c would wait for the whole chain of its gates, those of many rows
// do not wait for each other. In between o lies where h goes. Two gates, then two rows, are one value: two chains are not
// enough to fill the time that one takes.
// `z_at` is the place in the chains, `at` in the rest.
template <class P, class A, class R>
SEQCORE_INLINE void lstm_finish_units(const Step& s, const Block& z, P z_at, P at, A act, R rec) {
  // Not read again after each store, which might change them for all the compiler knows.
  const std::int32_t* const rows = s.rows;
  const std::int64_t count = z.rows, stride = s.stride, z_row = z.row;
  const float *zi = z.at(0, 0), *zf = z.at(0, 1), *zc = z.at(0, 2), *zo = z.at(0, 3), *const c = s.c + z.unit;
  float *const c_next = s.c_next + z.unit, *const h_next = s.h_next + z.unit;
  for (std::int64_t n = 0; n < count; ++n, zi += z_row, zf += z_row, zc += z_row, zo += z_row) {
    const std::int64_t first = rows[n] * stride;
    const auto gates =
        lstm_gates(act, rec, twice<decltype(at.load(zi))>{z_at.load(zi), z_at.load(zf)}, z_at.load(zc), z_at.load(zo));
    at.store(c_next + first, fma(gates.f, at.load(c + first), gates.i_g));
    at.store(h_next + first, gates.o);
    if (s.gates) {
      float* const slots = s.slot(rows[n], 0) + z.unit;
      at.store(slots, kept(rec, z_at.load(zi), gates.i));
      at.store(slots + stride, kept(rec, z_at.load(zf), gates.f));
      at.store(slots + 2 * stride, kept(act, z_at.load(zc), gates.g));
      if (needs_input(rec.value)) at.store(slots + 3 * stride, z_at.load(zo));
    }
  }
  const std::int64_t slots = s.slots * stride;
  float* const o_slot = s.gates && !needs_input(rec.value) ? s.slot(0, 3) + z.unit : nullptr;
  const auto finish = [=](auto both, auto both_slots) __attribute__((always_inline)) {
    const auto y = lstm_output(act, rec, both.load(h_next), both.load(c_next));
    both.store(h_next, y.h);
    if (o_slot) both_slots.store(o_slot, y.o);
  };
  std::int64_t n = 0;
  for (; n + 1 < count; n += 2)
    finish(Both<P>{at.moved(rows[n] * stride), at.moved(rows[n + 1] * stride)},
           Both<P>{at.moved(rows[n] * slots), at.moved(rows[n + 1] * slots)});
  if (n < count) finish(at.moved(rows[n] * stride), at.moved(rows[n] * slots));
}

template <class A, class R>
void lstm_finish(const Step& s, const Block& z) {
  const A act(s.activation);
  const R rec(s.recurrent_activation);
  if (z.width > W)
    lstm_finish_units(s, z, place<Two>(0), place<Two>(0), act, rec);
  else
    lstm_finish_units(s, z, place<One>(0), place<One>(0), act, rec);
}
template <class A, class R>
void lstm_finish_two(const Step& s, const Block& z, const Block& second) {
  const Both<Two> chains{place<Two>(0), place<Two>(second.data - z.data)};
  const Both<Two> units{place<Two>(0), place<Two>(second.unit - z.unit)};
  lstm_finish_units(s, z, chains, units, A(s.activation), R(s.recurrent_activation));
}

void lstm_finish_all(const Step& s, const Block& z) {
  for (int g = 0; g < 4; ++g) settle(s, z, g, g == 2 ? s.activation : s.recurrent_activation);
  for (std::int64_t n = 0; n < z.rows; ++n) {
    const std::int64_t first = s.rows[n] * s.stride;
    each_vector(s.units, [&](std::int64_t j) {
      const vec i = load(z.at(n, 0) + j), f = load(z.at(n, 1) + j), g = load(z.at(n, 2) + j);
      store(s.c_next + first + j, fma(f, load(s.c + first + j), mul(i, g)));
    });
    activate(s.activation, 1, s.units, s.c_next + first, 0, s.h_next + first, 0);
    each_vector(s.units, [&](std::int64_t j) {
      store(s.h_next + first + j, mul(load(z.at(n, 3) + j), load(s.h_next + first + j)));
    });
  }
}

Passes lstm_passes(const CellForwardArgs& a) {
  const bool whole = is_whole(a.activation, a.recurrent_activation);
  return {
      {{SEQCORE_BY_ACTIVATIONS(lstm_finish, a.activation, a.recurrent_activation), whole ? lstm_finish_all : nullptr,
        SEQCORE_BY_ACTIVATIONS(lstm_finish_two, a.activation, a.recurrent_activation)},
       {}}};
}
void cell_forward_lstm(const CellForwardArgs& a) { forward(a, CellKind::lstm, lstm_passes(a)); }

// `through`: act(c) and s * act'(c) of the row are given (row-wise act), else null.
template <class A, class R>
SEQCORE_INLINE void lstm_unfinish_row(const BackwardStep& s, std::int64_t row, A act, R rec, const float* act_c,
                                      const float* through) {
  float *di = s.slot(row, 0), *df = s.slot(row, 1), *dg = s.slot(row, 2), *go = s.slot(row, 3);
  const std::int64_t first = row * s.stride;
  const float *const c_next = s.c_next + first, *const c_before = s.c + first, *const dh_row = s.dh + first;
  float* const dc_row = s.dc + first;
  each_place<Four>(s.begin, s.end, [&](auto at) {
    const auto ki = at.load(di), kf = at.load(df), kg = at.load(dg), ko = at.load(go);
    const auto i = output(rec, ki), f = output(rec, kf), g = output(act, kg), o = output(rec, ko);
    const auto c = at.load(c_next), dh = at.load(dh_row);
    const auto y = through ? at.load(act_c) : apply(act, c);
    auto dc = at.load(dc_row);
    dc = through ? add(dc, at.load(through)) : fma(mul(dh, o), slope(act, kept(act, c, y)), dc);
    at.store(di, mul(mul(dc, g), slope(rec, ki)));
    at.store(df, mul(mul(dc, at.load(c_before)), slope(rec, kf)));
    at.store(dg, mul(mul(dc, i), slope(act, kg)));
    at.store(go, mul(mul(dh, y), slope(rec, ko)));
    at.store(dc_row, mul(dc, f));
  });
}

template <class A, class R>
void lstm_unfinish(const BackwardStep& s) {
  for (std::int64_t i = 0; i < s.m; ++i)
    lstm_unfinish_row(s, s.rows[i], A(s.activation), R(s.recurrent_activation), nullptr, nullptr);
}

void lstm_unfinish_all(const BackwardStep& s) {
  const Activation act = s.activation, rec = s.recurrent_activation;
  float* const act_c = s.spare(4);
  float* const through = s.spare(5);
  for (std::int64_t i = 0; i < s.m; ++i) {
    const std::int64_t row = s.rows[i];
    const float* c = s.c_next + row * s.stride;
    for (int g = 0; g < 4; ++g) unsettle(s, row, g, g, g == 2 ? act : rec);
    each_vector(s.units, [&](std::int64_t j) {
      store(through + j, mul(load(s.dh + row * s.stride + j), load(s.slot(row, 3) + j)));
    });
    activate(act, 1, s.units, c, 0, act_c, 0);
    activate_backward(act, 1, s.units, needs_input(act) ? c : act_c, 0, through, 0, through, 0);
    lstm_unfinish_row(s, row, Linear{}, Linear{}, act_c, through);
    for (int g = 0; g < 4; ++g) resettle(s, row, g, g, g == 2 ? act : rec);
  }
}

void cell_backward_lstm(const CellBackwardArgs& a) {
  const auto unfinish = is_whole(a.activation, a.recurrent_activation)
                            ? lstm_unfinish_all
                            : SEQCORE_BY_ACTIVATIONS(lstm_unfinish, a.activation, a.recurrent_activation);
  each_step_back(a, CellKind::lstm, [&](const BackwardStep& s) {
    unfinish(s);
    sync(a.share);
    state_gradient(s, a.packed, {0, 1, 2, 3}, 0, false, s.dh);
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
