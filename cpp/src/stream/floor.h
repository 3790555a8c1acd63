// The floor of a step: the time to read its weights once.
#pragma once

#include <cstdint>

namespace seqcore {

// Seconds in which one thread sums an array of so many bytes that it has just summed: the best of many, some 20 ms.
// Throws std::invalid_argument for a number below 1, std::bad_alloc.
double measure_read(std::int64_t bytes);

}  // namespace seqcore
