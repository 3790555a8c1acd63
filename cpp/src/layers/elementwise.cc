// The layers without weights that keep their input's shape: Masking, Dropout, Activation, ReLU and the like.
#include <algorithm>
#include <cstring>
#include <limits>

#include "layers/config.h"
#include "layers/factories.h"
#include "layers/step.h"

namespace seqcore {

namespace {

// A step whose features all equal mask_value is masked, and written as zeros.
class Masking final : public Layer {
 public:
  explicit Masking(const Json& description) {
    Config c(description);
    value_ = static_cast<float>(c.number("mask_value", 0));
    c.done();
  }

  Dims build(const Dims& input) override {
    if (input.rank != 2)
      throw std::invalid_argument("Masking: expected input of shape (batch, steps, features), got " + to_string(input));
    features_ = input.features();
    return input;
  }

  std::unique_ptr<Step> make_step(const StepPlace& at) const override;

 private:
  class MaskingStep;
  bool valid(const float* row) const {
    bool any = false;
    for (std::int64_t i = 0; i < features_; i++) any |= row[i] != value_;
    return any;
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    Tensor y = make_tensor(run, x, x.features());
    auto* mask = run.masks->allocate<std::uint8_t>(x.rows());
    for (std::int64_t r = 0; r < x.rows(); r++) {
      const float* from = x.data + r * x.ld;
      mask[r] = valid(from);
      float* to = y.data + r * y.ld;
      if (mask[r])
        std::memcpy(to, from, static_cast<std::size_t>(x.features()) * sizeof(float));
      else
        std::memset(to, 0, static_cast<std::size_t>(x.features()) * sizeof(float));
    }
    y.mask = mask;
    *cache = mask;
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run&, bool) const override {
    const auto* mask = static_cast<const std::uint8_t*>(cache);
    Tensor dx = dy;
    dx.mask = mask;
    for (std::int64_t r = 0; r < dx.rows(); r++)
      if (!mask[r]) std::memset(dx.data + r * dx.ld, 0, static_cast<std::size_t>(dx.features()) * sizeof(float));
    return dx;
  }

  float value_;
  std::int64_t features_ = 0;
};

class Masking::MaskingStep final : public Step {
 public:
  MaskingStep(const Masking& layer, const StepPlace& at) : layer_(layer), zeros_(at.memory.zeros(layer.features_)) {}
  void run(StepCall& call) noexcept override {
    call.masked = !layer_.valid(call.x);
    if (call.masked) call.x = zeros_;
  }

 private:
  const Masking& layer_;
  const float* zeros_;
};

std::unique_ptr<Step> Masking::make_step(const StepPlace& at) const { return std::make_unique<MaskingStep>(*this, at); }

// Inverted dropout, active in training only. Along the axes where noise_shape has a 1, one draw serves all entries.
// SpatialDropout1D's draws serve all steps.
class Dropout final : public Layer {
 public:
  explicit Dropout(const Json& description) {
    Config c(description);
    rate_ = static_cast<float>(c.rate("rate"));
    seed_ = c.any("seed");
    spatial_ = c.class_name() == "SpatialDropout1D";
    noise_shape_ = spatial_ ? Json(Json::Array{{}, std::int64_t{1}, {}}) : c.any("noise_shape");
    if (!noise_shape_.is_null() && !noise_shape_.is_array()) c.fail("noise_shape", "a list of integers and nulls");
    c.done();
  }

  Dims build(const Dims& input) override {
    if (spatial_ && input.rank != 2)
      throw std::invalid_argument("SpatialDropout1D: expected input of shape (batch, steps, features), got " +
                                  to_string(input));
    if (noise_shape_.is_null()) return input;
    const Json::Array& noise = noise_shape_.as_array();
    bool fits = noise.size() == static_cast<std::size_t>(input.rank) + 1;
    for (std::size_t axis = 0; fits && axis < noise.size(); axis++) {
      if (noise[axis].is_null()) continue;
      const std::int64_t size = noise[axis].as_integer();
      shared_[axis] = size == 1;
      fits = size == 1 || (axis > 0 && size == input.d[axis - 1]);
    }
    if (!fits)
      throw std::invalid_argument("noise_shape of Dropout: expected for each axis of an input of shape " +
                                  to_string(input) + " 1, None or (but for the batch) its size, got " +
                                  noise_shape_.dump());
    return input;
  }

