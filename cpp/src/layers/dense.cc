// Dense: y = activation(x W + b) on the last axis, whatever stands before it.
#include <algorithm>

#include "layers/config.h"
#include "layers/factories.h"
#include "layers/step.h"

namespace seqcore {

namespace {

class Dense final : public Layer {
 public:
  explicit Dense(const Json& description) {
    Config c(description);
    units_ = c.positive("units");
    activation_ = c.activation("activation", "linear");
    use_bias_ = c.boolean("use_bias", true);
    kernel_spec_ = {"kernel",
                    {},
                    c.initializer("kernel_initializer", "GlorotUniform"),
                    c.penalty("kernel_regularizer"),
                    c.constraint("kernel_constraint")};
    bias_spec_ = {"bias",
                  {},
                  c.initializer("bias_initializer", "Zeros"),
                  c.penalty("bias_regularizer"),
                  c.constraint("bias_constraint")};
    activity = c.penalty("activity_regularizer");
    c.done();
  }

  Dims build(const Dims& input) override {
    input_ = input.features();
    kernel_spec_.shape = {input_, units_};
    bias_spec_.shape = {units_};
    kernel_ = add_weight(kernel_spec_);
    if (use_bias_) bias_ = add_weight(bias_spec_);
    Dims out = input;
    out.d[out.rank - 1] = units_;
    return out;
  }

  std::int64_t packed_size(const Kernels& k, Copy copy) const override {
    return copy == Copy::backward ? k.packed_product_size(units_, input_, Precision::float32)
                                  : k.packed_product_size(input_, units_, precision_of(copy));
  }

  void pack(const Kernels& k, const float* weights, float* to, Copy copy, const Packing& how) const override {
    const float* w = weight(weights, kernel_);
    if (copy == Copy::backward)
      k.pack_product(w, 1, units_, units_, input_, how, to + packed_at(copy));
    else
      k.pack_product(w, units_, 1, input_, units_, how, to + packed_at(copy));
  }

  const Layer* logits_source() const override { return activity ? nullptr : this; }
  Activation output_activation() const override { return activation_; }
  Tensor logits(const void* cache) const override { return static_cast<const Cache*>(cache)->z; }

  std::unique_ptr<Step> make_step(const StepPlace& at) const override;

 private:
  class DenseStep;
  struct Cache {
    Tensor x, y, z;  // z has no data unless the pre-activation is wanted
  };

