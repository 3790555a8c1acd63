// Regularizers: Keras's penalties of a weight, in one order, and what they add to its gradient.
#pragma once

#include <cstdint>
#include <vector>

#include "layers/run.h"
#include "layers/weight_spec.h"

namespace seqcore {

// The penalty of a weight; its gradient is added to `grad`, if given. REQUIRES: check_penalty (layers/config.h).
double penalize(const Penalty& penalty, const std::vector<std::int64_t>& shape, const float* w, float* grad,
                const Run& run);

}  // namespace seqcore
