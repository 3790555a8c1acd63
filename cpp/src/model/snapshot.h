// Snapshot: a network with weights that never change again. What streams run, and what a file is loaded into for serving.
//
// Thread safety: any number of threads may use one at once.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "model/network.h"

namespace seqcore {

class Snapshot {
 public:
  // `weights` lie in `memory`, as WeightSpec::offset places them.
  Snapshot(std::shared_ptr<const Network> network, Arena memory, const float* weights)
      : network_(std::move(network)), memory_(std::move(memory)), weights_(weights) {}

  const Network& network() const { return *network_; }
  // Packed on first use; throws std::bad_alloc.
  Weights weights(Precision precision) const;
  // Of all of x, to y: elements(network().output_shape(x.shape)). std::invalid_argument where x does not fit, or a layer
  // is stateful.
  void predict(const Input& x, std::int64_t batch_size, Precision precision, float* y) const;

 private:
  std::shared_ptr<const Network> network_;
  Arena memory_;
  const float* weights_;
  mutable std::mutex packing_;
  mutable PackedWeights packed_[3];  // by Precision
};

}  // namespace seqcore
