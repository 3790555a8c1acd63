#include "base/meeting.h"

#include <algorithm>

#include "base/spin.h"

namespace seqcore {

void Meeting::begin(int parts) {
  parts_ = parts;
  here_.store(0, std::memory_order_relaxed);
  waited_.store(0, std::memory_order_relaxed);
  spun_.store(0, std::memory_order_relaxed);
}

void Meeting::wait() {
  if (parts_ == 1) return;
  const std::uint32_t round = round_.load(std::memory_order_relaxed);
  if (here_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<std::uint32_t>(parts_)) {
    here_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  const auto over = [&] { return round_.load(std::memory_order_acquire) != round; };
  for (int i = 0; i < 64; ++i) {
    if (over()) return;
    pause();
  }
  const Clock::time_point start = Clock::now();
  wait_for(over);
  const std::chrono::nanoseconds waited = Clock::now() - start;
  waited_.fetch_add(waited.count(), std::memory_order_relaxed);
  const std::chrono::nanoseconds spun = std::min<std::chrono::nanoseconds>(waited, kSpin);  // then it naps
  spun_.fetch_add(spun.count(), std::memory_order_relaxed);
}

}  // namespace seqcore
