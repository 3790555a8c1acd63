// Bidirectional: one recurrent layer forwards, one backwards in time, their outputs merged step by step.
#include <cstring>

#include "layers/factories.h"
#include "layers/recurrent.h"

namespace seqcore {

namespace {

enum class Merge { concat, sum, mul, ave, none };

Json reversed(const Json& description) {
  Json::Object outer;
  for (const auto& [key, value] : description.as_object()) {
    if (key != "config") {
      outer.emplace_back(key, value);
      continue;
    }
    Json::Object config;
    bool go_backwards = false;
    for (const auto& [name, entry] : value.as_object()) {
      if (name == "go_backwards")
        go_backwards = entry.as_bool();
      else
        config.emplace_back(name, entry);
    }
    config.emplace_back("go_backwards", Json(!go_backwards));
    outer.emplace_back("config", Json(std::move(config)));
  }
  return Json(std::move(outer));
}

std::unique_ptr<RecurrentLayer> make_half(const Json& description) {
  std::unique_ptr<RecurrentLayer> half = recurrent_layer(description);
  if (!half)
    throw std::invalid_argument("Bidirectional: layer must be SimpleRNN, LSTM, GRU or RNN, got " +
                                Config(description).class_name());
  half->zero_masked_outputs(half->return_sequences());  // Keras's rule, whatever the inner config says
  return half;
}

class Bidirectional final : public Layer {
 public:
  explicit Bidirectional(const Json& description) {
    Config c(description);
    const Json layer = c.any("layer");
    if (!layer.is_object()) c.fail("layer", "a layer");
    const Json backward = c.any("backward_layer");
    forward_ = make_half(layer);
    backward_ = make_half(backward.is_null() ? reversed(layer) : backward);
    if (c.any("merge_mode").is_null()) {
      merge_ = Merge::none;
    } else {
      const std::string mode = c.string("merge_mode", "");
      if (mode == "concat")
        merge_ = Merge::concat;
      else if (mode == "sum")
        merge_ = Merge::sum;
      else if (mode == "mul")
        merge_ = Merge::mul;
      else if (mode == "ave")
        merge_ = Merge::ave;
      else
        c.fail("merge_mode", "concat, sum, mul, ave or null");
    }
    activity = c.penalty("activity_regularizer");
    c.done();
    if (forward_->return_sequences() != backward_->return_sequences() ||
        forward_->return_state() != backward_->return_state() || forward_->stateful() != backward_->stateful())
      throw std::invalid_argument(
          "Bidirectional: both layers must agree in return_sequences, return_state and stateful");
    if (forward_->go_backwards() == backward_->go_backwards())
      throw std::invalid_argument("Bidirectional: the layers must run in opposite directions (go_backwards)");
    if (merge_ != Merge::concat && merge_ != Merge::none && forward_->units() != backward_->units())
      throw std::invalid_argument(
          "Bidirectional: both layers must have the same units unless merge_mode is concat or null");
  }

  Dims build(const Dims& input) override {
    Dims out = forward_->build(input);
    const Dims other = backward_->build(input);
    if (merge_ == Merge::concat) out.d[out.rank - 1] += other.features();
    return out;
  }

  bool stateful() const override { return forward_->stateful(); }
  std::vector<StateShape> states() const override {
    std::vector<StateShape> all = forward_->states();
    for (const StateShape& shape : backward_->states()) all.push_back(shape);
    return all;
  }
  void visit(const std::function<void(Layer&)>& f) override {
    f(*this);
    forward_->visit(f);
    backward_->visit(f);
  }
  void place(Place& at) override {
    forward_->place(at);
    backward_->place(at);
  }
  std::vector<WeightSpec*> weights() override {
    std::vector<WeightSpec*> all = forward_->weights();
    for (WeightSpec* spec : backward_->weights()) all.push_back(spec);
    return all;
  }
  void name_weights(const std::string& prefix) override {
    forward_->name_weights(prefix + "forward_layer/");
    backward_->name_weights(prefix + "backward_layer/");
  }
  void pack(const Kernels& k, const float* w, float* packed, Copy copy, const Packing& how) const override {
    forward_->pack(k, w, packed, copy, how);
    backward_->pack(k, w, packed, copy, how);
  }
  const char* stream_refusal() const override { return "its backward half needs the whole sequence"; }

 private:
  struct Cache {
    Tensor forward, backward;  // the halves' outputs, each in its own order of time
    void* caches[2];
  };

  // The backward half's row of the same time step.
  static std::int64_t mirror(const Tensor& y, std::int64_t r) {
    return (y.steps() - 1 - r / y.batch) * y.batch + r % y.batch;
  }

