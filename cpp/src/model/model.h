// Model: a network with its weights, and all that training needs: loss, metrics, optimizer, states.
// Start here to read the core: forward, then gradients, then train_on_batch.
//
// Thread safety: predict, snapshot and forward (training false, no stateful layer) may run on any number of threads at once.
// What changes the model is for one thread at a time: a second one gets std::runtime_error, not a race. What reads it
// beside that may see some of the change and not the rest.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "model/losses.h"
#include "model/metrics.h"
#include "model/network.h"
#include "model/optimizers.h"
#include "model/snapshot.h"

namespace seqcore {

// What one training or test call works on: rows picks samples (null: all n of x).
struct Batch {
  Input x, y;
  const float* sample_weight = nullptr;
  std::vector<std::int64_t> weight_shape;
  const std::int64_t* rows = nullptr;
  std::int64_t count = 0;
};

class Model {
 public:
  // The description is _core.pyi's: {"input": {"shape": […], "dtype": …}, "layers": […]}. Weights are initialized.
  Model(const std::string& description, std::uint64_t seed);

  // ---- what it is
  const std::vector<Network::Weight>& weights() const { return network_->weights(); }
  std::vector<std::vector<std::int64_t>> output_shapes() const;  // -1 = any
  const Network& network() const { return *network_; }

  // ---- weights
  void get_weight(int index, float* out) const;
  void set_weight(int index, const float* value);
  void initial_weight(int index, float* out) const;

  // ---- running
  Output predict(const Input& x, std::int64_t batch_size, Precision precision = Precision::float32,
                 const Poll& poll = {}) const;
  // The weights as they are now, for streams. Shared until they change.
  std::shared_ptr<const Snapshot> snapshot() const;
  struct Result {
    std::vector<Output> outputs;
    std::optional<std::vector<std::uint8_t>> mask;  // [n][steps]
  };
  // In training statistics move, but for those of weights whose flag in `trainable` is false.
  Result forward(const Input& x, bool training, const std::uint8_t* mask, const std::vector<Input>* initial_state,
                 const std::vector<bool>& trainable = {}, const Poll& poll = {});
  void reset_states(int layer);
  std::vector<Output> states(int layer) const;
  void set_states(int layer, const std::vector<Input>& states);

  // ---- training
  void compile(const std::string& config);
  // Shapes, ids, labels in range, finite targets and weights of a whole data set, so that a bad sample is named before the
  // first step. Steps check their own shapes, ids and labels.
  void check_data(const Batch& batch) const;
  // `seen`, where given, gets the batch's outputs, as the loss saw them, and their mask.
  double train_on_batch(const Batch& batch, const Poll& poll = {}, Result* seen = nullptr);
  double test_on_batch(const Batch& batch, const Poll& poll = {}, Result* seen = nullptr);
  double gradients(const Batch& batch, std::vector<std::vector<float>>* out, const Poll& poll = {});
  bool loss_takes_labels() const { return loss_ && loss_->takes_labels(); }

  std::vector<double> metric_results() const;
  void reset_metrics();
  double loss_mean() const { return loss_count_ == 0 ? 0 : loss_total_ / loss_count_; }
  std::int64_t skipped_steps = 0;
  Optimizer& optimizer();  // throws std::runtime_error before compile
  std::vector<std::pair<std::string, Output>> optimizer_variables();
  void set_optimizer_variables(const std::vector<std::pair<std::string, Input>>& values);
  void finalize_ema();
  std::uint64_t seed, rng_counter = 0;

 private:
  struct Packed {
    Weights weights;
    std::shared_ptr<const PackedWeights> forward, backward;
  };
  struct Prepared;

  Run make_run(const Network::Lease& lease, const Packed& packed, const Poll& poll) const;
  Packed packed(Precision precision, bool backward) const;
  void changed();  // weights have: packed copies are stale

  void check_shapes(const Batch& batch) const;
  void check_labels(const Input& y, std::int64_t n, std::int64_t per_sample) const;
  Prepared prepare(const Batch& batch, const Tensor& pred, Run& run) const;
  double evaluate(const Batch& batch, Run& run, bool update_metrics, bool backward, Result* seen);
  double add_regularizers(float* grads, const Run& run) const;
  void constrain();
  std::vector<Moving> moving(const std::vector<bool>& trainable) const;  // by weight; empty: all
  void move(const std::vector<Moving>& moving);                          // to their values

  std::shared_ptr<const Network> network_;
  Arena weight_memory_;
  float* data_ = nullptr;
  std::vector<float> grads_;

  std::atomic<std::uint64_t> version_{1};
  mutable std::mutex packing_;  // guards the next three
  mutable std::shared_ptr<PackedWeights> packed_[kCopies];
  mutable std::weak_ptr<const Snapshot> snapshot_;
  mutable std::uint64_t snapshot_version_ = 0;
  mutable std::mutex mutating_;

  mutable std::vector<States> states_;  // guarded by mutating_

  std::unique_ptr<Loss> loss_;
  std::vector<Metric> metrics_;
  std::size_t weighted_from_ = 0;  // metrics_ from here on take sample weights
  std::unique_ptr<Optimizer> optimizer_;
  std::vector<Optimizer::Variable> trainable_;
  std::vector<bool> trains_;    // per weight, by gradients
  std::vector<Moving> moving_;  // the statistics that training moves
  double loss_total_ = 0, loss_count_ = 0;
};

}  // namespace seqcore
