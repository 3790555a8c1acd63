// Metrics: running means over the rows of all batches since the last reset, in double and in row order.
#pragma once

#include <cstdint>
#include <memory>

#include "model/losses.h"

namespace seqcore {

class Metric {
 public:
  // {"class_name": "SparseCategoricalAccuracy", "config": {…}}: the accuracies, RootMeanSquaredError and whatever is a loss.
  explicit Metric(const Json& description);

  bool takes_labels() const;
  const Loss* loss() const { return loss_.get(); }  // whose mean it is, or null
  struct Value {
    double total, count;
  };
  Value value() const { return {total_, count_}; }
  void restore(Value v) {
    total_ = v.total;
    count_ = v.count;
  }

  // The value with these rows, for `restore`. weight: per row, or null for 1. skip: per row, nonzero = left out, or null.
  // Rows that the loss ignores count as 0, as Keras's do, unless there are weights or a mask: then they are left out.
  Value with(const Tensor& pred, const Targets& y, const float* weight, const std::uint8_t* skip, Run& run) const;
  double result() const;
  void reset() { total_ = count_ = 0; }

 private:
  enum class Kind {
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    mean_of_loss,
    root_mean_squared_error
  };
  Kind kind_;
  float threshold_ = 0.5f;
  std::unique_ptr<Loss> loss_;
  double total_ = 0, count_ = 0;
};

}  // namespace seqcore
