// Windows over time, of Conv1D and of pooling: which steps of the input each step of the output sees.
#pragma once

#include <cstdint>
#include <string>

#include "layers/config.h"

namespace seqcore {

// Output step t sees input steps t*stride - before + j*dilation, 0 <= j < size; those outside of the input are padding.
// As Keras on TensorFlow: "same" pads the smaller half before, "causal" all of it.
class Window {
 public:
  // Reads `size_key`, "strides" and "padding"; of a convolution "dilation_rate" and causal padding too.
  Window(Config& config, const char* size_key, bool convolution);

  // The input's shape must be (steps, features); gives the output's.
  Dims build(const Dims& input, std::int64_t features) const;
  std::int64_t steps(std::int64_t input) const;  // of the output, -1 for -1; std::invalid_argument where there is none
  std::int64_t before(std::int64_t input) const;

  std::int64_t size, stride, dilation = 1;

  bool causal() const { return padding_ == Padding::causal; }

 private:
  enum class Padding { valid, same, causal };
  std::int64_t reach() const { return (size - 1) * dilation + 1; }

  std::string name_;
  Padding padding_ = Padding::valid;
};

}  // namespace seqcore
