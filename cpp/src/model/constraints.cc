// Constraints: Keras's projections of a weight after each update, in double, in one order.
#include <algorithm>
#include <cmath>

#include "layers/config.h"
#include "model/model.h"

namespace seqcore {

namespace {

constexpr double kEpsilon = 1e-7;

// Calls scale(norm) for every line along `axis` and multiplies the line by the result.
template <class F>
void scale_lines(const std::vector<std::int64_t>& shape, std::int64_t axis, float* w, F&& scale) {
  const auto rank = static_cast<std::int64_t>(shape.size());
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank)
    throw std::invalid_argument("constraint: axis " + std::to_string(axis) + " is out of range for a weight of rank " +
                                std::to_string(rank));
  std::int64_t outer = 1, inner = 1;
  for (std::int64_t i = 0; i < axis; i++) outer *= shape[static_cast<std::size_t>(i)];
  for (std::int64_t i = axis + 1; i < rank; i++) inner *= shape[static_cast<std::size_t>(i)];
  const std::int64_t n = shape[static_cast<std::size_t>(axis)];
  for (std::int64_t o = 0; o < outer; o++)
    for (std::int64_t i = 0; i < inner; i++) {
      float* line = w + o * n * inner + i;
      double sum = 0;
      for (std::int64_t k = 0; k < n; k++)
        sum += static_cast<double>(line[k * inner]) * static_cast<double>(line[k * inner]);
      const double factor = scale(std::sqrt(sum));
      for (std::int64_t k = 0; k < n; k++) line[k * inner] = static_cast<float>(line[k * inner] * factor);
    }
}

}  // namespace

void constrain(const Json& description, const std::vector<std::int64_t>& shape, float* w) {
  if (description.is_null()) return;
  check_constraint(description);
  Config c(description);
  const std::string& name = c.class_name();
  std::int64_t size = 1;
  for (const std::int64_t d : shape) size *= d;
  if (name == "NonNeg") {
    for (std::int64_t i = 0; i < size; i++)
      if (w[i] < 0) w[i] = 0;
    return;
  }
  const std::int64_t axis = c.integer("axis", 0);
  if (name == "UnitNorm") {
    scale_lines(shape, axis, w, [](double norm) { return 1 / (kEpsilon + norm); });
    return;
  }
  const double low = name == "MaxNorm" ? 0 : c.number("min_value", 0);
  const double high = c.number("max_value", name == "MaxNorm" ? 2 : 1);
  const double rate = name == "MaxNorm" ? 1 : c.number("rate", 1);
  scale_lines(shape, axis, w, [&](double norm) {
    const double wanted = rate * std::clamp(norm, low, std::max(low, high)) + (1 - rate) * norm;
    return wanted / (kEpsilon + norm);
  });
}

}  // namespace seqcore
