// SimpleRNN: h = act(z), z = b + W x + U h'. Included by isa.inl after cell.inl.
//
// Order. Forward: z is one chain, bias, x, h'. Backward: dh += dy; dz = dh * act'(z); dh' = dz Uᵀ.

namespace seqcore::SEQCORE_ISA {
namespace {

template <class A, class>
void simple_rnn_finish(const Step& s, const Block& z) {
  const A act(s.activation);
  for (std::int64_t i = 0; i < z.rows; ++i) {
    const float* const chains = z.at(i, 0);
    float* h = s.h_next + s.rows[i] * s.stride + z.unit;
    float* slot = s.gates ? s.slot(s.rows[i], 0) + z.unit : nullptr;
    each_place<Four>(0, z.width, [&](auto at) {
      const auto x = at.load(chains);
      const auto y = apply(act, x);
      at.store(h, y);
      if (slot) at.store(slot, kept(act, x, y));
    });
  }
}

void simple_rnn_finish_all(const Step& s, const Block& z) {
  settle(s, z, 0, s.activation);
  for (std::int64_t i = 0; i < z.rows; ++i) copy_row(s.units, z.at(i, 0), s.h_next + s.rows[i] * s.stride);
}

Passes simple_rnn_passes(const CellForwardArgs& a) {
  const Finish finish_all = is_rowwise(a.activation) ? simple_rnn_finish_all : nullptr;
  return {{{SEQCORE_BY_ACTIVATIONS(simple_rnn_finish, a.activation, Activation::sigmoid), finish_all}, {}}};
}
void cell_forward_simple_rnn(const CellForwardArgs& a) { forward(a, CellKind::simple_rnn, simple_rnn_passes(a)); }

template <class A, class>
void simple_rnn_unfinish(const BackwardStep& s) {
  const A act(s.activation);
  for (std::int64_t i = 0; i < s.m; ++i) {
    const float* dh = s.dh + s.rows[i] * s.stride;
    float* z = s.slot(s.rows[i], 0);
    each_place<Four>(s.begin, s.end, [&](auto at) { at.store(z, mul(at.load(dh), slope(act, at.load(z)))); });
  }
}

void simple_rnn_unfinish_all(const BackwardStep& s) {
  for (std::int64_t i = 0; i < s.m; ++i) {
    float* z = s.slot(s.rows[i], 0);
    copy_row(s.units, z, s.spare(0));
    activate_backward(s.activation, 1, s.units, s.spare(0), 0, s.dh + s.rows[i] * s.stride, 0, z, 0);
  }
}

void cell_backward_simple_rnn(const CellBackwardArgs& a) {
  const auto unfinish = is_rowwise(a.activation)
                            ? simple_rnn_unfinish_all
                            : SEQCORE_BY_ACTIVATIONS(simple_rnn_unfinish, a.activation, Activation::sigmoid);
  each_step_back(a, CellKind::simple_rnn, [&](const BackwardStep& s) {
    unfinish(s);
    sync(a.share);
    state_gradient(s, a.packed, {0}, 0, false, s.dh);
  });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
