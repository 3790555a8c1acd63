// Stream: a snapshot run step by step, for one client or for many at once.
//
// One stream is a chain of Steps, each a kernel made ready; several are a batch of one step. The bits are predict's on the
// same prefix in either case, whatever the number of streams, threads or steps in a call.
//
// Thread safety: a stream is for one thread at a time. A second one gets Busy, not a race.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "base/meeting.h"
#include "base/team.h"
#include "layers/step.h"
#include "model/snapshot.h"

namespace seqcore {

struct Busy : std::exception {
  const char* what() const noexcept override { return "stream: in use by another thread"; }
};

class Stream {
 public:
  // `streams` independent states. threads > 1: one stream gets helpers of its own, which start here; several use those of
  // the process. Throws std::invalid_argument where the network cannot run step by step, with the reason.
  Stream(std::shared_ptr<const Snapshot> snapshot, Precision precision, std::int64_t streams, int threads);
  ~Stream();
  std::unique_ptr<Stream> copy() const;  // with its states; throws Busy

  const Network& network() const { return snapshot_->network(); }
  Precision precision() const { return precision_; }
  int threads() const { return threads_; }
  std::int64_t streams() const { return streams_; }
  bool takes_ids() const { return network().takes_ids(); }
  std::int64_t features() const { return features_; }  // of a row of input; 1 where it is an id
  std::int64_t outputs() const { return outputs_; }    // of a row of output
  double flops() const { return flops_; }              // of a step of one row, roughly
  std::int64_t weight_bytes() const { return network().packed_bytes(forward_copy(precision_)); }  // read by a step
  std::int64_t vocabulary() const { return network().layers().front()->vocabulary(); }

  // One step of a single stream: features() floats, or an id in [0, vocabulary()), to outputs() floats. Allocates nothing,
  // takes no lock, makes no system call (with threads > 1: unless a helper sleeps or is missed). False if busy.
  // REQUIRES: streams() == 1.
  bool step(const float* x, const std::int32_t* id, float* y) noexcept;

  // `steps` steps of the streams that `which` lists, `count` of them, each at most once; of all where null.
  // x is [steps][count][features()], or ids, y is [steps][count][outputs()]. Nothing has changed if it throws:
  // std::invalid_argument for a bad index or id, Busy, std::bad_alloc, Cancelled.
  void run(const float* x, const std::int32_t* ids, std::int64_t steps, const std::int64_t* which, std::int64_t count,
           float* y, const Poll& poll = {});

  // The states, in the order of the layers: h, then c where there is one.
  struct StateArray {
    std::int64_t units;
  };
  const std::vector<StateArray>& state_arrays() const { return state_arrays_; }
  // All to zero, or those of the streams listed.
  void reset(const std::int64_t* which, std::int64_t count);
  // All of them, each as [streams][units] at the pointer of its place.
  void get_state(const std::vector<float*>& to) const;
  void set_state(const std::vector<const float*>& from);

 private:
  class Using;
  Floats& array(std::size_t i);
  const Floats& array(std::size_t i) const { return const_cast<Stream*>(this)->array(i); }
  void check_which(const std::int64_t* which, std::int64_t count) const;
  void one_step(const float* x, const std::int32_t* id, float* y) noexcept;
  void batch_steps(const float* x, const std::int32_t* ids, std::int64_t steps, std::int64_t count,
                   std::vector<States>* states, float* y, const Poll& poll);

  std::shared_ptr<const Snapshot> snapshot_;
  Precision precision_;
  std::int64_t streams_, features_, outputs_;
  int threads_;
  double flops_ = 0;
  Weights weights_;
  mutable std::atomic<bool> busy_{false};
  std::vector<States> states_;    // by the network's slots
  std::vector<States> selected_;  // of the streams that a call lists
  std::vector<States> saved_;     // what a call that throws goes back to
  struct Place {
    std::size_t slot;
    bool c;
  };
  std::vector<Place> places_;  // of state_arrays_
  std::vector<StateArray> state_arrays_;
  mutable std::vector<std::uint8_t> seen_;  // by check_which
  Network::Memory memory_;                  // of batches

  // Of a single stream:
  Arena step_memory_;
  std::vector<std::unique_ptr<Step>> steps_;
  std::unique_ptr<Team> team_;
  Meeting* meeting_ = nullptr;
  bool backwards_ = false;
};

}  // namespace seqcore
