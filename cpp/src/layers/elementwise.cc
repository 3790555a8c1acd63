// The layers without weights that keep their input's shape: Masking, Dropout and other noise, Activation, ReLU and the like.
#include <algorithm>
#include <cmath>
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

// What is random in training and nothing at inference. Along the axes where noise_shape has a 1, one draw serves all
// entries.
//
//   Dropout           x times a mask's 0 or 1 / (1 - rate); SpatialDropout1D's draws serve all steps
//   GaussianDropout   x times a normal number of mean 1 and variance rate / (1 - rate)
//   GaussianNoise     x plus a normal number of mean 0
//   AlphaDropout      x, or where the mask has 0 what selu tends to, and then the map that makes of mean 0 and variance 1
//                     the same again (Klambauer and others, 2017)
class Noise final : public Layer {
 public:
  explicit Noise(const Json& description) {
    Config c(description);
    const std::string& name = c.class_name();
    kind_ = name == "GaussianNoise"     ? Kind::added
            : name == "GaussianDropout" ? Kind::gaussian
            : name == "AlphaDropout"    ? Kind::alpha
                                        : Kind::dropout;
    const char* const word = kind_ == Kind::added ? "stddev" : "rate";
    const double rate = c.rate(word);
    if (rate == 1 && (kind_ == Kind::gaussian || kind_ == Kind::alpha)) c.fail(word, "at least 0 and below 1");
    rate_ = static_cast<float>(rate);
    if (kind_ == Kind::gaussian) deviation_ = static_cast<float>(std::sqrt(rate / (1 - rate)));
    if (kind_ == Kind::alpha) {
      constexpr double kLow = -1.6732632423543772848 * 1.0507009873554804934;
      const double slope = 1 / std::sqrt((1 - rate) * (1 + rate * kLow * kLow));
      slope_ = static_cast<float>(slope);
      kept_ = static_cast<float>(-slope * kLow * rate);
      dropped_ = static_cast<float>(slope * kLow * (1 - rate));
    }
    seed_ = c.seed();
    spatial_ = name == "SpatialDropout1D";
    if (spatial_) noise_shape_ = Json(Json::Array{{}, std::int64_t{1}, {}});
    if (name == "Dropout" || kind_ == Kind::alpha) noise_shape_ = c.any("noise_shape");
    if (!noise_shape_.is_null() && !noise_shape_.is_array()) c.fail("noise_shape", "a list of integers and nulls");
    name_ = name;
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
      const std::int64_t size = noise[axis].is_integer() ? noise[axis].as_integer() : 0;
      shared_[axis] = size == 1;
      fits = size == 1 || (axis > 0 && size == input.d[axis - 1]);
    }
    if (!fits)
      throw std::invalid_argument("noise_shape of " + name_ + ": expected for each axis of an input of shape " +
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
    float* scale = kind_ == Kind::added ? y.data : run.arena->floats(x.rows() * ld);
    const std::uint64_t key = random_key(run, 0);
    run.rows(x.rows(), 20.0 * static_cast<double>(n), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t r = from; r < to; r++) {
        const float* const in = x.data + r * x.ld;
        float *const row = scale + r * ld, *const out = y.data + r * y.ld;
        draw(key, run, static_cast<std::uint64_t>(noise_row(x, r) * pad(drawn)), drawn, row);
        std::fill(row + drawn, row + n, row[0]);
        if (kind_ == Kind::alpha)
          for (std::int64_t i = 0; i < n; i++) {
            const bool kept = row[i] != 0;
            row[i] = kept ? slope_ : 0.0f;
            out[i] = kept ? slope_ * in[i] + kept_ : dropped_;
          }
        else
          (kind_ == Kind::added ? run.k.add : run.k.multiply)(n, in, row, out);
      }
    });
    *cache = kind_ == Kind::added ? nullptr : scale;
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

  void draw(std::uint64_t key, const Run& run, std::uint64_t index, std::int64_t n, float* y) const {
    if (kind_ == Kind::added)
      run.k.normals(key, run.counter, index, n, 0, rate_, y);
    else if (kind_ == Kind::gaussian)
      run.k.normals(key, run.counter, index, n, 1, deviation_, y);
    else
      run.k.dropout_mask(key, run.counter, index, n, rate_, y);
  }

  enum class Kind { dropout, gaussian, added, alpha };

  std::string name_;
  Kind kind_;
  float rate_;  // GaussianNoise: its standard deviation
  float deviation_ = 0, slope_ = 0, kept_ = 0, dropped_ = 0;
  bool spatial_;
  Json noise_shape_;                      // or null
  bool shared_[Dims::kMaxRank + 1] = {};  // by axis, the batch first
};

// Its input, whose penalty is added to the loss.
class ActivityRegularization final : public Layer {
 public:
  explicit ActivityRegularization(const Json& description) {
    Config c(description);
    activity.l1 = c.not_negative("l1", 0);
    activity.l2 = c.not_negative("l2", 0);
    c.done();
  }

  Dims build(const Dims& input) override { return input; }

 private:
  Tensor do_forward(const Tensor& x, Run&, void** cache) const override {
    *cache = nullptr;
    return x;
  }
  Tensor do_backward(const Tensor& dy, void*, Run&, bool) const override { return dy; }
};

