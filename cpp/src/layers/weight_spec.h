// What a layer declares of a weight.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/shape.h"

namespace seqcore {

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
  std::int64_t size() const { return elements(shape); }
};

}  // namespace seqcore
