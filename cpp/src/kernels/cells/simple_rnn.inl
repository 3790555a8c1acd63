// SimpleRNN: h = act(z), z = b + W x + U h'. Included by isa.inl after cell.inl.
//
// Order. Forward: z is one chain, bias, x, h'. Backward: dh += dy; dz = dh * act'(z); dh' = dz Uᵀ.

namespace seqcore::SEQCORE_ISA {
namespace {

template <class A>
SEQCORE_INLINE void simple_rnn_finish(const Step& s, const Block& z, A act) {
  for (std::int64_t i = 0; i < z.rows; ++i) {
    const std::int64_t row = s.rows[z.first + i];
    each_vector(z.width, [&](std::int64_t j) {
      const vec x = load(z.at(i, 0, j));
      const vec h = apply(act, x);
      store(s.h_next + row * s.stride + z.unit + j, h);
      if (s.gates) store(s.slot(row, 0) + z.unit + j, kept(act, x, h));
    });
  }
}

void cell_forward_simple_rnn(const CellForwardArgs& a) {
  with_activations(a.activation, Activation::sigmoid, [&](auto act, auto) {
    each_step(a, CellKind::simple_rnn, [&](const Step& s, auto plane) {
      // One gate has no other gate's operand: gated only says that the state may be scaled.
      if (!is_rowwise(act.value))
        return pre_activations<1, 4, false, false>(s, s.x, s.state, a.packed, nullptr, s.hoisted,
                                                   [&](const Block& z) { simple_rnn_finish(s, z, act); });
      pre_activations<1, 4, false, false>(s, s.x, s.state, a.packed, plane(0), s.hoisted, [&](const Block& z) {
        settle(s, z, 0, a.activation);
        Step settled = s;
        settled.gates = nullptr;
        simple_rnn_finish(settled, z, Linear{});
      });
    });
  });
}

void cell_backward_simple_rnn(const CellBackwardArgs& a) {
  with_activations(a.activation, Activation::sigmoid, [&](auto act, auto) {
    each_step_back(a, CellKind::simple_rnn, [&](const BackwardStep& s) {
      for (std::int64_t i = 0; i < s.m; ++i) {
        const float* dh = s.dh + s.rows[i] * s.stride;
        float* z = s.slot(s.rows[i], 0);
        if (is_rowwise(act.value)) {
          copy_row(s.units, z, s.spare(0));
          activate_backward(a.activation, 1, s.units, s.spare(0), 0, dh, 0, z, 0);
        } else {
          each_vector(s.units, [&](std::int64_t j) { store(z + j, mul(load(dh + j), slope(act, load(z + j)))); });
        }
      }
      state_gradient(s, a.packed, {0}, 0, false, s.dh);
    });
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
