// Optimizers: Keras's updates over the flat arenas, with all that Keras does around a step. The arithmetic is in the kernels.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "kernels/kernels.h"
#include "layers/run.h"

namespace seqcore {

class Optimizer {
 public:
  // {"class_name": "Adam", "config": {…}}
  explicit Optimizer(const Json& description);

  // A stretch of the arenas that is one variable.
  struct Variable {
    std::int64_t offset, size;
    bool decays = true;  // if the optimizer has weight_decay
  };

  // Allocates slots for arenas of `size` floats.
  void build(std::int64_t size);

  // Clips `grads` in place, updates `weights`; not to be cancelled. False, with no weight or slot changed, if a gradient
  // is not finite.
  bool apply(float* weights, float* grads, const std::vector<Variable>& variables, Run& run);

  void finalize_ema(float* weights, const std::vector<Variable>& variables) const;

  // (name, arena) of every slot.
  std::vector<std::pair<std::string, std::vector<float>*>> slots();
  // Nadam's product of all momenta so far, which Keras calls u_product; null for others.
  float* momentum_product() { return kind_ == Kind::nadam ? &momentum_product_ : nullptr; }

  double learning_rate;
  std::int64_t iterations = 0;
  std::int64_t accumulated = 0;  // batches summed so far, gradient_accumulation_steps > 1

 private:
  bool clip(float* grads, const std::vector<Variable>& variables, Run& run) const;
  void average(float* weights, const std::vector<Variable>& variables, Run& run);
  void overwrite(float* weights, const std::vector<Variable>& variables) const;
  void step(float* weights, const float* grads, const Variable& v, Run& run);

  bool averages() const;  // whether it has beta_1, beta_2 and a slot of momentum
  double nadam_momentum(std::int64_t t) const;

  enum class Kind { sgd, adam, rmsprop, nadam, adamax, adagrad, adadelta, ftrl, lion };

  // What all have in common.
  double weight_decay_ = 0;
  double clipnorm_ = 0, clipvalue_ = 0, global_clipnorm_ = 0;  // 0 = none
  bool use_ema_ = false;
  double ema_momentum_ = 0.99;
  std::int64_t ema_overwrite_frequency_ = 0;  // 0 = never
  std::int64_t accumulation_steps_ = 1;

  Kind kind_;
  double beta_1_ = 0, beta_2_ = 0, rho_ = 0, epsilon_ = 0, momentum_ = 0, initial_accumulator_ = 0;
  double power_ = 0, l1_ = 0, l2_ = 0, shrinkage_ = 0, beta_ = 0;  // Ftrl's
  bool amsgrad_ = false, nesterov_ = false, centered_ = false;
  const char* velocity_name_ = "velocity";  // what steps are divided by has other names elsewhere
  std::vector<float> momentum_slot_, velocity_slot_, velocity_hat_slot_, average_gradient_slot_, delta_slot_,
      linear_slot_, average_slot_, accumulator_slot_;
  float momentum_product_ = 1;
};

}  // namespace seqcore
