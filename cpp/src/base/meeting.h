// Where threads that work on one thing wait for each other.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace seqcore {

// The parts of a team meet here as often as they like; each time all of them must come. Of one part unless begun.
class Meeting {
 public:
  void begin(int parts);                                                       // REQUIRES: nobody waits
  void wait();                                                                 // returns when all parts have called it
  static void wait(void* meeting) { static_cast<Meeting*>(meeting)->wait(); }  // for kernels

  // Since it was begun, of all parts together: until the last came, and of that on a core.
  std::chrono::nanoseconds waited() const { return std::chrono::nanoseconds(waited_.load(std::memory_order_relaxed)); }
  std::chrono::nanoseconds spun() const { return std::chrono::nanoseconds(spun_.load(std::memory_order_relaxed)); }

 private:
  int parts_ = 1;
  alignas(64) std::atomic<std::uint32_t> here_{0};
  alignas(64) std::atomic<std::uint32_t> round_{0};
  std::atomic<std::int64_t> waited_{0}, spun_{0};  // ns
};

}  // namespace seqcore
