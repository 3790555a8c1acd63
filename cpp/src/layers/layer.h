// A layer = build, forward, backward. Layers are immutable after build: what a call needs is in its Run, what backward
// needs is in a cache that forward puts into the Run's arena. Who may use it: model, and layers that wrap layers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/json.h"
#include "kernels/kernels.h"
#include "layers/run.h"
#include "layers/tensor.h"
#include "layers/weight_spec.h"

namespace seqcore {

class Step;
struct StepPlace;

// The packed copies of its weights that a layer may be asked for: forward's in each precision, and what backward needs.
enum class Copy : int { float32, bfloat16, int8, backward };
inline constexpr int kCopies = 4;
inline Copy forward_copy(Precision precision) { return static_cast<Copy>(precision); }
inline Precision precision_of(Copy copy) {
  return copy == Copy::backward ? Precision::float32 : static_cast<Precision>(copy);
}

class Layer {
 public:
  virtual ~Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  // Takes the input's dims (-1 = any), declares the weights, returns the output's dims. Throws std::invalid_argument.
  virtual Dims build(const Dims& input) = 0;
  // How many steps the output has for so many of the input, of a layer built for any number. Throws
  // std::invalid_argument where there are too few.
  virtual std::int64_t output_steps(std::int64_t input) const { return input; }
  virtual bool takes_ids() const { return false; }  // integer input, each id in [0, vocabulary())
  virtual std::int64_t vocabulary() const { return 0; }
  // What a recurrent layer starts from and ends in; a stateful one carries it from batch to batch, in Run::states.
  struct StateShape {
    std::int64_t units;
    bool has_c;
  };
  virtual std::vector<StateShape> states() const { return {}; }
  // What a stream carries from step to step: of recurrent layers their states, of others what they need to remember.
  virtual std::vector<StateShape> stream_states() const { return states(); }
  virtual bool stateful() const { return false; }
  virtual bool mixes_rows() const { return false; }  // in training a row's output depends on other samples too
  virtual void visit(const std::function<void(Layer&)>& f) { f(*this); }

  // Output, and through `cache` what backward needs (in run.arena; only valid if run.keep).
  Tensor forward(const Tensor& x, Run& run, void** cache) const;
  // Gradient of the input (data null unless need_dx) from the output's, which it may overwrite; overwrites run.grads of
  // its own weights.
  Tensor backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const;

  // `pack` takes the starts of the model's arenas, and what part of the whole this call packs.
  virtual std::int64_t packed_size(const Kernels&, Copy) const { return 0; }
  virtual void pack(const Kernels&, const float* /*weights*/, float* /*packed*/, Copy, const Packing&) const {}

  // The last layer of a classifier may hand its pre-activations to the loss: then backward takes their gradient.
  // The layer to name in Run::logits_of, or null where that cannot be.
  virtual const Layer* logits_source() const { return nullptr; }
  virtual Activation output_activation() const { return Activation::linear; }
  virtual Tensor logits(const void*) const { return {}; }

  // Streams (step.h). Why this layer cannot run step by step, or null.
  virtual const char* stream_refusal() const { return nullptr; }
  // One step of one row, made ready; null if a step leaves everything as it is. REQUIRES: no stream_refusal().
  virtual std::unique_ptr<Step> make_step(const StepPlace&) const;

  // Takes its place in the model's arenas, advancing the cursors.
  struct Place {
    const Kernels& k;
    std::int64_t weights = 0;
    std::int64_t packed[kCopies] = {};
    int states = 0, streams = 0;
  };
  virtual void place(Place& at);
  virtual std::vector<WeightSpec*> weights();            // in Keras's order
  virtual void name_weights(const std::string& prefix);  // puts the path of what wraps this layer before its names

  Penalty activity;  // activity_regularizer

 protected:
  Layer() = default;
  virtual Tensor do_forward(const Tensor& x, Run& run, void** cache) const = 0;
  virtual Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const = 0;
  // Activity regularization, around do_forward and do_backward: the penalty of their output, which the cache then holds
  // too; and the penalty's gradient, added to dy where it lies.
  void watch(const Tensor& y, Run& run, void** cache) const;
  Tensor unwatch(const Tensor& dy, const Run& run, void** cache) const;

  // Declares a weight; build calls it in Keras's order.
  int add_weight(WeightSpec spec);
  const float* weight(const float* base, int i) const { return base + specs_[static_cast<std::size_t>(i)].offset; }
  float* weight(float* base, int i) const { return base + specs_[static_cast<std::size_t>(i)].offset; }
  std::int64_t packed_at(Copy copy) const { return packed_at_[static_cast<int>(copy)]; }
  const float* packed(const Run& run) const { return run.packed + packed_at(forward_copy(run.precision)); }
  const float* packed_backward(const Run& run) const { return run.packed_backward + packed_at(Copy::backward); }
  bool hands_over_logits(const Run& run) const { return run.logits_of == this; }

  std::vector<WeightSpec> specs_;
  std::int64_t packed_at_[kCopies] = {};
  int state_at_ = 0;
  int stream_ = 0;  // tells this layer's random numbers from the others'
  Json seed_;       // a layer's own seed, or null
  std::uint64_t random_key(const Run& run, std::uint64_t purpose) const;

 private:
  struct Wrapped;  // do_forward's cache and what activity regularization needs
};

// The registry: a layer from {"class_name": …, "config": {…}}. Throws std::invalid_argument naming what is unknown.
std::unique_ptr<Layer> make_layer(const Json& description);

}  // namespace seqcore
