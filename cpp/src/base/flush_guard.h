// Denormals as zero, for a while: the mode in which every kernel runs.
#pragma once

#include <cstdint>

namespace seqcore {

// Denormals read and written as zero while it lives; the thread's mode is restored after. Cheap when already set.
class FlushGuard {
 public:
  FlushGuard() noexcept;
  ~FlushGuard();
  FlushGuard(const FlushGuard&) = delete;
  FlushGuard& operator=(const FlushGuard&) = delete;

 private:
  std::uint64_t saved_;
};

}  // namespace seqcore
