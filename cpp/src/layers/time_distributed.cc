// TimeDistributed: a layer applied to every time step: steps and batch together are the inner layer's batch. One that mixes
// rows is told which of them are a call.
#include <cstring>

#include "layers/config.h"
#include "layers/factories.h"
#include "layers/step.h"

namespace seqcore {

namespace {

class TimeDistributed final : public Layer {
 public:
  explicit TimeDistributed(const Json& description) {
    Config c(description);
    const Json layer = c.any("layer");
    if (!layer.is_object()) c.fail("layer", "a layer");
    layer_ = make_layer(layer);
    activity = c.penalty("activity_regularizer");
    c.done();
    layer_->visit([](Layer& inner) {
      if (inner.stateful()) throw std::invalid_argument("TimeDistributed: the layer must not be stateful");
    });
  }

  bool takes_ids() const override { return layer_->takes_ids(); }
  std::int64_t vocabulary() const override { return layer_->vocabulary(); }

  Dims build(const Dims& input) override {
    if (input.rank < 2)
      throw std::invalid_argument("TimeDistributed: expected input of shape (batch, steps, …), got " +
                                  to_string(input));
    Dims sample;
    sample.rank = input.rank - 1;
    std::memcpy(sample.d, input.d + 1, static_cast<std::size_t>(sample.rank) * sizeof(std::int64_t));
    const Dims inner = layer_->build(sample);
    flat_ = inner.rank == 1;
    takes_vectors_ = sample.rank == 1 && !layer_->takes_ids();
    return outer(inner, input.d[0]);
  }

  bool mixes_rows() const override { return layer_->mixes_rows(); }
  void visit(const std::function<void(Layer&)>& f) override {
    f(*this);
    layer_->visit(f);
  }
  void place(Place& at) override { layer_->place(at); }
  std::vector<WeightSpec*> weights() override { return layer_->weights(); }
  void name_weights(const std::string& prefix) override { layer_->name_weights(prefix + "layer/"); }
  void pack(const Kernels& k, const float* w, float* packed, Copy copy, const Packing& how) const override {
    layer_->pack(k, w, packed, copy, how);
  }
  const char* stream_refusal() const override {
    return flat_ && takes_vectors_ ? layer_->stream_refusal() : "its layer does not map one vector to one vector";
  }
  std::unique_ptr<Step> make_step(const StepPlace& at) const override { return layer_->make_step(at); }
  const Layer* logits_source() const override { return flat_ && !activity ? layer_->logits_source() : nullptr; }
  Activation output_activation() const override { return layer_->output_activation(); }
  Tensor logits(const void* cache) const override {
    const auto* c = static_cast<const Cache*>(cache);
    Tensor z = layer_->logits(c->inner);
    z.dims = outer(z.dims, c->x.dims.d[0]);
    z.batch = c->x.batch;
    return z;
  }

 private:
  struct Cache {
    Tensor x;  // as given
    void* inner;
  };

  static Dims outer(const Dims& sample, std::int64_t steps) {
    if (sample.rank + 1 > Dims::kMaxRank) throw std::invalid_argument("TimeDistributed: too many dimensions");
    Dims dims;
    dims.rank = sample.rank + 1;
    dims.d[0] = steps;
    std::memcpy(dims.d + 1, sample.d, static_cast<std::size_t>(sample.rank) * sizeof(std::int64_t));
    return dims;
  }

  // [N][B][T][rest] as the inner batch sees it, [T][N*B][rest], and back. With no time inside, the two are the same.
  template <class T>
  static void swap(const T* from, T* to, std::int64_t rows, std::int64_t columns, std::int64_t block) {
    for (std::int64_t r = 0; r < rows; r++)
      for (std::int64_t c = 0; c < columns; c++)
        std::memcpy(to + (c * rows + r) * block, from + (r * columns + c) * block,
                    static_cast<std::size_t>(block) * sizeof(T));
  }

  Tensor inward(const Tensor& x, Run& run) const {
    Tensor y = x;
    if (!mixes_rows()) y.mask = nullptr;
    y.batch = x.dims.d[0] * x.batch;
    y.dims.rank = x.dims.rank - 1;
    std::memmove(y.dims.d, x.dims.d + 1, static_cast<std::size_t>(y.dims.rank) * sizeof(std::int64_t));
    if (x.ids) {
      std::int64_t rest = 1;
      for (int i = 1; i < y.dims.rank; i++) rest *= y.dims.d[i];
      auto* ids = run.arena->allocate<std::int32_t>(y.batch * y.dims.d[0] * rest);
      swap(x.ids, ids, y.batch, y.dims.d[0], rest);
      y.ids = ids;
    } else if (y.dims.rank >= 2) {
      y.data = run.arena->floats(y.rows() * y.ld);
      swap(x.data, y.data, y.batch, y.steps(), y.inner() * y.ld);
    }
    return y;
  }

  static Tensor outward(const Tensor& y, const Tensor& like, Run& run) {
    Tensor x = y;
    x.batch = like.batch;
    x.dims = outer(y.dims, like.dims.d[0]);
    x.mask = like.mask;
    if (y.data && y.dims.rank >= 2) {
      x.data = run.arena->floats(y.rows() * y.ld);
      swap(y.data, x.data, y.steps(), y.batch, y.inner() * y.ld);
    }
    return x;
  }

  // Each step is a call, and in each of the calls that this is, they come one after another.
  Calls calls_of(const Tensor& x, const Run& run) const {
    const std::int64_t steps = x.dims.d[0], outer = run.calls ? run.calls->count : 1;
    auto* order = run.arena->allocate<std::int64_t>(outer * steps);
    for (std::int64_t i = 0; i < outer * steps; i++)
      order[i] = i % steps * outer + (run.calls ? run.calls->order[i / steps] : 0);
    return {order, outer * steps};
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    auto* c = run.arena->allocate<Cache>(1);
    *c = {};
    c->x = x;
    Tensor y;
    if (mixes_rows()) {
      if (x.mask && x.dims.rank != 2)
        throw std::invalid_argument("TimeDistributed: its layer takes no mask of steps for input of shape " +
                                    to_string(x.dims));
      const Calls* const outer = run.calls;
      const Calls mine = calls_of(x, run);
      run.calls = &mine;
      y = layer_->forward(inward(x, run), run, &c->inner);
      run.calls = outer;
    } else {
      y = layer_->forward(inward(x, run), run, &c->inner);
    }
    *cache = c;
    return outward(y, x, run);
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    const Cache& c = *static_cast<const Cache*>(cache);
    Tensor dx = layer_->backward(inward(dy, run), c.inner, run, need_dx);
    if (!need_dx) return {};
    const std::uint8_t* const zeros = mixes_rows() ? dx.mask : dy.mask;
    dx = outward(dx, c.x, run);
    dx.mask = zeros;
    return dx;
  }

  std::unique_ptr<Layer> layer_;
  bool flat_ = true;           // one row of output a step
  bool takes_vectors_ = true;  // and of input
};

}  // namespace

std::unique_ptr<Layer> make_time_distributed(const Json& description) {
  return std::make_unique<TimeDistributed>(description);
}

}  // namespace seqcore
