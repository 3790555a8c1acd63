#include "stream/floor.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>

#include "base/arena.h"
#include "kernels/dispatch.h"

namespace seqcore {

double measure_read(std::int64_t bytes) {
  if (bytes < 1) throw std::invalid_argument("bytes: expected a positive number, got " + std::to_string(bytes));
  using Clock = std::chrono::steady_clock;
  const std::int64_t n = (bytes + 3) / 4;
  Arena memory;
  const float* const x = memory.zeros(n);
  const Kernels& k = kernels();
  const std::int64_t times = std::max<std::int64_t>(1, 65536 / n);  // enough to see beside the clock
  double best = 1e9;
  volatile float seen = 0;
  for (const auto end = Clock::now() + std::chrono::milliseconds(20); Clock::now() < end;) {
    const auto start = Clock::now();
    for (std::int64_t i = 0; i < times; i++) seen = seen + k.read_all(n, x);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(times));
  }
  return best;
}

}  // namespace seqcore
