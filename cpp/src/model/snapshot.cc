#include "model/snapshot.h"

#include <stdexcept>

#include "base/fork.h"

namespace seqcore {

Weights Snapshot::weights(Precision precision) const {
  const ForkGate gate;
  const std::lock_guard<std::mutex> lock(packing_);
  PackedWeights& packed = packed_[static_cast<int>(precision)];
  if (!packed.data) network_->pack(weights_, forward_copy(precision), 1, &packed);  // streams need no other threads
  return {weights_, packed.data, nullptr, precision};
}

void Snapshot::predict(const Input& x, std::int64_t batch_size, Precision precision, float* y) const {
  if (network_->stateful())
    throw std::invalid_argument("predict: the model has stateful layers; run it as a stream, which holds their states");
  network_->check_batches(x, batch_size);
  network_->predict(x, batch_size, weights(precision), nullptr, {}, y);
}

}  // namespace seqcore
