// Recurrent layers: SimpleRNN, LSTM and GRU are one layer over the four cells of kernels.h, RNN (rnn.cc) is a chain of
// them. Bidirectional wraps two.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/parallel.h"
#include "layers/config.h"
#include "layers/layer.h"
#include "layers/products.h"

namespace seqcore {

// What a recurrent layer does with time, whatever its cells.
struct OverTime {
  bool return_sequences = false, return_state = false, go_backwards = false, stateful = false;
  bool zero_output_for_mask = false;

  OverTime() = default;
  explicit OverTime(Config& c);
};

class Recurrent;

class RecurrentLayer : public Layer {
 public:
  bool stateful() const override { return time_.stateful; }
  const char* stream_refusal() const override { return time_.go_backwards ? "it runs backwards in time" : nullptr; }

  bool go_backwards() const { return time_.go_backwards; }
  bool return_sequences() const { return time_.return_sequences; }
  bool return_state() const { return time_.return_state; }
  int state_arrays() const;
  virtual std::int64_t units() const = 0;                     // of the output
  virtual const Recurrent* plain() const { return nullptr; }  // itself, if it has one cell and no layers inside
  virtual void zero_masked_outputs(bool on) { time_.zero_output_for_mask = on; }

 protected:
  explicit RecurrentLayer(const OverTime& time) : time_(time) {}

  OverTime time_;
};

// A layer of SimpleRNN, LSTM, GRU or RNN; null where class_name is another.
std::unique_ptr<RecurrentLayer> recurrent_layer(const Json& description);

class Recurrent final : public RecurrentLayer {
 public:
  explicit Recurrent(const Json& description) : Recurrent(Config(description), nullptr) {}
  // Of a cell, SimpleRNNCell, LSTMCell or GRUCell, and what its layer does with time.
  Recurrent(const Json& cell, const OverTime& time) : Recurrent(Config(cell), &time) {}

  Dims build(const Dims& input) override;
  std::vector<StateShape> states() const override { return {{units_, kind_ == CellKind::lstm}}; }
  std::int64_t packed_size(const Kernels& k, Copy copy) const override;
  void pack(const Kernels& k, const float* weights, float* packed, Copy copy, const Packing& how) const override;
  std::unique_ptr<Step> make_step(const StepPlace& at) const override;
  std::int64_t units() const override { return units_; }
  const Recurrent* plain() const override { return this; }

  // forward and backward of two layers on the same input, whose sequences run side by side: neither waits for the other.
  // Initial and final states are the first's, then the second's.
  static std::array<Tensor, 2> forward_both(const Recurrent* const (&layers)[2], const Tensor& x, Run& run,
                                            void* (&caches)[2]);
  static std::array<Tensor, 2> backward_both(const Recurrent* const (&layers)[2], const Tensor (&dy)[2],
                                             void* const (&caches)[2], Run& run, bool need_dx);

 private:
  struct Cache;
  struct Parts;
  Recurrent(Config c, const OverTime* of_cell);
  class RecurrentStep;
  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override;
  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override;
  template <class Args>
  struct Sequence;
  int parts_for(const Tensor& x, const Run& run) const;  // in how many a batch's samples are kept for backward
  Sequence<CellForwardArgs> begin_forward(const Tensor& x, std::int64_t first, std::int64_t count, Run& run,
                                          const Tensor* initial_state, Cache* cache) const;
  Tensor end_forward(Parts* parts, Run& run, void** cache) const;
  Sequence<CellBackwardArgs> begin_backward(const Tensor& dy, Cache* cache, Run& run) const;
  Tensor end_backward(const Parts& parts, Run& run, bool need_dx) const;
  // Layers on the same input, part by part.
  static void forward_all(const Recurrent* const* layers, int count, const Tensor& x, Run& run, Parts* kept);
  static void backward_all(const Recurrent* const* layers, int count, const Tensor* dy, const Parts* const* kept,
                           Run& run);
  template <class Args>
  static void run_all(const Sequence<Args>* sequences, int count, Run& run);
  void drop(Cache& c, Run& run) const;
  void zero_masked_rows(const Cache& c, std::int64_t t, float* rows, std::int64_t ld) const;
  Grid grid_for(int threads, std::int64_t rows, std::int64_t shares, bool backwards, Precision precision) const;
  void weight_gradients(const Parts& parts, const RowList* rows, Run& run) const;
  Tensor input_gradient(const Parts& parts, const RowList* rows, Run& run) const;

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
  bool use_bias_;
  double dropout_, recurrent_dropout_;
  int kernel_ = 0, recurrent_kernel_ = 0, bias_ = -1;
  WeightSpec kernel_spec_, recurrent_spec_, bias_spec_;
};

}  // namespace seqcore
