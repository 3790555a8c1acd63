// Conv1D: y[t] = activation(b + Σ_j x[t*stride - before + j*dilation] W_j) over time, in groups of features and filters.
//
// Order: a pre-activation is one chain, bias first, then the taps j in order, a group's features in order; padding counts,
// as zeros. dx is a chain from 0 over the taps in order, filters in order. dW_j sums over the rows whose tap j lies in the
// input, time-major, in blocks of 256 as all weight gradients do; db over all rows.
//
// No window is ever copied. Data are time-major, so tap j of all outputs is the input, some steps further on: rows that the
// product addresses as it does any others, a segment of its sum each. Where padding ends, other taps begin.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>

#include "layers/factories.h"
#include "layers/products.h"
#include "layers/projection.h"
#include "layers/window.h"

namespace seqcore {

namespace {

// Output steps [begin, end).
struct Steps {
  std::int64_t begin, end;
};
// Those of 0 .. count whose step `t*stride + shift` of the input is one of 0 .. input.
Steps steps_inside(std::int64_t count, std::int64_t stride, std::int64_t shift, std::int64_t input) {
  const std::int64_t begin = shift < 0 ? (-shift + stride - 1) / stride : 0;
  const std::int64_t end = shift < input ? (input - 1 - shift) / stride + 1 : 0;
  return {std::min(begin, count), std::clamp(end, std::min(begin, count), count)};
}

class Conv1D final : public Projection {
 public:
  explicit Conv1D(const Json& description) : Conv1D(Config(description)) {}

  Dims build(const Dims& input) override {
    const Dims dims = window_.build(input, units_);
    if (input.features() % groups_ != 0)
      throw std::invalid_argument("Conv1D: expected a number of features that groups " + std::to_string(groups_) +
                                  " divide, got input of shape " + to_string(input));
    features_ = input.features() / groups_;
    filters_ = units_ / groups_;
    add_weights({window_.size, features_, units_});
    return dims;
  }
  std::int64_t output_steps(std::int64_t input) const override { return window_.steps(input); }

  // A matrix each tap and group, float32 in every precision: the weights are few beside the rows that they meet.
  std::int64_t packed_size(const Kernels& k, Copy copy) const override {
    return window_.size * groups_ * matrix_size(k, copy == Copy::backward);
  }
  void pack(const Kernels& k, const float* weights, float* to, Copy copy, const Packing& how) const override {
    Packing plain = how;
    plain.precision = Precision::float32;
    const float* w = weight(weights, kernel_);
    to += packed_at(copy);
    for (std::int64_t j = 0; j < window_.size; j++)
      for (std::int64_t g = 0; g < groups_; g++) {
        const float* tap = w + j * features_ * units_ + g * filters_;
        if (copy == Copy::backward)
          k.pack_product(tap, 1, units_, filters_, features_, plain, to);
        else
          k.pack_product(tap, units_, 1, features_, filters_, plain, to);
        to += matrix_size(k, copy == Copy::backward);
      }
  }

  const char* stream_refusal() const override {
    if (!window_.causal() || window_.stride > 1) return "that needs padding=\"causal\" and strides of 1";
    return history() * input() > kMostHistory ? "its windows reach back over more than 2^30 numbers" : nullptr;
  }
  // The steps that windows still see, oldest first, [history][features].
  std::vector<StateShape> stream_states() const override {
    if (stream_refusal() || history() == 0) return {};
    return {{history() * input(), false}};
  }
  std::unique_ptr<Step> make_step(const StepPlace& at) const override;

 private:
  class ConvStep;

  explicit Conv1D(Config c) : Projection(c, "filters"), window_(c, "kernel_size", true) {
    const std::int64_t groups = c.integer("groups", 1);
    if (groups < 1 || units_ % groups != 0) c.fail("groups", "a positive integer that divides filters");
    groups_ = groups;
    c.done();
  }

  static constexpr std::int64_t kMostHistory = std::int64_t{1} << 30;  // floats that a stream may remember
  std::int64_t input() const { return groups_ * features_; }
  std::int64_t history() const { return (window_.size - 1) * window_.dilation; }
  std::int64_t matrix_size(const Kernels& k, bool backward) const {
    return pad(backward ? k.packed_product_size(filters_, features_, Precision::float32)
                        : k.packed_product_size(features_, filters_, Precision::float32));
  }

