// How the threads of base/ wait for each other: spinning first, since to sleep and be woken takes 50 to 100 microseconds.
#pragma once

#include <chrono>
#include <thread>

namespace seqcore {

using Clock = std::chrono::steady_clock;
inline constexpr auto kSpin = std::chrono::microseconds(40);  // what a thread may burn before it sleeps
inline constexpr auto kNap = std::chrono::microseconds(20);   // between looks at a meeting where a part is missing

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Whether `ready` came true while spinning.
template <class F>
bool spin(F&& ready, Clock::duration patience = kSpin) {
  const auto end = Clock::now() + patience;
  do {
    for (int i = 0; i < 64; i++) {
      if (ready()) return true;
      pause();
    }
  } while (Clock::now() < end);
  return false;
}

// Spins, and beyond that gives the processor away between looks: whoever is missing may be waiting for it.
template <class F>
void wait_for(F&& ready) {
  if (!spin(ready))
    while (!ready()) std::this_thread::sleep_for(kNap);
}

}  // namespace seqcore
