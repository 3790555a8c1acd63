// BatchNormalization over the last axis: y = (x - mean) / sqrt(variance + epsilon) * gamma + beta. In training the
// statistics are the batch's, of all rows that a mask lets through, and the moving ones go a step towards them.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/flush_guard.h"
#include "layers/config.h"
#include "layers/factories.h"
#include "layers/products.h"
#include "layers/step.h"

namespace seqcore {

namespace {

class BatchNormalization final : public Layer {
 public:
  explicit BatchNormalization(const Json& description) {
    Config c(description);
    axis_ = c.axis();
    momentum_ = c.number("momentum", 0.99);
    epsilon_ = static_cast<float>(c.number("epsilon", 1e-3));
    center_ = c.boolean("center", true);
    scale_ = c.boolean("scale", true);
    gamma_spec_ = c.weight("gamma", "Ones");
    beta_spec_ = c.weight("beta", "Zeros");
    mean_spec_ = c.statistic("moving_mean", "Zeros");
    variance_spec_ = c.statistic("moving_variance", "Ones");
    c.done();
  }

  Dims build(const Dims& input) override {
    check_last_axis("BatchNormalization", axis_, input);
    n_ = input.features();
    gamma_spec_.shape = beta_spec_.shape = mean_spec_.shape = variance_spec_.shape = {n_};
    if (scale_) gamma_ = add_weight(gamma_spec_);
    if (center_) beta_ = add_weight(beta_spec_);
    mean_ = add_weight(mean_spec_);
    variance_ = add_weight(variance_spec_);
    return input;
  }
  bool mixes_rows() const override { return true; }
  std::unique_ptr<Step> make_step(const StepPlace& at) const override;

 private:
  struct Cache {
    Tensor x;
    bool of_batch;        // whether the statistics are the batch's
    std::int64_t groups;  // of rows, with statistics of their own: the calls of Run::calls, else one
    const RowList* rows;  // [groups], the rows of x that they are of
    const float* mean;    // [groups][pad(n)], as the next two
    float *inv_std, *scale;
  };

  const float* gamma(const float* weights) const { return scale_ ? weight(weights, gamma_) : nullptr; }
  BatchNormArgs norm_args(const float* weights) const {
    BatchNormArgs args{};
    args.rows = 1;
    args.n = n_;
    args.mean = weight(weights, mean_);
    args.beta = center_ ? weight(weights, beta_) : nullptr;
    return args;
  }

  // body(group, column, columns) for blocks of columns of each group: what threads share.
  template <class F>
  void each_block(const Cache& c, double flops, const Run& run, F&& body) const {
    const std::int64_t blocks = pad(n_) / kPad;
    const double cost = flops * static_cast<double>(kPad * c.x.rows() / c.groups);
    run.rows(c.groups * blocks, cost, 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t i = from; i < to; i++) {
        const std::int64_t column = i % blocks * kPad;
        body(i / blocks, column, std::min(kPad, n_ - column));
      }
    });
  }

