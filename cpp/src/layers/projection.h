// What Dense and Conv1D share: a kernel, a bias, and an activation of the chains that products make.
#pragma once

#include <cstdint>
#include <vector>

#include "layers/config.h"
#include "layers/layer.h"
#include "layers/step.h"

namespace seqcore {

// Of a step's product of all columns, the stretch that is a part's of its team; false where that is none.
bool take_part(ProductArgs* args, const Kernels& k, const StepCall& call);

class Projection : public Layer {
 public:
  const Layer* logits_source() const override { return activity ? nullptr : this; }
  Activation output_activation() const override { return activation_; }
  Tensor logits(const void* cache) const override { return static_cast<const Cache*>(cache)->z; }

 protected:
  struct Cache {
    Tensor x, y, z;  // z has no data unless the pre-activation is wanted
  };

  // Reads `units_key` and all that is about weights and the activation.
  Projection(Config& config, const char* units_key);
  void add_weights(std::vector<std::int64_t> kernel_shape);

  // In the run's arena, with room for z where it is wanted.
  Cache* make_cache(const Tensor& x, const Tensor& y, Run& run) const;
  // Products of rows that are addressed as the output's, (t, b): the chain's start, what is made of it and where it goes.
  void begin_chain(ProductArgs* args, const float* weights) const;
  void end_chain(ProductArgs* args, const Cache& cache) const;
  // After the last product: the activations that are passes of their own.
  void finish(Cache* cache, Run& run) const;
  // Turns the output's gradient into the pre-activation's, in place.
  void activation_backward(const Tensor& dy, const Cache& cache, Run& run) const;

  std::int64_t units_;
  Activation activation_;
  bool use_bias_;
  int kernel_ = 0, bias_ = -1;

 private:
  WeightSpec kernel_spec_, bias_spec_;
};

}  // namespace seqcore
