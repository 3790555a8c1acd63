#include "layers/window.h"

#include <algorithm>
#include <stdexcept>

namespace seqcore {

namespace {

// A positive integer, or a list of one, as Keras's configs have it.
std::int64_t one_size(const Config& c, const char* key, const Json& given) {
  const Json& n = given.is_array() && given.as_array().size() == 1 ? given.as_array()[0] : given;
  if (!n.is_integer() || n.as_integer() < 1 || n.as_integer() > (1 << 30))
    c.fail(key, "a positive integer (at most 2^30)");
  return n.as_integer();
}

}  // namespace

Window::Window(Config& c, const char* size_key, bool convolution) : name_(c.class_name()) {
  size = one_size(c, size_key, c.any(size_key));
  const Json strides = c.any("strides");
  stride = strides.is_null() ? (convolution ? 1 : size) : one_size(c, "strides", strides);
  const std::string padding = c.string("padding", "valid");
  if (padding == "same")
    padding_ = Padding::same;
  else if (padding == "causal" && convolution)
    padding_ = Padding::causal;
  else if (padding != "valid")
    c.fail("padding", convolution ? "valid, same or causal" : "valid or same");
  if (c.string("data_format", "channels_last") != "channels_last") c.fail("data_format", "channels_last");
  if (!convolution) return;
  const Json rate = c.any("dilation_rate");
  if (!rate.is_null()) dilation = one_size(c, "dilation_rate", rate);
  if (stride > 1 && dilation > 1) c.fail("dilation_rate", "1 where strides are more");
}

Dims Window::build(const Dims& input, std::int64_t features) const {
  if (input.rank != 2)
    throw std::invalid_argument(name_ + ": expected input of shape (batch, steps, features), got " + to_string(input));
  Dims dims = input;
  dims.d[0] = steps(input.d[0]);
  dims.d[1] = features;
  return dims;
}

std::int64_t Window::steps(std::int64_t input) const {
  if (input < 0) return -1;
  if (padding_ != Padding::valid) return (input - 1) / stride + 1;
  if (input < reach())
    throw std::invalid_argument(name_ + ": without padding its windows need at least " + std::to_string(reach()) +
                                " steps, got " + std::to_string(input));
  return (input - reach()) / stride + 1;
}

std::int64_t Window::before(std::int64_t input) const {
  if (padding_ == Padding::valid) return 0;
  if (padding_ == Padding::causal) return reach() - 1;
  return std::max<std::int64_t>(0, (steps(input) - 1) * stride + reach() - input) / 2;
}

}  // namespace seqcore