  // Side by side, if they are plain layers.
  std::array<Tensor, 2> forward_halves(const Tensor& x, Run& run, void* (&caches)[2]) const {
    if (side_by_side()) return Recurrent::forward_both({forward_->plain(), backward_->plain()}, x, run, caches);
    const std::vector<Tensor>* const given = run.initial_state;
    std::vector<Tensor> half;
    const auto one = [&](const RecurrentLayer& layer, int which) {
      if (given) {
        half.assign(given->begin() + which * layer.state_arrays(), given->begin() + (which + 1) * layer.state_arrays());
        run.initial_state = &half;
      }
      return layer.forward(x, run, &caches[which]);
    };
    const Tensor f = one(*forward_, 0), b = one(*backward_, 1);
    run.initial_state = given;
    return {f, b};
  }
  std::array<Tensor, 2> backward_halves(const Tensor (&dy)[2], void* const (&caches)[2], Run& run, bool need_dx) const {
    if (side_by_side())
      return Recurrent::backward_both({forward_->plain(), backward_->plain()}, dy, caches, run, need_dx);
    const Tensor f = forward_->backward(dy[0], caches[0], run, need_dx);
    return {f, backward_->backward(dy[1], caches[1], run, need_dx)};
  }
  bool side_by_side() const { return forward_->plain() && backward_->plain(); }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    auto* c = run.arena->allocate<Cache>(1);
    *c = {};
    std::vector<Tensor> states;
    std::vector<Tensor>* wanted = run.final_state;
    if (wanted) run.final_state = &states;
    const auto outputs = forward_halves(x, run, c->caches);
    c->forward = outputs[0];
    c->backward = outputs[1];
    run.final_state = wanted;
    *cache = c;
    const Tensor &f = c->forward, &b = c->backward;
    if (merge_ == Merge::none) {
      if (!wanted)
        throw std::invalid_argument(
            "Bidirectional: merge_mode null has two outputs; only a layer called by itself may have that");
      Tensor other = make_tensor(run, b, b.features());
      for (std::int64_t r = 0; r < b.rows(); r++)
        std::memcpy(other.data + r * b.ld, b.data + mirror(b, r) * b.ld,
                    static_cast<std::size_t>(b.features()) * sizeof(float));
      wanted->push_back(other);
      wanted->insert(wanted->end(), states.begin(), states.end());
      return f;
    }
    if (wanted) wanted->insert(wanted->end(), states.begin(), states.end());
    const std::int64_t n = f.features();
    Tensor y = make_tensor(run, f, merge_ == Merge::concat ? n + b.features() : n);
    run.rows(y.rows(), static_cast<double>(y.features()), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t r = from; r < to; r++) {
        const float *fr = f.data + r * f.ld, *br = b.data + mirror(b, r) * b.ld;
        float* yr = y.data + r * y.ld;
        switch (merge_) {
          case Merge::concat:
            std::memcpy(yr, fr, static_cast<std::size_t>(n) * sizeof(float));
            std::memcpy(yr + n, br, static_cast<std::size_t>(b.features()) * sizeof(float));
            break;
          case Merge::mul:
            run.k.multiply(n, fr, br, yr);
            break;
          case Merge::sum:
            run.k.add(n, fr, br, yr);
            break;
          default:
            run.k.add(n, fr, br, yr);
            run.k.scale(n, 0.5f, yr, yr);
        }
      }
    });
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    const Cache& c = *static_cast<const Cache*>(cache);
    const Tensor &f = c.forward, &b = c.backward;
    const std::int64_t n = f.features();
    const Tensor df = make_tensor(run, f, n), db = make_tensor(run, b, b.features());
    run.rows(dy.rows(), 2.0 * static_cast<double>(dy.features()), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t r = from; r < to; r++) {
        const std::int64_t other = mirror(b, r);
        const float* g = dy.data + r * dy.ld;
        float *fr = df.data + r * df.ld, *br = db.data + other * db.ld;
        switch (merge_) {
          case Merge::concat:
            std::memcpy(fr, g, static_cast<std::size_t>(n) * sizeof(float));
            std::memcpy(br, g + n, static_cast<std::size_t>(b.features()) * sizeof(float));
            break;
          case Merge::mul:
            run.k.multiply(n, g, b.data + other * b.ld, fr);
            run.k.multiply(n, g, f.data + r * f.ld, br);
            break;
          default:
            run.k.scale(n, merge_ == Merge::ave ? 0.5f : 1.0f, g, fr);
            std::memcpy(br, fr, static_cast<std::size_t>(n) * sizeof(float));
        }
      }
    });
    const auto dx = backward_halves({df, db}, c.caches, run, need_dx);
    if (!need_dx) return {};
    const std::int64_t features = dx[0].features();
    run.rows(dx[0].rows(), Cost::copy(static_cast<double>(features)), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t r = from; r < to; r++) {
        float* sum = dx[0].data + r * dx[0].ld;
        run.k.add(features, sum, dx[1].data + r * dx[1].ld, sum);
      }
    });
    return dx[0];
  }

  std::unique_ptr<RecurrentLayer> forward_, backward_;
  Merge merge_ = Merge::concat;
};

}  // namespace

std::unique_ptr<Layer> make_bidirectional(const Json& description) {
  return std::make_unique<Bidirectional>(description);
}

}  // namespace seqcore
