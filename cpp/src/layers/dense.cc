// Dense: y = activation(x W + b) on the last axis, whatever stands before it.
#include "layers/factories.h"
#include "layers/products.h"
#include "layers/projection.h"

namespace seqcore {

namespace {

class Dense final : public Projection {
 public:
  explicit Dense(const Json& description) : Dense(Config(description)) {}

  Dims build(const Dims& input) override {
    input_ = input.features();
    add_weights({input_, units_});
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

  std::unique_ptr<Step> make_step(const StepPlace& at) const override;

 private:
  class DenseStep;

  explicit Dense(Config c) : Projection(c, "units") { c.done(); }

  // activation(x W + b), all columns; where the activation is row-wise, only what goes into it.
  ProductArgs product_args(std::int64_t rows, ConstRows x, const float* packed, const float* weights,
                           Precision precision) const {
    ProductArgs args{};
    args.batch = args.m = rows;
    args.segments = 1;
    args.a[0] = {x, input_, packed};
    args.n = args.n_end = units_;
    args.precision = precision;
    begin_chain(&args, weights);
    return args;
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    Tensor y = make_tensor(run, x, units_);
    y.ids = nullptr;
    Cache* c = make_cache(x, y, run);
    ProductArgs args = product_args(x.rows(), {x.data, 0, x.ld}, packed(run), run.weights, run.precision);
    end_chain(&args, *c);
    product(args, {nullptr, x.rows()}, run);
    finish(c, run);
    *cache = c;
    return c->y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    const Cache& c = *static_cast<const Cache*>(cache);
    const std::int64_t rows = c.x.rows();
    activation_backward(dy, c, run);
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

  std::int64_t input_ = 0;
};

// A team's parts take a stretch of the columns each.
class Dense::DenseStep final : public Step {
 public:
  DenseStep(const Dense& layer, const StepPlace& at)
      : k_(at.k), activation_(layer.activation_), y_(at.memory.floats(pad(layer.units_))) {
    args_ = layer.product_args(1, {nullptr, 0, 0}, at.packed + layer.packed_at(forward_copy(at.precision)), at.weights,
                               at.precision);
    args_.c = {y_, 0, 0};
    args_.dot = &k_.dot;
    scratch_ = pad(k_.product_scratch(layer.input_, 1, at.precision));
    args_.scratch = at.memory.floats(at.parts * scratch_);
  }

  void run(StepCall& call) noexcept override {
    ProductArgs mine = args_;
    mine.a[0].a.data = call.x;
    mine.scratch += call.part * scratch_;
    if (take_part(&mine, k_, call)) k_.product(mine);
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
