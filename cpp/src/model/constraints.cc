#include "model/constraints.h"

#include <algorithm>
#include <cmath>

#include "base/shape.h"
#include "layers/config.h"

namespace seqcore {

namespace {

constexpr double kEpsilon = 1e-7;

// Some axes of a weight: how many steps along each, and how far one goes.
struct Axes {
  int count = 0;
  std::int64_t size[32], stride[32];

  template <class F>
  void each(F&& f, std::int64_t offset = 0, int axis = 0) const {
    if (axis == count) return f(offset);
    for (std::int64_t i = 0; i < size[axis]; i++, offset += stride[axis]) each(f, offset, axis + 1);
  }
};

// Calls scale(norm) for the numbers along `along`, a bit an axis, at each place on the other axes, and multiplies them by
// the result.
template <class F>
void scale_along(const std::vector<std::int64_t>& shape, unsigned along, float* w, F&& scale) {
  Axes inside, outside;
  std::int64_t stride = elements(shape);
  if (stride == 0) return;
  for (std::size_t i = 0; i < shape.size(); i++) {
    Axes& axes = along >> i & 1 ? inside : outside;
    stride /= shape[i];
    axes.size[axes.count] = shape[i];
    axes.stride[axes.count++] = stride;
  }
  outside.each([&](std::int64_t at) {
    double sum = 0;
    inside.each([&](std::int64_t i) { sum += static_cast<double>(w[i]) * static_cast<double>(w[i]); }, at);
    const double factor = scale(std::sqrt(sum));
    inside.each([&](std::int64_t i) { w[i] = static_cast<float>(w[i] * factor); }, at);
  });
}

}  // namespace

void constrain(const Json& description, const std::vector<std::int64_t>& shape, float* w) {
  if (description.is_null()) return;
  Config c(description);
  const std::string& name = c.class_name();
  if (name == "NonNeg") {
    for (std::int64_t i = 0, size = elements(shape); i < size; i++)
      if (w[i] < 0) w[i] = 0;
    return;
  }
  const unsigned along = constraint_axes(description, shape.size());
  if (name == "UnitNorm") {
    scale_along(shape, along, w, [](double norm) { return 1 / (kEpsilon + norm); });
    return;
  }
  const double low = name == "MaxNorm" ? 0 : c.number("min_value", 0);
  const double high = c.number("max_value", name == "MaxNorm" ? 2 : 1);
  const double rate = name == "MaxNorm" ? 1 : c.number("rate", 1);
  scale_along(shape, along, w, [&](double norm) {
    const double wanted = rate * std::clamp(norm, low, std::max(low, high)) + (1 - rate) * norm;
    return wanted / (kEpsilon + norm);
  });
}

}  // namespace seqcore
