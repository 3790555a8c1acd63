// Dense: y = activation(x W + b) on the last axis, whatever stands before it.
#include "layers/config.h"
#include "layers/factories.h"

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

  std::int64_t packed_size(const Kernels& k, bool backward) const override {
    return backward ? k.packed_product_size(units_, input_, Precision::float32)
                    : k.packed_product_size(input_, units_, Precision::float32);
  }

  void pack(const Kernels& k, const float* weights, float* to, bool backward) const override {
    const float* w = weight(weights, kernel_);
    if (backward)
      k.pack_product(w, 1, units_, units_, input_, {}, to + packed_at_[1]);
    else
      k.pack_product(w, units_, 1, input_, units_, {}, to + packed_at_[0]);
  }

  Activation output_activation() const override { return activation_; }
  bool can_expose_logits() const override { return !activity; }
  void expose_logits(bool on) override { expose_ = on; }
  Tensor logits(const void* cache) const override { return static_cast<const Cache*>(cache)->z; }

 private:
  struct Cache {
    Tensor x, y, z;  // z has no data unless the pre-activation is wanted
  };

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    const bool keep = run.keep || expose_;
    const bool rowwise = is_rowwise(activation_);
    const bool want_z = keep && (needs_input(activation_) || (expose_ && activation_ != Activation::linear));
    auto* c = run.arena->allocate<Cache>(1);
    *c = {};
    c->x = x;
    c->y = make_tensor(run, x, units_);
    c->y.ids = nullptr;
    if (want_z) c->z = make_tensor(run, x, units_);
    const std::int64_t rows = x.rows();
    ProductArgs args{};
    args.batch = rows;
    args.segments = 1;
    args.a[0] = {{x.data, 0, x.ld}, input_, packed(run, false)};
    args.n = units_;
    args.bias = use_bias_ ? weight(run.weights, bias_) : nullptr;
    args.init = use_bias_ ? Init::bias : Init::zero;
    args.activation = rowwise ? Activation::linear : activation_;
    args.c = {c->y.data, 0, c->y.ld};
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
    if (expose_ && activation_ == Activation::linear) c->z = c->y;
    *cache = c;
    return c->y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    const Cache& c = *static_cast<const Cache*>(cache);
    const std::int64_t rows = c.x.rows();
    if (!expose_ && activation_ != Activation::linear) {
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
    args.a[0] = {{dy.data, 0, dy.ld}, units_, packed(run, true)};
    args.n = input_;
    args.init = Init::zero;
    args.activation = Activation::linear;
    args.c = {dx.data, 0, dx.ld};
    product(args, valid, run);
    return dx;
  }

  std::int64_t input_ = 0, units_;
  Activation activation_;
  bool use_bias_, expose_ = false;
  int kernel_ = 0, bias_ = -1;
  WeightSpec kernel_spec_, bias_spec_;
};

}  // namespace

std::unique_ptr<Layer> make_dense(const Json& description) { return std::make_unique<Dense>(description); }

}  // namespace seqcore
