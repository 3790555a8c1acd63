// SimpleRNN, LSTM and GRU: one layer over the four cells of kernels.h. Bidirectional wraps two of them.
#pragma once

#include <array>
#include <memory>

#include "base/parallel.h"
#include "layers/config.h"
#include "layers/layer.h"

namespace seqcore {

class Recurrent final : public Layer {
 public:
  explicit Recurrent(const Json& description);

  Dims build(const Dims& input) override;
  std::vector<StateShape> states() const override { return {{units_, kind_ == CellKind::lstm}}; }
  bool stateful() const override { return stateful_; }
  std::int64_t packed_size(const Kernels& k, Copy copy) const override;
  void pack(const Kernels& k, const float* weights, float* packed, Copy copy, const Packing& how) const override;
  const char* stream_refusal() const override { return go_backwards_ ? "it runs backwards in time" : nullptr; }
  std::unique_ptr<Step> make_step(const StepPlace& at) const override;

  // forward and backward of two layers on the same input, whose sequences run side by side: neither waits for the other.
  // Initial and final states are the first's, then the second's.
  static std::array<Tensor, 2> forward_both(const Recurrent* const (&layers)[2], const Tensor& x, Run& run,
                                            void* (&caches)[2]);
  static std::array<Tensor, 2> backward_both(const Recurrent* const (&layers)[2], const Tensor (&dy)[2],
                                             void* const (&caches)[2], Run& run, bool need_dx);

  void zero_masked_outputs(bool on) { zero_output_for_mask_ = on; }

  bool go_backwards() const { return go_backwards_; }
  bool return_sequences() const { return return_sequences_; }
  bool return_state() const { return return_state_; }
  int state_arrays() const { return kind_ == CellKind::lstm ? 2 : 1; }
  std::int64_t units() const { return units_; }

 private:
  struct Cache;
  class RecurrentStep;
  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override;
  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override;
  template <class Args>
  struct Sequence;
  Sequence<CellForwardArgs> begin_forward(const Tensor& x, Run& run, const Tensor* initial_state) const;
  Tensor end_forward(const Sequence<CellForwardArgs>& sequence, Run& run, void** cache) const;
  Sequence<CellBackwardArgs> begin_backward(const Tensor& dy, void* cache, Run& run) const;
  Tensor end_backward(const Sequence<CellBackwardArgs>& sequence, Run& run, bool need_dx) const;
  template <class Args>
  static void run_all(const Sequence<Args>* sequences, int count, Run& run);
  void drop(Cache& c, Run& run) const;
  void zero_masked_rows(const Cache& c, std::int64_t t, float* rows, std::int64_t ld) const;
  Grid grid_for(int threads, std::int64_t rows, std::int64_t shares, bool backwards, Precision precision) const;
  void weight_gradients(const Cache& c, RowList rows, Run& run) const;
  Tensor input_gradient(const Cache& c, RowList rows, Run& run) const;

  // Each gate has dropout masks of its own (Keras's implementation 1): in training, which is float32.
  bool per_gate(Precision precision) const { return recurrent_dropout_ > 0 && precision == Precision::float32; }
  bool splits_units() const {
    return kind_ != CellKind::gru_reset_before && !is_rowwise(activation_) && !is_rowwise(recurrent_activation_);
  }
  CellForwardArgs cell_args(std::int64_t batch, const float* packed, Precision precision, const Kernels& k) const;
  CellWeights cell_weights(const float* weights) const;
  double step_flops(std::int64_t rows) const {
    return 2.0 * static_cast<double>(rows * (input_ + units_) * cell_gates(kind_) * units_);
  }

  CellKind kind_;
  std::int64_t input_ = 0, units_;
  Activation activation_, recurrent_activation_ = Activation::sigmoid;
  bool use_bias_, return_sequences_, return_state_, go_backwards_, stateful_, zero_output_for_mask_;
  double dropout_, recurrent_dropout_;
  int kernel_ = 0, recurrent_kernel_ = 0, bias_ = -1;
  WeightSpec kernel_spec_, recurrent_spec_, bias_spec_;
};

}  // namespace seqcore
