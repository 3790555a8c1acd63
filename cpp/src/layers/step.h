// One time step of one row, as streams run it: layers made ready once, so that a step is kernels and little else.
#pragma once

#include <cstdint>
#include <vector>

#include "base/arena.h"
#include "base/meeting.h"
#include "kernels/kernels.h"
#include "layers/run.h"

namespace seqcore {

// What goes from layer to layer. With a team, each part has its own and they agree in all but `part`.
struct StepCall {
  const float* x = nullptr;           // the layer's input, then its output: features floats, aligned or not
  const std::int32_t* ids = nullptr;  // the first layer's, where it takes ids
  bool masked = false;                // states stay, and their layers repeat their last output
  bool backwards = false;             // which way to walk the weights: every other step
  int part = 0, parts = 1;
  Meeting* meeting = nullptr;

  void meet() {
    if (parts > 1) meeting->wait();
  }
  // Work too small to share.
  template <class F>
  void one_part(F&& body) {
    if (part == 0) body();
    meet();
  }
};

// What a step is made from. Steps keep the pointers.
struct StepPlace {
  const Kernels& k;
  const float* weights;  // canonical; all that forward does not read packed
  const float* packed;   // forward's copies in `precision`
  Precision precision;
  int parts;          // of the team, 1 without
  Meeting** meeting;  // where the team's is, by the time it is run
  Arena& memory;      // outlives the steps
  std::vector<States>& states;
};

class Step {
 public:
  virtual ~Step() = default;
  // Reads call.x (or ids) and sets it to the output. Never allocates, locks or throws.
  virtual void run(StepCall& call) noexcept = 0;
};

// A kernel over one row, too small to share: from wherever the step's input is to args.y.
template <class Args>
class RowStep final : public Step {
 public:
  RowStep(void (*kernel)(const Args&), const Args& args) : kernel_(kernel), args_(args) {}
  void run(StepCall& call) noexcept override {
    call.one_part([&] {
      args_.x = call.x;
      kernel_(args_);
    });
    call.x = args_.y;
  }

 private:
  void (*kernel_)(const Args&);
  Args args_;
};

}  // namespace seqcore
