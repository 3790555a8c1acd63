// One call of a network: what its layers are given, and what they hand back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <vector>

#include "base/arena.h"
#include "base/floats.h"
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "layers/tensor.h"

namespace seqcore {

class Layer;
struct WeightSpec;

// Thrown out of a computation that its caller asked to stop (Ctrl-C). Nothing has been changed.
struct Cancelled : std::exception {
  const char* what() const noexcept override { return "cancelled"; }
};

using Poll = std::function<bool()>;  // asked between regions of work; true = stop, by throwing Cancelled

// What an item of a loop costs: arithmetic, and numbers written to where no cache has them and where the system may have to
// clear the memory first.
struct Cost {
  double flops, floats;
  Cost(double arithmetic, double written = 0) : flops(arithmetic), floats(written) {}
  static Cost copy(double n) { return {20 * n, n}; }  // what could be done while n floats are copied
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
  Poll poll;                                           // asked between regions
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
  // worth it, up to four, so that a slow thread does fewer. A region is polled after. `most`: of threads, for scratch of
  // that many; 0: `threads`.
  template <class F>
  void rows(std::int64_t n, Cost cost, std::int64_t least, F&& body, int most = 0) const;
  int workers(double flops) const;  // how many threads that much work deserves; more once several have worked
  mutable bool several = false;     // have: they are awake, and may have in their caches what they made
};

inline constexpr double kRegionFlops = 1e9;                     // polled at least this often: some 10 ms,
inline constexpr double kRegionFloats = 4e6;                    // and after so many written to new memory: as long
inline constexpr double kSplitFlops = 6e6;                      // less work than this is one thread's
inline constexpr double kThreadFlops = 2e6;                     // of more, each thread has at least this
inline constexpr double kSplitAgain = 5e5, kThreadAgain = 2e5;  // the same, once several have worked
inline constexpr double kTeamFlops = 1e8;   // a thread's, of a region in which they wait for each other: a millisecond
inline constexpr double kPatience = 5e-12;  // seconds to wait for a team, a flop of each thread: half of what it takes
inline constexpr std::int64_t kRowsOfTile = 8;  // what fills the widest register tile

template <class F>
void Run::rows(std::int64_t n, Cost cost, std::int64_t least, F&& body, int most) const {
  const double items = std::min(kRegionFlops / std::max(cost.flops, 1.0), kRegionFloats / std::max(cost.floats, 1.0));
  const std::int64_t region =
      std::max<std::int64_t>(threads, static_cast<std::int64_t>(items));  // one a thread at least
  for (std::int64_t begin = 0; begin < n; begin += region) {
    const std::int64_t size = std::min(region, n - begin);
    const double flops = static_cast<double>(size) * cost.flops;
    const int deserved = workers(flops), team = most > 0 ? std::min(deserved, most) : deserved;
    std::int64_t pieces = team;
    while (team > 1 && pieces < 4 * team && size >= 2 * pieces * least &&
           flops >= 2 * static_cast<double>(pieces) * kThreadFlops)
      pieces *= 2;
    const std::int64_t share = (size + pieces - 1) / pieces;
    parallel_for((size + share - 1) / share, team, [&](std::int64_t task, int worker) {
      const std::int64_t from = begin + task * share;
      body(from, std::min(begin + size, from + share), worker);
    });
    several = several || team > 1;
    check();
  }
}

// A tensor of the shape of `like` but for its features, padded, in the run's arena.
Tensor make_tensor(Run& run, const Tensor& like, std::int64_t features);
Tensor make_tensor(Run& run, const Dims& dims, std::int64_t batch);
Tensor make_zeros(Run& run, const Tensor& like, std::int64_t features);

}  // namespace seqcore
