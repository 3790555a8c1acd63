// LayerNormalization over the last axis: y = (x - mean) / sqrt(variance + epsilon) * gamma + beta.
#include <cstring>

#include "layers/config.h"
#include "layers/factories.h"
#include "layers/step.h"

namespace seqcore {

namespace {

class LayerNormalization final : public Layer {
 public:
  explicit LayerNormalization(const Json& description) {
    Config c(description);
    axis_ = c.axis();
    epsilon_ = static_cast<float>(c.number("epsilon", 1e-3));
    center_ = c.boolean("center", true);
    scale_ = c.boolean("scale", true);
    gamma_spec_ = c.weight("gamma", "Ones");
    beta_spec_ = c.weight("beta", "Zeros");
    c.done();
  }

  Dims build(const Dims& input) override {
    check_last_axis("LayerNormalization", axis_, input);
    gamma_spec_.shape = beta_spec_.shape = {input.features()};
    if (scale_) gamma_ = add_weight(gamma_spec_);
    if (center_) beta_ = add_weight(beta_spec_);
    return input;
  }
  std::unique_ptr<Step> make_step(const StepPlace& at) const override;

 private:
  struct Cache {
    Tensor x;
    float *mean, *inv_std;
  };

  LayerNormArgs norm_args(const float* weights) const {
    LayerNormArgs args{};
    args.rows = 1;
    args.n = gamma_spec_.shape[0];
    args.gamma = scale_ ? weight(weights, gamma_) : nullptr;
    args.beta = center_ ? weight(weights, beta_) : nullptr;
    args.epsilon = epsilon_;
    return args;
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    const Tensor y = make_tensor(run, x, x.features());
    auto* c = run.arena->allocate<Cache>(1);
    *c = {x, run.arena->floats(x.rows()), run.arena->floats(x.rows())};
    run.rows(x.rows(), 10.0 * static_cast<double>(x.features()), 1, [&](std::int64_t from, std::int64_t to, int) {
      LayerNormArgs args = norm_args(run.weights);
      args.rows = to - from;
      args.x = x.data + from * x.ld;
      args.ldx = x.ld;
      args.y = y.data + from * y.ld;
      args.ldy = y.ld;
      args.mean = c->mean + from;
      args.inv_std = c->inv_std + from;
      run.k.layer_norm(args);
    });
    *cache = c;
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    const Cache& c = *static_cast<const Cache*>(cache);
    const std::int64_t rows = dy.rows(), n = dy.features();
    Tensor dx = dy;
    if (need_dx) dx.data = run.arena->floats(rows * dy.ld);
    float* xhat = scale_ ? run.arena->floats(rows * dy.ld) : nullptr;
    run.rows(rows, 20.0 * static_cast<double>(n), 1, [&](std::int64_t from, std::int64_t to, int) {
      LayerNormGradArgs args{};
      args.rows = to - from;
      args.n = n;
      args.x = c.x.data + from * c.x.ld;
      args.ldx = c.x.ld;
      args.dy = dy.data + from * dy.ld;
      args.lddy = dy.ld;
      args.gamma = scale_ ? weight(run.weights, gamma_) : nullptr;
      args.mean = c.mean + from;
      args.inv_std = c.inv_std + from;
      args.dx = need_dx ? dx.data + from * dx.ld : nullptr;
      args.lddx = dx.ld;
      args.xhat = xhat ? xhat + from * dy.ld : nullptr;
      args.ldxhat = dy.ld;
      run.k.layer_norm_backward(args);
    });
    if (dy.mask && dy.inner() == 1)  // what stands in a masked row, NaN included, reaches nothing
      for (std::int64_t r = 0; r < rows; r++)
        if (!dy.mask[r]) {
          const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(float);
          if (xhat) std::memset(xhat + r * dy.ld, 0, bytes);
          if (need_dx) std::memset(dx.data + r * dx.ld, 0, bytes);
        }
    if (scale_) run.k.column_sums(rows, n, xhat, dy.ld, false, weight(run.grads, gamma_));
    if (center_) run.k.column_sums(rows, n, dy.data, dy.ld, false, weight(run.grads, beta_));
    return need_dx ? dx : Tensor{};
  }

  std::int64_t axis_;
  float epsilon_;
  bool center_, scale_;
  int gamma_ = -1, beta_ = -1;
  WeightSpec gamma_spec_, beta_spec_;
};

std::unique_ptr<Step> LayerNormalization::make_step(const StepPlace& at) const {
  LayerNormArgs args = norm_args(at.weights);
  args.y = at.memory.floats(pad(args.n));
  return std::make_unique<RowStep<LayerNormArgs>>(at.k.layer_norm, args);
}

}  // namespace

std::unique_ptr<Layer> make_layer_normalization(const Json& description) {
  return std::make_unique<LayerNormalization>(description);
}

}  // namespace seqcore
