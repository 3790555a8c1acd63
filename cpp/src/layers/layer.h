// A layer = build, forward, backward. Layers are immutable after build: what a call needs is in its Run, what backward
// needs is in a cache that forward puts into the Run's arena. Who may use it: model, and layers that wrap layers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/floats.h"
#include "base/json.h"
#include "kernels/kernels.h"
#include "layers/tensor.h"

namespace seqcore {

class Layer;
class Step;
struct StepPlace;

// Thrown out of a computation that its caller asked to stop (Ctrl-C). Nothing has been changed.
struct Cancelled : std::exception {
  const char* what() const noexcept override { return "cancelled"; }
};

struct Penalty {  // l1 * sum|x| + l2 * sum x^2, over a weight or a layer's output
  double l1 = 0, l2 = 0;
  double orthogonal = 0;  // of a weight with two axes, alone: times the mean cosine of two rows, without its sign
  bool of_columns = false;
  explicit operator bool() const { return l1 != 0 || l2 != 0 || orthogonal != 0; }
};

struct WeightSpec {
  std::string name;  // Keras's path inside the layer
  std::vector<std::int64_t> shape;
  Json initializer;  // {"class_name", "config"}
  Penalty regularizer;
  Json constraint;          // null or {"class_name", "config"}
  std::int64_t offset = 0;  // floats from the start of the model's weights
  bool statistic = false;   // no gradient moves it: its layer does, in training
  std::int64_t size() const;
};

// States that a recurrent layer starts from or ends in: [batch][pad(units)] each, h then c.
struct States {
  Floats h, c;
  std::int64_t batch = 0, units = 0;
};

// A statistic that a call may move, and what it becomes once the call has succeeded: its layer says that, in memory that
// outlives the layer's neighbours.
struct Moving {
  const WeightSpec* spec;
  const float* value = nullptr;  // null: what it is
};

// Calls of a layer that lie side by side in a batch, as TimeDistributed's steps do: [steps][count][samples of a call].
struct Calls {
  const std::int64_t* order;  // [count], in which they come
  std::int64_t count;
};

// The packed copies of its weights that a layer may be asked for: forward's in each precision, and what backward needs.
enum class Copy : int { float32, bfloat16, int8, backward };
inline constexpr int kCopies = 4;
inline Copy forward_copy(Precision precision) { return static_cast<Copy>(precision); }
inline Precision precision_of(Copy copy) {
  return copy == Copy::backward ? Precision::float32 : static_cast<Precision>(copy);
}

// One call of a network: read-only settings, memory, and what layers hand back.
struct Run {
  Run(const Kernels& kernels, int team) : k(kernels), threads(team) {}

  const Kernels& k;
  const int threads;
  const float* weights = nullptr;                      // canonical, the model's flat arena
  const float* packed = nullptr;                       // the layers' packed copies: forward's, in `precision`,
  const float* packed_backward = nullptr;              // and backward's
  Precision precision = Precision::float32;            // of the weights; training and gradients: float32
  float* grads = nullptr;                              // as weights; layers overwrite their own part in backward
  Arena* arena = nullptr;                              // outputs and caches
  Arena* masks = nullptr;                              // what must outlive a layer's neighbours
  Arena* scratch = nullptr;                            // of one kernel's workers, for as long as it runs
  bool training = false;                               // dropout is active
  bool keep = false;                                   // caches for backward are wanted
  std::uint64_t seed = 0, counter = 0;                 // random numbers: the model's seed, the step
  std::function<bool()> poll;                          // asked between regions; true = stop
  bool streaming = false;                              // recurrent layers are stateful and give every step
  std::vector<States>* states = nullptr;               // of stateful layers, read
  std::vector<States>* next_states = nullptr;          // and written (may be the same)
  const std::vector<Tensor>* initial_state = nullptr;  // for the first recurrent layer that runs: h, c as [batch][ld]
  std::vector<Tensor>* final_state = nullptr;          // filled by layers with return_state
  std::vector<Moving>* moving = nullptr;               // in training, those that are not frozen
  const Calls* calls = nullptr;                        // of the layer that runs, for those that mix rows; null: one
  const Layer* logits_of = nullptr;                    // whose pre-activations, not its output, the loss takes
  std::int64_t batch = 1;                              // samples of this call
  double penalty = 0;                                  // activity regularization of this call

  Moving* find_moving(const WeightSpec& spec) const {
    for (std::size_t i = 0; moving && i < moving->size(); i++)
      if ((*moving)[i].spec == &spec) return &(*moving)[i];
    return nullptr;
  }
  void check() const {
    if (poll && poll()) throw Cancelled();
  }
  // body(begin, end, worker) over [0, n) in parallel blocks: one a thread or, where these have `least` items still and are
  // worth it, up to four, so that a slow thread does fewer. `cost`: flops an item; a region is polled after. `most`: of
  // threads, for scratch of that many; 0: `threads`.
  template <class F>
  void rows(std::int64_t n, double cost, std::int64_t least, F&& body, int most = 0) const;
  int workers(double flops) const;  // how many threads that much work deserves; more once several have worked
  mutable bool several = false;     // have: they are awake, and may have in their caches what they made
};

inline constexpr double kRegionFlops = 1e9;                     // polled at least this often: some 10 ms
inline constexpr double kSplitFlops = 6e6;                      // less work than this is one thread's
inline constexpr double kThreadFlops = 2e6;                     // of more, each thread has at least this
inline constexpr double kSplitAgain = 5e5, kThreadAgain = 2e5;  // the same, once several have worked
inline constexpr double kCopyFlops = 20;    // what could be done while a float is copied to where no cache has it
inline constexpr double kTeamFlops = 1e8;   // a thread's, of a region in which they wait for each other: a millisecond
inline constexpr double kPatience = 5e-12;  // seconds to wait for a team, a flop of each thread: half of what it takes
inline constexpr std::int64_t kRowsOfTile = 8;  // what fills the widest register tile

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

// A tensor of the shape of `like` but for its features, padded, in the run's arena.
Tensor make_tensor(Run& run, const Tensor& like, std::int64_t features);
Tensor make_tensor(Run& run, const Dims& dims, std::int64_t batch);
Tensor make_zeros(Run& run, const Tensor& like, std::int64_t features);

// The registry: a layer from {"class_name": …, "config": {…}}. Throws std::invalid_argument naming what is unknown.
std::unique_ptr<Layer> make_layer(const Json& description);

}  // namespace seqcore

#include "layers/rows.inl"
