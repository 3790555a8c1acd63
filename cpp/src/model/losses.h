// Losses: Keras's, per row of predictions, with their gradients. The arithmetic is Kernels::loss.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "kernels/kernels.h"
#include "layers/run.h"

namespace seqcore {

// What predictions are compared with: [rows][ld] floats, or one label a row.
struct Targets {
  const float* values = nullptr;
  std::int64_t ld = 0;
  const std::int32_t* labels = nullptr;
};

class Loss {
 public:
  // {"class_name": "Huber", "config": {"delta": 1.0, …}}
  explicit Loss(const Json& description);

  bool takes_labels() const { return kind_ == LossKind::sparse_categorical_crossentropy; }
  // Whether the loss, right after an output layer of that activation, is better computed from the logits.
  bool fuses(Activation output) const;

  // rows[i] = the loss of row i (0 where skipped); with dpred, also weight[i] * its gradient.
  // `from_logits` overrides the config's (a fused output).
  void rows(const Tensor& pred, const Targets& y, const float* weight, const std::uint8_t* skip, bool from_logits,
            float* rows, Tensor* dpred, Run& run) const;
  bool from_logits() const { return from_logits_; }
  // Throws std::invalid_argument if the loss has weights of classes, and not so many.
  void check_classes(std::int64_t classes) const;

  enum class Reduction { mean, sum, weighted_mean, none };
  Reduction reduction() const { return reduction_; }

  // ignore_class: rows of that label have no loss, no gradient and no part in a mean. Their labels are never read.
  bool ignores() const { return ignores_; }
  bool ignores(double label) const { return ignores_ && label == static_cast<double>(ignored_); }
  // skip[r] = whether row r is masked (`masked` may be null) or ignored.
  void skip_ignored(const std::int32_t* labels, const std::uint8_t* masked, std::int64_t rows,
                    std::uint8_t* skip) const;
  // Throws std::invalid_argument if a label is neither in [0, classes) nor ignored.
  void check_label(double label, std::int64_t classes, std::int64_t sample) const;

 private:
  LossKind kind_;
  bool from_logits_ = false;
  float label_smoothing_ = 0, delta_ = 1, alpha_ = 0, gamma_ = 0;
  std::vector<float> alphas_;  // of each class, where there are such
  bool balanced_ = false;
  bool ignores_ = false;
  std::int64_t ignored_ = 0;
  Reduction reduction_ = Reduction::mean;
};

}  // namespace seqcore
