// RNN: cells stacked on each other. In a step a cell reads what the one below it made in the same step, and a masked step
// keeps all of them: so they are recurrent layers one after another that share a mask.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "layers/factories.h"
#include "layers/recurrent.h"
#include "layers/step.h"

namespace seqcore {

namespace {

// The cells of a cell, the lowest first, each with the path of its weights.
void collect(const Json& cell, const std::string& path, std::vector<std::pair<Json, std::string>>* cells) {
  Config c(cell);
  const std::string& name = c.class_name();
  if (name == "SimpleRNNCell" || name == "LSTMCell" || name == "GRUCell") {
    cells->emplace_back(cell, path);
    return;
  }
  if (name != "StackedRNNCells")
    throw std::invalid_argument("RNN: cell must be SimpleRNNCell, LSTMCell, GRUCell or StackedRNNCells, got " + name);
  const Json inner = c.any("cells");
  if (!inner.is_array() || inner.as_array().empty()) c.fail("cells", "a list of cells");
  c.done();
  for (std::size_t i = 0; i < inner.as_array().size(); i++)
    collect(inner.as_array()[i], path + "cells/" + std::to_string(i) + "/", cells);
}

class Rnn final : public RecurrentLayer {
 public:
  explicit Rnn(Config c) : RecurrentLayer(OverTime(c)) {
    const Json cell = c.any("cell");
    if (!cell.is_object()) c.fail("cell", "a cell");
    activity = c.penalty("activity_regularizer");
    c.done();
    std::vector<std::pair<Json, std::string>> cells;
    collect(cell, "cell/", &cells);
    for (auto& [description, path] : cells) {
      const bool first = layers_.empty(), last = layers_.size() + 1 == cells.size();
      OverTime time = time_;
      if (!first) time.go_backwards = false;  // what comes from below is in that order already
      if (!last) {
        time.return_sequences = true;
        time.zero_output_for_mask = false;  // nobody reads them
      }
      layers_.push_back(std::make_unique<Recurrent>(description, time));
      paths_.push_back(std::move(path));
    }
  }

  Dims build(const Dims& input) override {
    Dims dims = input;
    for (const auto& layer : layers_) dims = layer->build(dims);
    return dims;
  }

  std::int64_t units() const override { return layers_.back()->units(); }
  void zero_masked_outputs(bool on) override { layers_.back()->zero_masked_outputs(on); }
  std::vector<StateShape> states() const override {
    std::vector<StateShape> all;
    for (const auto& layer : layers_) all.push_back(layer->states().front());
    return all;
  }
  void visit(const std::function<void(Layer&)>& f) override {
    f(*this);
    for (const auto& layer : layers_) layer->visit(f);
  }
  void place(Place& at) override {
    for (const auto& layer : layers_) layer->place(at);
  }
  std::vector<WeightSpec*> weights() override {
    std::vector<WeightSpec*> all;
    for (const auto& layer : layers_)
      for (WeightSpec* spec : layer->weights()) all.push_back(spec);
    return all;
  }
  void name_weights(const std::string& prefix) override {
    for (std::size_t i = 0; i < layers_.size(); i++) layers_[i]->name_weights(prefix + paths_[i]);
  }
  void pack(const Kernels& k, const float* w, float* packed, Copy copy, const Packing& how) const override {
    for (const auto& layer : layers_) layer->pack(k, w, packed, copy, how);
  }
  std::unique_ptr<Step> make_step(const StepPlace& at) const override {
    auto steps = std::make_unique<Steps>();
    for (const auto& layer : layers_) steps->steps.push_back(layer->make_step(at));
    return steps;
  }

 private:
  struct Steps final : Step {
    void run(StepCall& call) noexcept override {
      for (const auto& step : steps) step->run(call);
    }
    std::vector<std::unique_ptr<Step>> steps;
  };

  static const std::uint8_t* reversed_mask(const Tensor& x, Run& run) {
    const std::int64_t steps = x.steps();
    auto* mask = run.arena->allocate<std::uint8_t>(steps * x.batch);
    for (std::int64_t t = 0; t < steps; t++)
      std::copy_n(x.mask + (steps - 1 - t) * x.batch, x.batch, mask + t * x.batch);
    return mask;
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    void** caches = run.arena->allocate<void*>(static_cast<std::int64_t>(layers_.size()));
    const std::vector<Tensor>* given = run.initial_state;
    std::vector<Tensor> mine;
    std::ptrdiff_t used = 0;
    Tensor y = x;
    for (std::size_t i = 0; i < layers_.size(); i++) {
      if (given) {
        mine.assign(given->begin() + used, given->begin() + used + layers_[i]->state_arrays());
        used += layers_[i]->state_arrays();
        run.initial_state = &mine;
      }
      y = layers_[i]->forward(y, run, caches + i);
      if (i == 0 && layers_.size() > 1 && time_.go_backwards && y.mask) y.mask = reversed_mask(x, run);
    }
    run.initial_state = given;
    if (y.mask) y.mask = x.mask;  // in whatever order the steps are now: as Keras's
    *cache = caches;
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    void* const* caches = static_cast<void**>(cache);
    Tensor d = dy;
    for (std::size_t i = layers_.size(); i-- > 0;) d = layers_[i]->backward(d, caches[i], run, i > 0 || need_dx);
    return d;
  }

  std::vector<std::unique_ptr<Recurrent>> layers_;
  std::vector<std::string> paths_;
};

}  // namespace

std::unique_ptr<RecurrentLayer> recurrent_layer(const Json& description) {
  Config c(description);
  const std::string& name = c.class_name();
  if (name == "RNN") return std::make_unique<Rnn>(c);
  if (name == "SimpleRNN" || name == "LSTM" || name == "GRU") return std::make_unique<Recurrent>(description);
  return nullptr;
}

std::unique_ptr<Layer> make_recurrent(const Json& description) { return recurrent_layer(description); }

}  // namespace seqcore