 private:
  // Which row of the noise serves row r: rows are counted as x's are, with one entry along shared axes.
  std::int64_t noise_row(const Tensor& x, std::int64_t r) const {
    if (noise_shape_.is_null()) return r;
    std::int64_t row = 0, place = 1;
    const auto take = [&](std::int64_t size, bool shared) {
      if (!shared) {
        row += r % size * place;
        place *= size;
      }
      r /= size;
    };
    for (int i = x.dims.rank - 2; i >= 1; i--) take(x.dims.d[i], shared_[i + 1]);
    take(x.batch, shared_[0]);
    if (x.dims.rank >= 2) take(x.steps(), shared_[1]);
    return row;
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    if (!run.training || rate_ == 0) {
      *cache = nullptr;
      return x;
    }
    Tensor y = make_tensor(run, x, x.features());
    const std::int64_t n = x.features(), ld = pad(n);
    const std::int64_t drawn = shared_[x.dims.rank] ? 1 : n;
    float* scale = run.arena->floats(x.rows() * ld);
    const std::uint64_t key = random_key(run, 0);
    run.rows(x.rows(), 20.0 * static_cast<double>(n), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t r = from; r < to; r++) {
        float* row = scale + r * ld;
        run.k.dropout_mask(key, run.counter, static_cast<std::uint64_t>(noise_row(x, r) * pad(drawn)), drawn, rate_,
                           row);
        std::fill(row + drawn, row + n, row[0]);
        run.k.multiply(n, x.data + r * x.ld, scale + r * ld, y.data + r * y.ld);
      }
    });
    *cache = scale;
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool) const override {
    if (!cache) return dy;
    const auto* scale = static_cast<const float*>(cache);
    const std::int64_t n = dy.features(), ld = pad(n);
    run.rows(dy.rows(), static_cast<double>(n), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t r = from; r < to; r++)
        run.k.multiply(n, dy.data + r * dy.ld, scale + r * ld, dy.data + r * dy.ld);
    });
    return dy;
  }

  float rate_;
  bool spatial_;
  Json noise_shape_;                      // or null
  bool shared_[Dims::kMaxRank + 1] = {};  // by axis, the batch first
};

// Activation and Softmax.
class ActivationLayer final : public Layer {
 public:
  explicit ActivationLayer(const Json& description) {
    Config c(description);
    if (c.class_name() == "Softmax") {
      activation_ = Activation::softmax;
      axis_ = c.axis();
    } else {
      activation_ = c.activation("activation", "");
    }
    activity = c.penalty("activity_regularizer");
    c.done();
  }

  Dims build(const Dims& input) override {
    check_last_axis("Softmax", axis_, input);
    features_ = input.features();
    return input;
  }
  const Layer* logits_source() const override { return activity ? nullptr : this; }
  Activation output_activation() const override { return activation_; }
  Tensor logits(const void* cache) const override { return static_cast<const Cache*>(cache)->x; }
  std::unique_ptr<Step> make_step(const StepPlace& at) const override;

 private:
  class ActivationStep;
  struct Cache {
    Tensor x, y;
  };

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    auto* c = run.arena->allocate<Cache>(1);
    *c = {x, make_tensor(run, x, x.features())};
    const Tensor& y = c->y;
    run.rows(x.rows(), 40.0 * static_cast<double>(x.features()), 1, [&](std::int64_t from, std::int64_t to, int) {
      run.k.activate(activation_, to - from, x.features(), x.data + from * x.ld, x.ld, y.data + from * y.ld, y.ld);
    });
    *cache = c;
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool) const override {
    if (hands_over_logits(run)) return dy;
    const Cache& c = *static_cast<const Cache*>(cache);
    const Tensor& from_cache = needs_input(activation_) ? c.x : c.y;
    run.rows(dy.rows(), 10.0 * static_cast<double>(dy.features()), 1, [&](std::int64_t from, std::int64_t to, int) {
      float* g = dy.data + from * dy.ld;
      run.k.activate_backward(activation_, to - from, dy.features(), from_cache.data + from * from_cache.ld,
                              from_cache.ld, g, dy.ld, g, dy.ld);
    });
    return dy;
  }

  Activation activation_;
  std::int64_t axis_ = -1, features_ = 0;
};

