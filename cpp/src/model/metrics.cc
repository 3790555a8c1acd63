#include "model/metrics.h"

#include <cmath>

#include "layers/config.h"

namespace seqcore {

namespace {

std::int64_t argmax(const float* x, std::int64_t n) {
  std::int64_t best = 0;
  for (std::int64_t i = 1; i < n; i++)
    if (x[i] > x[best]) best = i;
  return best;
}

Json without(const Json& description, std::initializer_list<const char*> drop, const char* class_name) {
  Json::Object config;
  if (const Json* given = description.find("config"); given && given->is_object())
    for (const auto& [key, value] : given->as_object()) {
      bool keep = true;
      for (const char* name : drop) keep &= key != name;
      if (keep) config.emplace_back(key, value);
    }
  return Json(Json::Object{{"class_name", Json(class_name)}, {"config", Json(std::move(config))}});
}

}  // namespace

Metric::Metric(const Json& description) {
  Config c(description);
  const std::string& name = c.class_name();
  if (name == "BinaryAccuracy") {
    kind_ = Kind::binary_accuracy;
    threshold_ = static_cast<float>(c.number("threshold", 0.5));
    c.done();
  } else if (name == "CategoricalAccuracy" || name == "SparseCategoricalAccuracy") {
    kind_ = name == "CategoricalAccuracy" ? Kind::categorical_accuracy : Kind::sparse_categorical_accuracy;
    c.done();
  } else if (name == "RootMeanSquaredError") {
    kind_ = Kind::root_mean_squared_error;
    c.done();
    loss_ = std::make_unique<Loss>(without(description, {"name", "dtype"}, "MeanSquaredError"));
  } else {
    kind_ = Kind::mean_of_loss;
    loss_ = std::make_unique<Loss>(without(description, {"name", "dtype", "reduction"}, name.c_str()));
  }
}

bool Metric::takes_labels() const {
  return kind_ == Kind::sparse_categorical_accuracy || (loss_ && loss_->takes_labels());
}

Metric::Value Metric::with(const Tensor& pred, const Targets& y, const float* weight, const std::uint8_t* skip,
                           Run& run) const {
  Value sum = value();
  const std::int64_t rows = pred.rows(), n = pred.features();
  const float* values = nullptr;
  if (loss_) {
    float* each = run.arena->floats(rows);
    const std::uint8_t* silent = skip;
    if (loss_->ignores()) {
      auto* ignored = run.arena->allocate<std::uint8_t>(rows);
      loss_->skip_ignored(y.labels, skip, rows, ignored);
      silent = ignored;
    }
    loss_->rows(pred, y, nullptr, silent, loss_->from_logits(), each, nullptr, run);
    values = each;
    if (weight || skip) skip = silent;
  }
  for (std::int64_t r = 0; r < rows; r++) {
    if (skip && skip[r]) continue;
    const float* p = pred.data + r * pred.ld;
    double value;
    switch (kind_) {
      case Kind::binary_accuracy: {
        std::int64_t hits = 0;
        for (std::int64_t i = 0; i < n; i++) hits += y.values[r * y.ld + i] == (p[i] > threshold_ ? 1.0f : 0.0f);
        value = static_cast<double>(hits) / static_cast<double>(n);
        break;
      }
      case Kind::categorical_accuracy:
        value = argmax(p, n) == argmax(y.values + r * y.ld, n);
        break;
      case Kind::sparse_categorical_accuracy:
        value = argmax(p, n) == y.labels[r];
        break;
      default:
        value = static_cast<double>(values[r]);
    }
    const double w = weight ? static_cast<double>(weight[r]) : 1.0;
    sum.total += w * value;
    sum.count += w;
  }
  return sum;
}

double Metric::result() const {
  if (count_ == 0) return 0;
  const double mean = total_ / count_;
  return kind_ == Kind::root_mean_squared_error ? std::sqrt(mean) : mean;
}

}  // namespace seqcore