  // One more tap of the chains; product(…) of those before, where there is no room for more. They go on where it left them.
  template <class F>
  static void add_tap(ProductArgs* args, const Segment& tap, F&& product) {
    if (args->segments == static_cast<int>(std::size(args->a))) {
      ProductArgs some = *args;
      some.activation = Activation::linear;
      some.z = {};
      product(some);
      args->init = Init::accumulate;
      args->segments = 0;
    }
    args->a[args->segments++] = tap;
  }

  // Taps over the steps of `from`: step t of what they make meets step t*stride + shift, `k` columns of it.
  struct Walk {
    const Tensor& from;
    std::int64_t stride, column, k;
    const float* packed;   // tap 0's matrix
    std::int64_t next;     // floats from a tap's matrix to the next one's
    const float* padding;  // what lies before and behind `from`, k floats; or null: no part of the chain
  };
  static constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::min();

  // C[t][b] = args' chain over the taps in order, for 0 <= t < count. `args` has all that is the same for all t, C of t = 0
  // included; shift(j) is tap j's, or kNone where it has no part in these.
  template <class F>
  void chains(const ProductArgs& args, std::int64_t count, const Walk& walk, F&& shift, Run& run) const {
    const Tensor& from = walk.from;
    const std::int64_t step = from.batch * from.ld;
    for (std::int64_t t = 0, end = 0; t < count; t = end) {
      // To `end` the same taps lie in `from`.
      end = count;
      for (std::int64_t j = 0; j < window_.size; j++) {
        if (shift(j) == kNone) continue;
        const Steps in = steps_inside(count, walk.stride, shift(j), from.steps());
        if (t < in.end) end = std::min(end, t < in.begin ? in.begin : in.end);
      }
      const RowList rows{nullptr, (end - t) * from.batch};
      ProductArgs mine = args;
      mine.c.data += t * args.c.step;
      if (args.z.data) mine.z.data += t * args.z.step;
      for (std::int64_t j = 0; j < window_.size; j++) {
        if (shift(j) == kNone) continue;
        const Steps in = steps_inside(count, walk.stride, shift(j), from.steps());
        const bool inside = t >= in.begin && t < in.end;
        if (!inside && !walk.padding) continue;
        const ConstRows a = inside ? ConstRows{from.data + (t * walk.stride + shift(j)) * step + walk.column,
                                               walk.stride * step, from.ld}
                                   : ConstRows{walk.padding, 0, 0};
        add_tap(&mine, {a, walk.k, walk.packed + j * walk.next},
                [&](const ProductArgs& some) { product(some, rows, run); });
      }
      product(mine, rows, run);
    }
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    const bool carried = run.streaming && history() > 0;
    const Tensor from = carried ? after_history(x, run) : x;
    const std::int64_t before = carried ? 0 : window_.before(x.steps()), matrix = matrix_size(run.k, false);
    Dims dims = x.dims;
    dims.d[0] = window_.steps(x.steps());
    dims.d[1] = units_;
    Cache* c = make_cache(x, make_tensor(run, dims, x.batch), run);
    const float* zeros = run.arena->zeros(features_);
    for (std::int64_t g = 0; g < groups_; g++) {
      ProductArgs args{};
      args.batch = x.batch;
      args.n = args.n_end = filters_;
      begin_chain(&args, run.weights);
      end_chain(&args, *c);
      if (use_bias_) args.bias += g * filters_;
      args.c.data += g * filters_;
      if (args.z.data) args.z.data += g * filters_;
      const Walk walk{from, window_.stride, g * features_, features_, packed(run) + g * matrix, groups_ * matrix,
                      zeros};
      chains(
          args, c->y.steps(), walk, [&](std::int64_t j) { return j * window_.dilation - before; }, run);
    }
    finish(c, run);
    *cache = c;
    return c->y;
  }

