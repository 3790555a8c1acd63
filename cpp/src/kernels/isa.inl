// Every kernel body and the table of one ISA. Included by isa_<name>.cc, after simd/<name>.h, with SEQCORE_ISA defined.
// No STL here: an inline library function compiled for one ISA could be the copy that the linker keeps for all.

#include "kernels/kernels.h"

#include "kernels/twice.inl"
#include "kernels/math.inl"
#include "kernels/activation.inl"
#include "kernels/reduce.inl"
#include "kernels/elementwise.inl"
#include "kernels/softmax.inl"
#include "kernels/rectify.inl"
#include "kernels/layer_norm.inl"
#include "kernels/batch_norm.inl"
#include "kernels/loss.inl"
#include "kernels/optimizer.inl"
#include "kernels/random.inl"
#include "kernels/tile.inl"
#include "kernels/row_tile.inl"
#include "kernels/reflect.inl"
#include "kernels/words.inl"
#include "kernels/product.inl"
#include "kernels/gradient.inl"
#include "kernels/cells/cell.inl"
#include "kernels/cells/pass.inl"
#include "kernels/cells/row.inl"
#include "kernels/cells/forward.inl"
#include "kernels/cells/step.inl"
#include "kernels/cells/backward.inl"
#include "kernels/cells/simple_rnn.inl"
#include "kernels/cells/lstm.inl"
#include "kernels/cells/gru.inl"

#define SEQCORE_STRING_(x) #x
#define SEQCORE_STRING(x) SEQCORE_STRING_(x)

namespace seqcore::SEQCORE_ISA {

namespace {

void make_cell_step(CellKind kind, const CellForwardArgs& a, float* memory) {
  constexpr Passes (*passes[kCellKinds])(const CellForwardArgs&) = {simple_rnn_passes, lstm_passes, gru_after_passes,
                                                                    gru_before_passes};
  make_step(kind, a, passes[static_cast<int>(kind)](a), memory);
}

}  // namespace

extern const Kernels kTable;
const Kernels kTable = {
    SEQCORE_STRING(SEQCORE_ISA),
    W,
    packed_product_size,
    pack_product,
    product_scratch,
    product,
    grad_scratch,
    grad,
    packed_cell_size,
    pack_cell,
    packed_cell_backward_size,
    pack_cell_backward,
    cell_shares,
    forward_scratch,
    backward_scratch,
    {cell_forward_simple_rnn, cell_forward_lstm, cell_forward_gru_reset_after, cell_forward_gru_reset_before},
    {cell_backward_simple_rnn, cell_backward_lstm, cell_backward_gru_reset_after, cell_backward_gru_reset_before},
    step_size,
    make_cell_step,
    cell_step,
    activate,
    activate_backward,
    rectify,
    rectify_backward,
    add,
    multiply,
    scale,
    axpy,
    clip,
    sum_squares,
    sum_abs,
    read_all,
    column_sums,
    dropout_mask,
    normals,
    squared_norm,
    reflect,
    layer_norm,
    layer_norm_backward,
    batch_moments,
    batch_norm_scale,
    batch_norm,
    batch_norm_sums,
    batch_norm_backward,
    loss,
    adam,
    sgd,
    rmsprop,
    nadam,
    adamax,
    adagrad,
    adadelta,
    lion,
    ftrl,
    {multiply<BFloat16>, multiply<Int8>, row_tile_of<BFloat16>, row_tile_of<Int8>, kByteOffset, "float32", "int16"},
};

}  // namespace seqcore::SEQCORE_ISA