// Activation and Softmax. The latter may go over the steps: of those that are not masked; masked ones are 0 then.
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
    features_ = input.features();
    over_steps_ = input.rank >= 2 && (axis_ == 1 || axis_ == -input.rank);
    if (!over_steps_) check_last_axis("Softmax", axis_, input);
    return input;
  }
  const Layer* logits_source() const override { return activity || over_steps_ ? nullptr : this; }
  const char* stream_refusal() const override { return over_steps_ ? "it needs the whole sequence" : nullptr; }
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
    *cache = c;
    if (over_steps_) {
      each_column(x, nullptr, y, run, [&](std::int64_t rows, std::int64_t n, float* block, const float*) {
        run.k.activate(activation_, rows, n, block, pad(n), block, pad(n));
      });
      return y;
    }
    run.rows(x.rows(), 40.0 * static_cast<double>(x.features()), 1, [&](std::int64_t from, std::int64_t to, int) {
      run.k.activate(activation_, to - from, x.features(), x.data + from * x.ld, x.ld, y.data + from * y.ld, y.ld);
    });
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool) const override {
    if (hands_over_logits(run)) return dy;
    const Cache& c = *static_cast<const Cache*>(cache);
    if (over_steps_) {
      Tensor dx = dy;
      dx.mask = c.x.mask;
      each_column(c.y, &dy, dx, run, [&](std::int64_t rows, std::int64_t n, float* g, const float* y) {
        run.k.activate_backward(activation_, rows, n, y, pad(n), g, pad(n), g, pad(n));
      });
      return dx;
    }
    const Tensor& from_cache = needs_input(activation_) ? c.x : c.y;
    run.rows(dy.rows(), 10.0 * static_cast<double>(dy.features()), 1, [&](std::int64_t from, std::int64_t to, int) {
      float* g = dy.data + from * dy.ld;
      run.k.activate_backward(activation_, to - from, dy.features(), from_cache.data + from * from_cache.ld,
                              from_cache.ld, g, dy.ld, g, dy.ld);
    });
    return dy;
  }

  // to = f's block, of `more` if given, else of x: for each sample, and each place in it but for step and feature, the
  // valid steps of a feature lie in a row of the block, x's in a second one. Masked steps become 0.
  template <class F>
  static void each_column(const Tensor& x, const Tensor* more, const Tensor& to, Run& run, F&& f) {
    const std::int64_t steps = x.steps(), n = x.features(), inner = x.inner(), size = n * pad(steps);
    const int blocks = more ? 2 : 1;
    float* const scratch = run.scratch->only(run.threads * blocks * size);
    const double cost = 40.0 * static_cast<double>(steps * n);
    run.rows(x.batch * inner, cost, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
      float *const block = scratch + worker * blocks * size, *const second = block + (blocks - 1) * size;
      for (std::int64_t at = begin; at < end; at++) {
        const auto row = [&](const Tensor& t, std::int64_t step) {
          return t.data + (step * x.batch * inner + at) * t.ld;
        };
        const auto valid = [&](std::int64_t step) { return !to.mask || to.mask[step * x.batch + at / inner]; };
        std::int64_t count = 0;
        for (std::int64_t step = 0; step < steps; step++) count += valid(step);
        const auto each = [&](auto&& move) {
          std::int64_t i = 0;
          for (std::int64_t step = 0; step < steps; step++)
            if (valid(step)) move(step, i++);
        };
        const auto take = [&](const Tensor& t, float* into) {
          each([&](std::int64_t step, std::int64_t i) {
            const float* from = row(t, step);
            for (std::int64_t j = 0; j < n; j++) into[j * pad(count) + i] = from[j];
          });
        };
        take(more ? *more : x, block);
        if (more) take(x, second);
        f(n, count, block, second);
        for (std::int64_t step = 0; step < steps; step++)
          if (!valid(step)) std::memset(row(to, step), 0, static_cast<std::size_t>(n) * sizeof(float));
        each([&](std::int64_t step, std::int64_t i) {
          for (std::int64_t j = 0; j < n; j++) row(to, step)[j] = block[j * pad(count) + i];
        });
      }
    });
  }

  Activation activation_;
  std::int64_t axis_ = -1, features_ = 0;
  bool over_steps_ = false;
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
      args_.slope = static_cast<float>(c.not_negative("negative_slope", 0.3));
    } else {
      args_.slope = static_cast<float>(c.not_negative("negative_slope", 0));
      args_.threshold = static_cast<float>(c.not_negative("threshold", 0));
      if (!c.any("max_value").is_null()) args_.max = static_cast<float>(c.not_negative("max_value", 0));
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
std::unique_ptr<Layer> make_noise(const Json& description) { return std::make_unique<Noise>(description); }
std::unique_ptr<Layer> make_activity_regularization(const Json& description) {
  return std::make_unique<ActivityRegularization>(description);
}
std::unique_ptr<Layer> make_activation(const Json& description) {
  return std::make_unique<ActivationLayer>(description);
}
std::unique_ptr<Layer> make_rectifier(const Json& description) { return std::make_unique<Rectifier>(description); }

}  // namespace seqcore