  // body(group, row, rows) for stretches of rows that are of one group.
  template <class F>
  void each_stretch(const Cache& c, double flops, const Run& run, F&& body) const {
    const std::int64_t size = c.groups == 1 ? c.x.rows() : c.x.batch / c.groups * c.x.inner();
    run.rows(c.x.rows(), flops * static_cast<double>(n_), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t end; from < to; from = end) {
        end = std::min(to, (from / size + 1) * size);
        body(from / size % c.groups, from, end - from);
      }
    });
  }

  // Each group's rows that the mask lets through, ascending.
  static const RowList* rows_of(const Tensor& x, const std::uint8_t* mask, std::int64_t groups, Run& run) {
    auto* lists = run.arena->allocate<RowList>(groups);
    if (groups == 1 && !mask) {
      lists[0] = {nullptr, x.rows()};
      return lists;
    }
    const std::int64_t size = x.batch / groups * x.inner();
    auto* next = run.arena->allocate<std::int32_t>(x.rows());
    for (std::int64_t g = 0; g < groups; g++) {
      lists[g] = {next, 0};
      for (std::int64_t t = 0; t < x.steps(); t++)
        for (std::int64_t row = (t * groups + g) * size, end = row + size; row < end; row++)
          if (!mask || mask[row]) *next++ = static_cast<std::int32_t>(row);
      lists[g].n = next - lists[g].list;
    }
    return lists;
  }

  // The batch's statistics into mean and variance, [groups][pad(n)], and what the moving ones become.
  void measure(const Cache& c, float* mean, float* variance, Run& run) const {
    each_block(c, 5, run, [&](std::int64_t g, std::int64_t column, std::int64_t columns) {
      BatchMomentsArgs args{};
      args.m = c.rows[g].n;
      args.n = columns;
      args.rows = c.rows[g].list;
      args.x = c.x.data + column;
      args.ldx = c.x.ld;
      args.mean = mean + g * pad(n_) + column;
      args.variance = variance + g * pad(n_) + column;
      run.k.batch_moments(args);
    });
    const auto keep = static_cast<float>(momentum_), take = static_cast<float>(1 - momentum_);
    for (const auto& [index, batch] : {std::pair(mean_, mean), std::pair(variance_, variance)}) {
      float* moved = run.masks->floats(pad(n_));
      std::memcpy(moved, weight(run.weights, index), static_cast<std::size_t>(n_) * sizeof(float));
      for (std::int64_t call = 0; call < c.groups; call++) {
        const float* one = batch + (run.calls ? run.calls->order[call] : 0) * pad(n_);
        for (std::int64_t i = 0; i < n_; i++) moved[i] = moved[i] * keep + one[i] * take;
      }
      if (Moving* m = run.find_moving(specs_[static_cast<std::size_t>(index)])) m->value = moved;
    }
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    if (x.mask && x.inner() != 1)
      throw std::invalid_argument(
          "BatchNormalization: expected a mask with one axis less than the input, got one of steps for input of "
          "shape " +
          to_string(x.dims));
    const Tensor y = make_tensor(run, x, n_);
    auto* c = run.arena->allocate<Cache>(1);
    *c = {x,      run.find_moving(specs_[static_cast<std::size_t>(mean_)]) != nullptr, 1, nullptr, nullptr, nullptr,
          nullptr};
    const float* variance = weight(run.weights, variance_);
    c->mean = weight(run.weights, mean_);
    if (c->of_batch) {
      c->groups = run.calls ? run.calls->count : 1;
      c->rows = rows_of(x, x.mask, c->groups, run);
      float* const mean = run.arena->floats(c->groups * pad(n_));
      float* const squares = run.arena->floats(c->groups * pad(n_));
      measure(*c, mean, squares, run);
      c->mean = mean;
      variance = squares;
    }
    c->inv_std = run.arena->floats(c->groups * pad(n_));
    c->scale = run.arena->floats(c->groups * pad(n_));
    for (std::int64_t g = 0; g < c->groups; g++)
      run.k.batch_norm_scale(n_, variance + g * pad(n_), epsilon_, gamma(run.weights), c->inv_std + g * pad(n_),
                             c->scale + g * pad(n_));
    each_stretch(*c, 4, run, [&](std::int64_t g, std::int64_t row, std::int64_t rows) {
      BatchNormArgs args = norm_args(run.weights);
      args.rows = rows;
      args.x = x.data + row * x.ld;
      args.ldx = x.ld;
      args.mean = c->mean + g * pad(n_);
      args.scale = c->scale + g * pad(n_);
      args.y = y.data + row * y.ld;
      args.ldy = y.ld;
      run.k.batch_norm(args);
    });
    *cache = c;
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    const Cache& c = *static_cast<const Cache*>(cache);
    float* const dbeta = run.arena->floats(c.groups * pad(n_));
    float* const dgamma = run.arena->floats(c.groups * pad(n_));
    if (scale_ || center_ || c.of_batch) {
      const RowList* rows = rows_of(dy, dy.mask, c.groups, run);
      each_block(c, 6, run, [&](std::int64_t g, std::int64_t column, std::int64_t columns) {
        const std::int64_t at = g * pad(n_) + column;
        BatchNormSumsArgs args{};
        args.m = rows[g].n;
        args.n = columns;
        args.rows = rows[g].list;
        args.x = c.x.data + column;
        args.ldx = c.x.ld;
        args.dy = dy.data + column;
        args.lddy = dy.ld;
        args.mean = c.mean + at;
        args.inv_std = c.inv_std + at;
        args.dbeta = dbeta + at;
        args.dgamma = dgamma + at;
        run.k.batch_norm_sums(args);
      });
    }
    if (scale_) run.k.column_sums(c.groups, n_, dgamma, pad(n_), false, weight(run.grads, gamma_));
    if (center_) run.k.column_sums(c.groups, n_, dbeta, pad(n_), false, weight(run.grads, beta_));
    if (!need_dx) return {};
    each_stretch(c, 8, run, [&](std::int64_t g, std::int64_t row, std::int64_t rows) {
      const std::int64_t at = g * pad(n_), counted = c.of_batch ? c.rows[g].n : 0;
      BatchNormGradArgs args{};
      args.rows = rows;
      args.n = n_;
      args.x = c.x.data + row * c.x.ld;
      args.ldx = c.x.ld;
      args.dy = dy.data + row * dy.ld;
      args.lddy = dy.ld;
      args.mean = c.mean + at;
      args.inv_std = c.inv_std + at;
      args.scale = c.scale + at;
      args.dbeta = dbeta + at;
      args.dgamma = dgamma + at;
      args.mask = c.x.mask ? c.x.mask + row : nullptr;
      args.share = counted > 0 ? 1.0f / static_cast<float>(counted) : 0.0f;
      args.dx = dy.data + row * dy.ld;
      args.lddx = dy.ld;
      run.k.batch_norm_backward(args);
    });
    Tensor dx = dy;
    if (c.of_batch && dy.mask) dx.mask = zero_rows(c.x.mask, dy, run);
    return dx;
  }

  // The promise on dx: a row is zero if its dy is and the statistics are not of it.
  static const std::uint8_t* zero_rows(const std::uint8_t* counted, const Tensor& dy, Run& run) {
    if (!counted) return nullptr;
    auto* mask = run.arena->allocate<std::uint8_t>(dy.rows());
    for (std::int64_t r = 0; r < dy.rows(); r++) mask[r] = counted[r] | dy.mask[r];
    return mask;
  }

  std::int64_t axis_, n_ = 0;
  double momentum_;
  float epsilon_;
  bool center_, scale_;
  int gamma_ = -1, beta_ = -1, mean_ = -1, variance_ = -1;
  WeightSpec gamma_spec_, beta_spec_, mean_spec_, variance_spec_;
};

std::unique_ptr<Step> BatchNormalization::make_step(const StepPlace& at) const {
  const FlushGuard flush;
  BatchNormArgs args = norm_args(at.weights);
  float* const scale = at.memory.floats(pad(args.n));
  args.y = at.memory.floats(pad(args.n));  // where inv_std goes until then
  at.k.batch_norm_scale(args.n, weight(at.weights, variance_), epsilon_, gamma(at.weights), args.y, scale);
  args.scale = scale;
  return std::make_unique<RowStep<BatchNormArgs>>(at.k.batch_norm, args);
}

}  // namespace

std::unique_ptr<Layer> make_batch_normalization(const Json& description) {
  return std::make_unique<BatchNormalization>(description);
}

}  // namespace seqcore
