// What the machine allows, measured in the run that compares with it: FMA peak and read bandwidth, one thread.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "kernels/dispatch.h"
#include "stream/floor.h"

namespace seqcore::bench {

// 12 independent multiply-adds, so that their latency is hidden.
#if defined(__x86_64__)
#define SEQCORE_FMA12(r)                                                                 \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "0\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r \
  "1\n\t"                                                                                \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "2\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r \
  "3\n\t"                                                                                \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "4\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r \
  "5\n\t"                                                                                \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "6\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r \
  "7\n\t"                                                                                \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "8\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r \
  "9\n\t"                                                                                \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "10\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r "11\n\t"
#define SEQCORE_CLOBBERS \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13"
#endif

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// FLOP/s; 0 where there is no such instruction.
inline double measure_peak(int width) {
  double best = 0.0;
  for (int repeat = 0; repeat < 7; ++repeat) {
    constexpr int kTimes = 300000;
    const double start = now();
#if defined(__x86_64__)
    __asm__ volatile("vxorps %%xmm12, %%xmm12, %%xmm12\n\tvxorps %%xmm13, %%xmm13, %%xmm13" ::: SEQCORE_CLOBBERS);
    for (int i = 0; i < kTimes; ++i) {
      if (width == 16) __asm__ volatile(SEQCORE_FMA12("zmm")::: SEQCORE_CLOBBERS);
      if (width == 8) __asm__ volatile(SEQCORE_FMA12("ymm")::: SEQCORE_CLOBBERS);
    }
    if (width < 8) return 0.0;
#else
    static_cast<void>(width);
    return 0.0;
#endif
    best = std::max(best, 2.0 * 12 * width * kTimes / (now() - start));
  }
  return best;
}

inline double peak(int width) {
  static const double wide = available_isas().back() == std::string("avx512") ? measure_peak(16) : 0.0;
  static const double half = available_isas().size() > 1 ? measure_peak(8) : 0.0;
  return width == 16 ? wide : width == 8 ? half : 0.0;
}

// On 64 bytes.
struct Numbers {
  explicit Numbers(std::int64_t n, float size = 0.05f) : memory(static_cast<std::size_t>(n) + 16) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    data = memory.data() + (64 - address % 64) % 64 / sizeof(float);
    for (std::int64_t i = 0; i < n; ++i) data[i] = size * std::sin(static_cast<float>(i));
  }
  std::vector<float> memory;
  float* data;
};

// Seconds to read so many bytes again and again: from the cache that holds them.
inline double read_time(double bytes) {
  static std::map<std::int64_t, double> known;
  const auto n = static_cast<std::int64_t>(bytes);
  if (n < 1) return 0.0;
  const auto found = known.find(n);
  return found != known.end() ? found->second : known[n] = measure_read(n);
}

// `best` seconds beside the roofline: the FMA peak at that width or the time to read the bytes, whichever takes longer.
inline void report(benchmark::State& state, int width, double best, double flops, double bytes) {
  state.counters["best_us"] = best * 1e6;
  if (flops > 0) state.counters["GFLOP/s"] = flops / best * 1e-9;
  state.counters["GB/s"] = bytes / best * 1e-9;
  const double compute = peak(width) > 0 ? flops / peak(width) : 0.0;
  const double roof = std::max(compute, read_time(bytes));
  if (roof > 0) state.counters["%roof"] = roof / best * 100;
}

template <class F>
void measure(benchmark::State& state, int width, double flops, double bytes, F body) {
  const FlushGuard flush;
  double best = 1e9;
  for (auto _ : state) {
    const double start = now();
    body();
    best = std::min(best, now() - start);
  }
  report(state, width, best, flops, bytes);
}

// The measured peaks, for the head of the output.
inline void add_context() {
  for (const int width : {8, 16})
    if (peak(width) > 0)
      benchmark::AddCustomContext("FMA peak, " + std::to_string(width) + " floats",
                                  std::to_string(peak(width) * 1e-9) + " GFLOP/s");
  for (const auto& [name, bytes] : {std::pair<const char*, double>{"L1, 16 KiB", 16e3},
                                    {"L2, 256 KiB", 256e3},
                                    {"L3, 4 MB", 4e6},
                                    {"memory, 256 MB", 256e6}})
    benchmark::AddCustomContext(std::string("read, ") + name,
                                std::to_string(bytes / read_time(bytes) * 1e-9) + " GB/s");
}

}  // namespace seqcore::bench
