// Masking: a step whose features all equal mask_value is masked, and written as zeros.
#include <cstring>

#include "layers/config.h"
#include "layers/factories.h"
#include "layers/step.h"

namespace seqcore {

namespace {

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

}  // namespace

std::unique_ptr<Layer> make_masking(const Json& description) { return std::make_unique<Masking>(description); }

}  // namespace seqcore