  // y = activation(x W + b), all columns; where the activation is row-wise, only what goes into it.
  ProductArgs product_args(std::int64_t rows, ConstRows x, const float* packed, const float* weights,
                           Precision precision, Rows y) const {
    ProductArgs args{};
    args.batch = args.m = rows;
    args.segments = 1;
    args.a[0] = {x, input_, packed};
    args.n = args.n_end = units_;
    args.bias = use_bias_ ? weight(weights, bias_) : nullptr;
    args.init = use_bias_ ? Init::bias : Init::zero;
    args.activation = is_rowwise(activation_) ? Activation::linear : activation_;
    args.precision = precision;
    args.c = y;
    return args;
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    const bool expose = hands_over_logits(run), keep = run.keep || expose;
    const bool rowwise = is_rowwise(activation_);
    const bool want_z = keep && (needs_input(activation_) || (expose && activation_ != Activation::linear));
    auto* c = run.arena->allocate<Cache>(1);
    *c = {};
    c->x = x;
    c->y = make_tensor(run, x, units_);
    c->y.ids = nullptr;
    if (want_z) c->z = make_tensor(run, x, units_);
    const std::int64_t rows = x.rows();
    ProductArgs args =
        product_args(rows, {x.data, 0, x.ld}, packed(run), run.weights, run.precision, {c->y.data, 0, c->y.ld});
    if (rowwise && want_z)
      args.c = {c->z.data, 0, c->z.ld};
    else if (want_z)
      args.z = {c->z.data, 0, c->z.ld};
    product(args, {nullptr, rows}, run);
    if (rowwise) {
      const float* z = args.c.data;
      run.rows(rows, 40.0 * static_cast<double>(units_), 1, [&](std::int64_t from, std::int64_t to, int) {
        run.k.activate(activation_, to - from, units_, z + from * c->y.ld, c->y.ld, c->y.data + from * c->y.ld,
                       c->y.ld);
      });
    }
    if (expose && activation_ == Activation::linear) c->z = c->y;
    *cache = c;
    return c->y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    const Cache& c = *static_cast<const Cache*>(cache);
    const std::int64_t rows = c.x.rows();
    if (!hands_over_logits(run) && activation_ != Activation::linear) {
      const Tensor& from_cache = needs_input(activation_) ? c.z : c.y;
      run.rows(rows, 10.0 * static_cast<double>(units_), 1, [&](std::int64_t from, std::int64_t to, int) {
        float* g = dy.data + from * dy.ld;
        run.k.activate_backward(activation_, to - from, units_, from_cache.data + from * from_cache.ld, from_cache.ld,
                                g, dy.ld, g, dy.ld);
      });
    }
    const RowList valid = valid_rows(run, dy);
    GradArgs grad{};
    grad.batch = rows;
    grad.factors = 1;
    grad.a[0] = {{c.x.data, 0, c.x.ld}, input_, nullptr, 0, weight(run.grads, kernel_)};
    grad.d = {dy.data, 0, dy.ld};
    grad.groups = 1;
    grad.n = units_;
    grad.c_row = units_;
    grad.bias = use_bias_ ? weight(run.grads, bias_) : nullptr;
    weight_gradient(grad, valid, run);
    if (!need_dx) return {};
    Tensor dx = valid.list ? make_zeros(run, c.x, input_) : make_tensor(run, c.x, input_);
    dx.mask = valid.list ? dy.mask : nullptr;
    ProductArgs args{};
    args.batch = rows;
    args.segments = 1;
    args.a[0] = {{dy.data, 0, dy.ld}, units_, packed_backward(run)};
    args.n = input_;
    args.init = Init::zero;
    args.activation = Activation::linear;
    args.c = {dx.data, 0, dx.ld};
    product(args, valid, run);
    return dx;
  }

  std::int64_t input_ = 0, units_;
  Activation activation_;
  bool use_bias_;
  int kernel_ = 0, bias_ = -1;
  WeightSpec kernel_spec_, bias_spec_;
};

// A team's parts take a stretch of the columns each.
class Dense::DenseStep final : public Step {
 public:
  DenseStep(const Dense& layer, const StepPlace& at)
      : k_(at.k), activation_(layer.activation_), y_(at.memory.floats(pad(layer.units_))) {
    args_ = layer.product_args(1, {nullptr, 0, 0}, at.packed + layer.packed_at(forward_copy(at.precision)), at.weights,
                               at.precision, {y_, 0, 0});
    args_.dot = &k_.dot;
    scratch_ = pad(k_.product_scratch(layer.input_, 1, at.precision));
    args_.scratch = at.memory.floats(at.parts * scratch_);
  }

  void run(StepCall& call) noexcept override {
    ProductArgs mine = args_;
    const std::int64_t panel = 2 * k_.width, panels = (mine.n + panel - 1) / panel;
    mine.a[0].a.data = call.x;
    mine.n_begin = panels * call.part / call.parts * panel;
    mine.n_end = std::min(mine.n, panels * (call.part + 1) / call.parts * panel);
    mine.scratch += call.part * scratch_;
    if (mine.n_begin < mine.n_end) k_.product(mine);
    call.meet();
    if (is_rowwise(activation_)) call.one_part([&] { k_.activate(activation_, 1, mine.n, y_, 0, y_, 0); });
    call.x = y_;
  }

 private:
  const Kernels& k_;
  Activation activation_;
  float* y_;
  std::int64_t scratch_;
  ProductArgs args_;
};

std::unique_ptr<Step> Dense::make_step(const StepPlace& at) const { return std::make_unique<DenseStep>(*this, at); }

}  // namespace

std::unique_ptr<Layer> make_dense(const Json& description) { return std::make_unique<Dense>(description); }

}  // namespace seqcore
