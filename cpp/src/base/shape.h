// Shapes of arrays, as lists of sizes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace seqcore {

inline std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

std::string text(const std::vector<std::int64_t>& shape);  // "(2, None, 3)": as Python writes it, -1 for None

}  // namespace seqcore
