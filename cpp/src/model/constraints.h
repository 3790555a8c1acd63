// Constraints: Keras's projections of a weight after each update, in double, in one order.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"

namespace seqcore {

// Applies {"class_name": "MaxNorm", …} to a weight in place; null: nothing.
// REQUIRES: check_constraint (layers/config.h), which layers ask as they declare their weights.
void constrain(const Json& description, const std::vector<std::int64_t>& shape, float* w);

}  // namespace seqcore