  // What a stream remembers and x behind it; it remembers the last steps of that.
  Tensor after_history(const Tensor& x, Run& run) const {
    Tensor all = x;
    all.dims.d[0] = history() + x.steps();
    all.ld = pad(input());
    all.data = run.arena->floats(all.rows() * all.ld);
    States& state = (*run.states)[static_cast<std::size_t>(state_at_)];
    const std::int64_t ld = pad(history() * input());
    const std::size_t bytes = static_cast<std::size_t>(input()) * sizeof(float);
    const auto row = [&](std::int64_t t, std::int64_t b) { return all.data + (t * x.batch + b) * all.ld; };
    for (std::int64_t b = 0; b < x.batch; b++) {
      float* const past = state.h.data() + b * ld;
      for (std::int64_t t = 0; t < history(); t++) std::memcpy(row(t, b), past + t * input(), bytes);
      for (std::int64_t t = 0; t < x.steps(); t++)
        std::memcpy(row(history() + t, b), x.data + (t * x.batch + b) * x.ld, bytes);
      for (std::int64_t t = 0; t < history(); t++) std::memcpy(past + t * input(), row(x.steps() + t, b), bytes);
    }
    return all;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    const Cache& c = *static_cast<const Cache*>(cache);
    activation_backward(dy, c, run);
    const Tensor dz = apart(dy, run);
    weight_gradients(c.x, dz, run);
    return need_dx ? input_gradient(c.x, dz, run) : Tensor{};
  }

  // Where each group's filters lie, in rows whose groups begin at multiples of kPad.
  std::int64_t group_at(std::int64_t g) const { return g * pad(filters_); }
  // Weight gradients read whole vectors of a group.
  Tensor apart(const Tensor& dy, Run& run) const {
    if (groups_ == 1) return dy;
    const Tensor dz = make_tensor(run, dy, groups_ * pad(filters_));
    run.rows(dy.rows(), Cost::copy(static_cast<double>(units_)), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t r = from; r < to; r++)
        for (std::int64_t g = 0; g < groups_; g++)
          std::memcpy(dz.data + r * dz.ld + group_at(g), dy.data + r * dy.ld + g * filters_,
                      static_cast<std::size_t>(filters_) * sizeof(float));
    });
    return dz;
  }

  void weight_gradients(const Tensor& x, const Tensor& dz, Run& run) const {
    const std::int64_t before = window_.before(x.steps()), x_step = x.batch * x.ld, dz_step = x.batch * dz.ld;
    GradArgs grad{};
    grad.batch = x.batch;
    grad.groups = 1;
    grad.n = filters_;
    grad.c_row = units_;
    for (std::int64_t g = 0; g < groups_; g++) {
      grad.factors = 1;
      float* bias = use_bias_ ? weight(run.grads, bias_) + g * filters_ : nullptr;
      for (std::int64_t j = 0; j < window_.size; j++) {
        const std::int64_t shift = j * window_.dilation - before;
        const Steps in = steps_inside(dz.steps(), window_.stride, shift, x.steps());
        grad.a[0] = {
            {x.data + (in.begin * window_.stride + shift) * x_step + g * features_, window_.stride * x_step, x.ld},
            features_,
            nullptr,
            0,
            weight(run.grads, kernel_) + j * features_ * units_ + g * filters_};
        grad.d = {dz.data + in.begin * dz_step + group_at(g), dz_step, dz.ld};
        grad.bias = in.end - in.begin == dz.steps() ? bias : nullptr;
        if (grad.bias) bias = nullptr;
        weight_gradient(grad, {nullptr, (in.end - in.begin) * x.batch}, run);
      }
      if (!bias) continue;
      grad.factors = 0;  // no tap has all rows: the bias alone
      grad.d = {dz.data + group_at(g), dz_step, dz.ld};
      grad.bias = bias;
      weight_gradient(grad, {nullptr, dz.rows()}, run);
    }
  }