class ActivationLayer::ActivationStep final : public Step {
 public:
  ActivationStep(const ActivationLayer& layer, const StepPlace& at)
      : k_(at.k), activation_(layer.activation_), n_(layer.features_), y_(at.memory.floats(pad(n_))) {}
  void run(StepCall& call) noexcept override {
    call.one_part([&] { k_.activate(activation_, 1, n_, call.x, 0, y_, 0); });
    call.x = y_;
  }

 private:
  const Kernels& k_;
  Activation activation_;
  std::int64_t n_;
  float* y_;
};

std::unique_ptr<Step> ActivationLayer::make_step(const StepPlace& at) const {
  return std::make_unique<ActivationStep>(*this, at);
}

// ReLU, LeakyReLU and ELU: kernels/rectify.inl.
class Rectifier final : public Layer {
 public:
  explicit Rectifier(const Json& description) {
    Config c(description);
    args_.max = std::numeric_limits<float>::infinity();
    if (c.class_name() == "ELU") {
      args_.exponential = true;
      args_.slope = static_cast<float>(c.number("alpha", 1));
    } else if (c.class_name() == "LeakyReLU") {
      args_.slope = not_negative(c, "negative_slope", 0.3);
    } else {
      args_.slope = not_negative(c, "negative_slope", 0);
      args_.threshold = not_negative(c, "threshold", 0);
      if (!c.any("max_value").is_null()) args_.max = not_negative(c, "max_value", 0);
    }
    c.done();
  }

  Dims build(const Dims& input) override {
    args_.n = input.features();
    return input;
  }

  std::unique_ptr<Step> make_step(const StepPlace& at) const override {
    RectifyArgs args = args_;
    args.rows = 1;
    args.y = at.memory.floats(pad(args.n));
    return std::make_unique<RowStep<RectifyArgs>>(at.k.rectify, args);
  }

 private:
  static float not_negative(Config& c, const char* key, double fallback) {
    const double value = c.number(key, fallback);
    if (!(value >= 0)) c.fail(key, "at least 0");
    return static_cast<float>(value);
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    const Tensor y = make_tensor(run, x, x.features());
    over_rows(run.k.rectify, x, y, run);
    auto* c = run.arena->allocate<Tensor>(1);
    *c = x;
    *cache = c;
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool) const override {
    over_rows(run.k.rectify_backward, *static_cast<const Tensor*>(cache), dy, run);
    return dy;
  }

  void over_rows(void (*kernel)(const RectifyArgs&), const Tensor& x, const Tensor& y, Run& run) const {
    run.rows(x.rows(), 10.0 * static_cast<double>(x.features()), 1, [&](std::int64_t from, std::int64_t to, int) {
      RectifyArgs args = args_;
      args.rows = to - from;
      args.n = x.features();
      args.x = x.data + from * x.ld;
      args.ldx = x.ld;
      args.y = y.data + from * y.ld;
      args.ldy = y.ld;
      kernel(args);
    });
  }

  RectifyArgs args_{};
};

}  // namespace

std::unique_ptr<Layer> make_masking(const Json& description) { return std::make_unique<Masking>(description); }
std::unique_ptr<Layer> make_dropout(const Json& description) { return std::make_unique<Dropout>(description); }
std::unique_ptr<Layer> make_activation(const Json& description) {
  return std::make_unique<ActivationLayer>(description);
}
std::unique_ptr<Layer> make_rectifier(const Json& description) { return std::make_unique<Rectifier>(description); }

}  // namespace seqcore
