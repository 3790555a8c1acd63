// Network: a chain of layers and where their weights lie. Immutable once built, so that models, snapshots of their weights
// and streams share one. It has no weights: whoever runs it brings them.
//
// Thread safety: everything is const and may be called from any number of threads at once.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/floats.h"
#include "base/json.h"
#include "base/flush_guard.h"
#include "base/shape.h"
#include "layers/layer.h"

namespace seqcore {

// A batch-major array of the caller's: [n][…], C-contiguous. Exactly one of the pointers is set.
struct Input {
  const float* values = nullptr;
  const std::int32_t* ids = nullptr;
  std::vector<std::int64_t> shape;  // n first
};

struct Output {
  Floats values;
  std::vector<std::int64_t> shape;
};

// The weights to run with: all of them, and the layers' packed copies, forward's of `precision`.
struct Weights {
  const float* canonical = nullptr;
  const float* packed = nullptr;
  const float* packed_backward = nullptr;
  Precision precision = Precision::float32;
};

// One packed copy of all layers' weights.
struct PackedWeights {
  Arena memory;
  float* data = nullptr;
  std::uint64_t version = 0;  // of the weights it was made from
};

class Network {
 public:
  // The description is _core.pyi's: {"input": {"shape": […], "dtype": …}, "layers": […]}. Throws std::invalid_argument.
  explicit Network(const Json& description);
  ~Network();

  // ---- what it is
  struct Weight {
    int layer;
    const WeightSpec* spec;
  };
  const Kernels& kernels() const { return k_; }
  const std::vector<std::unique_ptr<Layer>>& layers() const { return layers_; }
  const std::vector<std::string>& class_names() const { return class_names_; }
  const std::vector<Weight>& weights() const { return weights_; }
  const Dims& input() const { return input_; }
  std::int64_t input_batch() const { return input_batch_; }      // -1, or fixed where a layer is stateful
  const std::vector<Dims>& outputs() const { return outputs_; }  // of each layer; -1 = any
  const Dims& output() const { return outputs_.back(); }
  // Of the first output, with the batch, for an input of that shape. REQUIRES: check_input takes it.
  std::vector<std::int64_t> output_shape(const std::vector<std::int64_t>& input) const;
  // f(the layer's output dims) for each layer, for inputs of so many steps where their number may vary. Throws
  // std::invalid_argument where these are too few for a layer.
  template <class F>
  void each_output(std::int64_t steps, F&& f) const {
    for (std::size_t i = 0; i < layers_.size(); i++) {
      Dims dims = outputs_[i];
      if (dims.d[0] < 0) dims.d[0] = steps = layers_[i]->output_steps(steps);
      f(dims);
    }
  }
  std::int64_t size() const { return size_; }  // floats of all weights, as WeightSpec::offset places them
  bool stateful() const { return stateful_; }
  std::int64_t packed_bytes(Copy copy) const { return packed_sizes_[static_cast<int>(copy)] * 4; }
  int state_slots() const { return state_slots_; }                                      // in the vectors of States
  int state_at(int layer) const { return state_at_[static_cast<std::size_t>(layer)]; }  // the layer's first
  bool takes_ids() const { return layers_.front()->takes_ids(); }

  // ---- checks: std::invalid_argument, naming x
  void check_input(const Input& x) const;
  void check_ids(const std::int32_t* ids, std::int64_t n, std::int64_t per_sample) const;
  void check_batches(const Input& x, std::int64_t batch_size) const;  // all that predict needs

  // ---- running
  void pack(const float* weights, Copy copy, int threads, PackedWeights* packed) const;

  struct Memory {
    Arena keep;     // training: everything; else what outlives a layer's neighbours
    Arena flip[2];  // inference: a layer's input in one, its output in the other
    Arena scratch;  // of the kernels
    std::size_t capacity() const;
    void reset();
  };
  // Takes the memory that the last call left, or new, and leaves it for the next; denormals are flushed meanwhile.
  class Lease {
   public:
    explicit Lease(const Network& network);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Memory& memory() const { return *memory_; }

   private:
    const Network& network_;
    Memory* memory_;
    const FlushGuard flush_;  // for what runs outside of parallel regions
  };

  Run make_run(Memory& memory, const Weights& weights, int threads, const Poll& poll) const;
  // Samples first .. first + count of x, or those that `rows` names, time-major.
  Tensor gather(const Input& x, const std::int64_t* rows, std::int64_t first, std::int64_t count, Arena& arena,
                const Run& run) const;
  // With caches everything stays in run.arena. With `memory` two arenas take turns: two layers' memory, not all layers'.
  Tensor run_layers(Tensor x, Run& run, Memory* memory, std::vector<void*>* caches) const;
  // The outputs for all of x, in batches; or in larger ones where there are no states, since no result depends on it.
  // `states`: of stateful layers, carried on; else null. `y` has elements(output_shape(x.shape)).
  Output predict(const Input& x, std::int64_t batch_size, const Weights& weights, std::vector<States>* states,
                 const Poll& poll) const;
  void predict(const Input& x, std::int64_t batch_size, const Weights& weights, std::vector<States>* states,
               const Poll& poll, float* y) const;

 private:
  std::int64_t samples_at_once(const Input& x, std::int64_t batch_size) const;

  const Kernels& k_;
  Dims input_;
  std::int64_t input_batch_ = -1;
  std::vector<std::unique_ptr<Layer>> layers_;
  std::vector<std::string> class_names_;
  std::vector<Dims> outputs_;
  std::vector<Weight> weights_;
  std::vector<int> state_at_;
  int state_slots_ = 0;
  bool stateful_ = false;
  std::int64_t size_ = 0, packed_sizes_[kCopies] = {};
  mutable std::atomic<Memory*> spare_{nullptr};
};

// Rearranges [n][T][block] (picking rows) into [T][count][block]. In stretches of time: one sample touches all pages of one.
template <class T>
void to_time_major(const T* from, const std::int64_t* rows, std::int64_t first, std::int64_t count, std::int64_t steps,
                   std::int64_t block, T* to, const Run& run) {
  const double floats = static_cast<double>(block) * sizeof(T) / sizeof(float);
  const auto stretch =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(kRegionFloats / (floats * static_cast<double>(count))));
  for (std::int64_t begin = 0; begin < steps; begin += stretch) {
    const std::int64_t end = std::min(begin + stretch, steps);
    run.rows(count, Cost::copy(floats * static_cast<double>(end - begin)), 1,
             [&](std::int64_t b, std::int64_t last, int) {
               for (; b < last; b++) {
                 const T* sample = from + (rows ? rows[first + b] : first + b) * steps * block;
                 for (std::int64_t t = begin; t < end; t++)
                   std::copy_n(sample + t * block, block, to + (t * count + b) * block);
               }
             });
  }
}
Output to_output(const Tensor& y, const Run& run);  // batch-major

}  // namespace seqcore
