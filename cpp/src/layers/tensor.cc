#include "layers/tensor.h"

namespace seqcore {

std::string to_string(const Dims& dims, std::int64_t batch) {
  const auto entry = [](std::int64_t n) { return n < 0 ? std::string("None") : std::to_string(n); };
  std::string s = "(" + entry(batch);
  for (int i = 0; i < dims.rank; i++) s += ", " + entry(dims.d[i]);
  return s + (dims.rank == 0 ? ",)" : ")");
}

}  // namespace seqcore
