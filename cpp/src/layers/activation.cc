// Activation and Softmax; ReLU, LeakyReLU and ELU, which have parameters.
#include <cstring>
#include <limits>

#include "layers/config.h"
#include "layers/factories.h"
#include "layers/step.h"

namespace seqcore {

namespace {

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

std::unique_ptr<Layer> make_activation(const Json& description) {
  return std::make_unique<ActivationLayer>(description);
}
std::unique_ptr<Layer> make_rectifier(const Json& description) { return std::make_unique<Rectifier>(description); }

}  // namespace seqcore