  // Input steps p, p + stride, p + 2*stride, … meet the same taps: every stride-th one.
  Tensor input_gradient(const Tensor& x, const Tensor& dz, Run& run) const {
    const std::int64_t before = window_.before(x.steps()), stride = window_.stride, step = x.batch * pad(x.features()),
                       matrix = matrix_size(run.k, true);
    Tensor dx = make_tensor(run, x, x.features());
    dx.mask = nullptr;
    for (std::int64_t p = 0; p < std::min(stride, x.steps()); p++)
      for (std::int64_t g = 0; g < groups_; g++) {
        ProductArgs args{};
        args.batch = x.batch;
        args.n = args.n_end = features_;
        args.init = Init::zero;
        args.activation = Activation::linear;
        args.c = {dx.data + p * step + g * features_, stride * step, dx.ld};
        const Walk walk{dz, 1, group_at(g), filters_, packed_backward(run) + g * matrix, groups_ * matrix, nullptr};
        const auto shift = [&](std::int64_t j) {
          const std::int64_t at = p + before - j * window_.dilation;
          return at % stride == 0 ? at / stride : kNone;
        };
        chains(args, (x.steps() - p + stride - 1) / stride, walk, shift, run);
      }
    return dx;
  }

  Window window_;
  std::int64_t groups_ = 1, features_ = 0, filters_ = 0;  // the last two of a group
};

// The newest of a window is the step's input, the others are remembered. A team's parts take a stretch of the columns each.
class Conv1D::ConvStep final : public Step {
 public:
  ConvStep(const Conv1D& layer, const StepPlace& at)
      : k_(at.k),
        layer_(layer),
        y_(at.memory.floats(pad(layer.units_))),
        state_(layer.history() > 0 ? &at.states[static_cast<std::size_t>(layer.state_at_)] : nullptr) {
    const float* packed = at.packed + layer.packed_at(forward_copy(at.precision));
    const std::int64_t matrix = layer.matrix_size(k_, false);
    for (std::int64_t g = 0; g < layer.groups_; g++) {
      Part part{{}, g * layer.features_, 0};
      const auto take = [&](const ProductArgs& some) {
        part.args = some;
        parts_.push_back(part);
        part.first += some.segments;
      };
      ProductArgs args{};
      args.batch = args.m = 1;
      args.n = args.n_end = layer.filters_;
      layer.begin_chain(&args, at.weights);
      if (args.bias) args.bias += g * layer.filters_;
      args.c = {y_ + g * layer.filters_, 0, 0};
      for (std::int64_t j = 0; j < layer.window_.size; j++)
        add_tap(&args, {{nullptr, 0, 0}, layer.features_, packed + (j * layer.groups_ + g) * matrix}, take);
      take(args);
    }
  }

  void run(StepCall& call) noexcept override {
    float* const past = state_ ? state_->h.data() : nullptr;
    const std::int64_t row = layer_.input(), last = layer_.window_.size - 1;
    for (const Part& part : parts_) {
      ProductArgs mine = part.args;
      for (int s = 0; s < mine.segments; s++) {
        const std::int64_t j = part.first + s;
        mine.a[s].a.data = (j < last ? past + j * layer_.window_.dilation * row : call.x) + part.column;
      }
      if (take_part(&mine, k_, call)) k_.product(mine);
    }
    call.meet();
    if (past && call.part == 0) {  // nobody reads it any more in this step
      const std::int64_t older = (layer_.history() - 1) * row;
      std::memmove(past, past + row, static_cast<std::size_t>(older) * sizeof(float));
      std::memcpy(past + older, call.x, static_cast<std::size_t>(row) * sizeof(float));
    }
    const Activation activation = layer_.activation_;
    if (is_rowwise(activation)) call.one_part([&] { k_.activate(activation, 1, layer_.units_, y_, 0, y_, 0); });
    call.x = y_;
    call.masked = false;  // a mask ends here
  }

 private:
  struct Part {
    ProductArgs args;
    std::int64_t column, first;  // of the input; the first tap
  };
  const Kernels& k_;
  const Conv1D& layer_;
  float* y_;
  States* state_;
  std::vector<Part> parts_;
};

std::unique_ptr<Step> Conv1D::make_step(const StepPlace& at) const { return std::make_unique<ConvStep>(*this, at); }

}  // namespace

std::unique_ptr<Layer> make_conv1d(const Json& description) { return std::make_unique<Conv1D>(description); }

}  // namespace seqcore
