#include "model/losses.h"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "layers/config.h"

namespace seqcore {

Loss::Loss(const Json& description) {
  static constexpr std::pair<const char*, LossKind> kLosses[] = {
      {"MeanSquaredError", LossKind::mean_squared_error},
      {"MeanAbsoluteError", LossKind::mean_absolute_error},
      {"Huber", LossKind::huber},
      {"MeanAbsolutePercentageError", LossKind::mean_absolute_percentage_error},
      {"MeanSquaredLogarithmicError", LossKind::mean_squared_logarithmic_error},
      {"LogCosh", LossKind::log_cosh},
      {"Poisson", LossKind::poisson},
      {"KLDivergence", LossKind::kl_divergence},
      {"Hinge", LossKind::hinge},
      {"SquaredHinge", LossKind::squared_hinge},
      {"CategoricalHinge", LossKind::categorical_hinge},
      {"CosineSimilarity", LossKind::cosine_similarity},
      {"BinaryCrossentropy", LossKind::binary_crossentropy},
      {"BinaryFocalCrossentropy", LossKind::binary_focal_crossentropy},
      {"CategoricalFocalCrossentropy", LossKind::categorical_focal_crossentropy},
      {"CategoricalCrossentropy", LossKind::categorical_crossentropy},
      {"SparseCategoricalCrossentropy", LossKind::sparse_categorical_crossentropy},
  };
  Config c(description);
  bool known = false;
  std::string all;
  for (const auto& [name, kind] : kLosses) {
    all += std::string(all.empty() ? "" : ", ") + name;
    if (c.class_name() == name) {
      kind_ = kind;
      known = true;
    }
  }
  if (!known) throw std::invalid_argument("unknown loss '" + c.class_name() + "'; expected one of: " + all);
  if (kind_ == LossKind::huber) {
    delta_ = static_cast<float>(c.number("delta", 1));
    if (!(delta_ > 0)) c.fail("delta", "positive");
  }
  if (kind_ >= LossKind::binary_crossentropy) {
    from_logits_ = c.boolean("from_logits", false);
    if (c.integer("axis", -1) != -1) c.fail("axis", "-1");
  }
  if (kind_ >= LossKind::binary_crossentropy && !takes_labels()) {
    label_smoothing_ = static_cast<float>(c.number("label_smoothing", 0));
    if (!(label_smoothing_ >= 0 && label_smoothing_ <= 1)) c.fail("label_smoothing", "in [0, 1]");
  }
  if (kind_ == LossKind::binary_focal_crossentropy || kind_ == LossKind::categorical_focal_crossentropy) {
    const Json alpha = kind_ == LossKind::categorical_focal_crossentropy ? c.any("alpha") : Json();
    if (alpha.is_array())
      for (const Json& each : alpha.as_array()) alphas_.push_back(static_cast<float>(each.as_number()));
    else
      alpha_ = static_cast<float>(c.number("alpha", 0.25));
    gamma_ = static_cast<float>(c.number("gamma", 2));
    if (!(gamma_ >= 0)) c.fail("gamma", "0 or more");
    if (kind_ == LossKind::binary_focal_crossentropy) balanced_ = c.boolean("apply_class_balancing", false);
  }
  if (takes_labels() && !c.any("ignore_class").is_null()) {
    ignores_ = true;
    ignored_ = c.integer("ignore_class", 0);
  }
  const std::string reduction = c.string("reduction", "sum_over_batch_size");
  if (reduction == "sum_over_batch_size" || reduction == "mean")
    reduction_ = Reduction::mean;
  else if (reduction == "sum")
    reduction_ = Reduction::sum;
  else if (reduction == "mean_with_sample_weight")
    reduction_ = Reduction::weighted_mean;
  else if (reduction == "none")
    reduction_ = Reduction::none;
  else
    c.fail("reduction", "sum_over_batch_size, mean, sum, mean_with_sample_weight or none");
  c.done();
}

bool Loss::fuses(Activation output) const {
  if (from_logits_) return false;
  if (kind_ == LossKind::binary_crossentropy) return output == Activation::sigmoid;
  return kind_ >= LossKind::categorical_crossentropy && output == Activation::softmax;
}

void Loss::skip_ignored(const std::int32_t* labels, const std::uint8_t* masked, std::int64_t rows,
                        std::uint8_t* skip) const {
  for (std::int64_t r = 0; r < rows; r++) skip[r] = (masked && masked[r]) || ignores(labels[r]);
}

void Loss::check_label(double label, std::int64_t classes, std::int64_t sample) const {
  if ((label >= 0 && label < static_cast<double>(classes) && label == std::floor(label)) || ignores(label)) return;
  throw std::invalid_argument("y: sparse_categorical_crossentropy expects integer labels in [0, " +
                              std::to_string(classes) + ")" +
                              (ignores_ ? " or ignore_class = " + std::to_string(ignored_) : "") + ", got " +
                              std::to_string(label) + " in sample " + std::to_string(sample));
}

void Loss::check_classes(std::int64_t classes) const {
  if (!alphas_.empty() && static_cast<std::int64_t>(alphas_.size()) != classes)
    throw std::invalid_argument("loss: alpha has " + std::to_string(alphas_.size()) + " weights of classes, y_pred " +
                                std::to_string(classes) + " classes");
}

void Loss::rows(const Tensor& pred, const Targets& y, const float* weight, const std::uint8_t* skip, bool from_logits,
                float* rows, Tensor* dpred, Run& run) const {
  const std::int64_t n = pred.features();
  bool zeros_and_ones = kind_ == LossKind::hinge || kind_ == LossKind::squared_hinge;
  for (std::int64_t r = 0; zeros_and_ones && r < pred.rows(); r++)
    for (std::int64_t i = 0; i < n; i++)
      zeros_and_ones &= y.values[r * y.ld + i] == 0.0f || y.values[r * y.ld + i] == 1.0f;
  run.rows(pred.rows(), 60.0 * static_cast<double>(n), 1, [&](std::int64_t from, std::int64_t to, int) {
    LossArgs args{};
    args.kind = kind_;
    args.rows = to - from;
    args.n = n;
    args.pred = pred.data + from * pred.ld;
    args.ldp = pred.ld;
    if (y.values) args.target = y.values + from * y.ld;
    args.ldt = y.ld;
    if (y.labels) args.labels = y.labels + from;
    if (weight) args.weight = weight + from;
    if (skip) args.skip = skip + from;
    args.from_logits = from_logits;
    args.label_smoothing = label_smoothing_;
    args.delta = delta_;
    args.zeros_and_ones = zeros_and_ones;
    args.alpha = alpha_;
    args.gamma = gamma_;
    args.alphas = alphas_.empty() ? nullptr : alphas_.data();
    args.balanced = balanced_;
    args.loss = rows + from;
    if (dpred) {
      args.dpred = dpred->data + from * dpred->ld;
      args.ldd = dpred->ld;
    }
    run.k.loss(args);
  });
}

}  // namespace seqcore
