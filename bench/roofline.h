// What the machine allows, measured in the run that compares with it: FMA peak and read bandwidth, one thread.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/flush_guard.h"
#include "kernels/dispatch.h"
#include "stream/floor.h"

namespace seqcore::bench {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Operations a second of a block of `operations`, in assembly: no compiler stands between.
template <class F>
double measure_peak(double operations, F block) {
  const FlushGuard flush;  // whatever the registers hold, nothing is slow
  double best = 0.0;
  for (int repeat = 0; repeat < 7; ++repeat) {
    constexpr int kTimes = 100000;
    const double start = now();
    for (int i = 0; i < kTimes; ++i) block();
    best = std::max(best, operations * kTimes / (now() - start));
  }
  return best;
}

// Operations a second of products in that precision by that table, two for a multiply-add; 0 where it is not known.
inline double measure_peak(const Kernels& k, Precision precision) {
#if defined(__x86_64__)
  if (k.width < 8) return 0.0;
  const bool wide = k.width == 16;
  const double floats = 12.0 * 2 * k.width;
// 12 independent ones, so that their latency is hidden.
#define SEQCORE_12(one, r)                                                                                            \
  __asm__ volatile(one(r, "0") one(r, "1") one(r, "2") one(r, "3") one(r, "4") one(r, "5") one(r, "6") one(r, "7")    \
                       one(r, "8") one(r, "9") one(r, "10") one(r, "11")::                                            \
                           : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                             "xmm11", "xmm12", "xmm13", "xmm14")
#define SEQCORE_FMA(r, n) "vfmadd231ps %%" r "12, %%" r "13, %%" r n "\n\t"
#define SEQCORE_BF16(r, n) "vdpbf16ps %%" r "12, %%" r "13, %%" r n "\n\t"
#define SEQCORE_VNNI(r, n) "vpdpbusd %%" r "12, %%" r "13, %%" r n "\n\t"
#define SEQCORE_BYTES(r, n)                                                                                            \
  "vpmaddubsw %%" r "12, %%" r "13, %%" r "14\n\tvpmaddwd %%" r "14, %%" r "13, %%" r "14\n\tvpaddd %%" r "14, %%" r n \
  ", %%" r n "\n\t"
#define SEQCORE_TILES(one)                                                               \
  __asm__ volatile(one "%%tmm5, %%tmm4, %%tmm0\n\t" one "%%tmm5, %%tmm4, %%tmm1\n\t" one \
                       "%%tmm5, %%tmm4, %%tmm2\n\t" one "%%tmm5, %%tmm4, %%tmm3" ::)
  if (k.dot.bfloat16_by == std::string("amx_bf16") && precision != Precision::float32 && allow_tiles()) {
    alignas(64) std::uint8_t shape[64] = {1};  // eight tiles of 16 rows of 64 bytes
    for (int i = 0; i < 8; ++i) {
      shape[16 + 2 * i] = 64;
      shape[48 + i] = 16;
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(shape));
    constexpr double kOperations = 4 * 16 * 16 * 16 * 2.0;
    const double found = precision == Precision::int8
                             ? measure_peak(4 * kOperations, [] { SEQCORE_TILES("tdpbssd "); })
                             : measure_peak(2 * kOperations, [] { SEQCORE_TILES("tdpbf16ps "); });
    __asm__ volatile("tilerelease");
    return found;
  }
  if (precision == Precision::int8) {
    if (k.dot.int8_by == std::string("avx512_vnni"))
      return measure_peak(4 * floats, [] { SEQCORE_12(SEQCORE_VNNI, "zmm"); });
    return wide ? measure_peak(4 * floats, [] { SEQCORE_12(SEQCORE_BYTES, "zmm"); })
                : measure_peak(4 * floats, [] { SEQCORE_12(SEQCORE_BYTES, "ymm"); });
  }
  if (precision == Precision::bfloat16 && k.dot.bfloat16_by == std::string("avx512_bf16"))
    return measure_peak(2 * floats, [] { SEQCORE_12(SEQCORE_BF16, "zmm"); });
  return wide ? measure_peak(floats, [] { SEQCORE_12(SEQCORE_FMA, "zmm"); })
              : measure_peak(floats, [] { SEQCORE_12(SEQCORE_FMA, "ymm"); });
#undef SEQCORE_TILES
#undef SEQCORE_BYTES
#undef SEQCORE_VNNI
#undef SEQCORE_BF16
#undef SEQCORE_FMA
#undef SEQCORE_12
#else
  static_cast<void>(k);
  static_cast<void>(precision);
  return 0.0;
#endif
}

inline double peak(const Kernels& k, Precision precision) {
  static std::map<std::pair<std::string, Precision>, double> known;
  const auto [found, is_new] = known.try_emplace({k.isa, precision}, 0.0);
  if (is_new) found->second = measure_peak(k, precision);
  return found->second;
}

// In [-size, size); memory as a model's, in huge pages where there are any.
struct Numbers {
  explicit Numbers(std::int64_t n, float size = 0.05f)
      : data(memory.zeros(n + 16)) {  // kernels may read on to a line's end
    for (std::int64_t i = 0; i < n; ++i)
      data[i] =
          size * static_cast<float>(static_cast<std::int32_t>(static_cast<std::uint32_t>(i) * 2654435769u)) * 0x1p-31f;
  }
  Arena memory;
  float* data;
};

// Seconds to read so many bytes again and again: from the cache that holds them. The best of this run's measurements;
// `again` makes one more, for what is held against it closely.
inline double read_time(double bytes, bool again = false) {
  static std::map<std::int64_t, double> known;
  const auto n = static_cast<std::int64_t>(bytes);
  if (n < 1) return 0.0;
  const auto [found, is_new] = known.try_emplace(n, 1e9);
  if (is_new || again) found->second = std::min(found->second, measure_read(n));
  return found->second;
}

// `best` seconds beside the roofline: the time that a kernel with that peak takes for the flops or that to read the bytes,
// whichever is longer.
inline void report(benchmark::State& state, double peak_flops, double best, double flops, double bytes) {
  state.counters["best_us"] = best * 1e6;
  if (flops > 0) state.counters["GFLOP/s"] = flops / best * 1e-9;
  state.counters["GB/s"] = bytes / best * 1e-9;
  const double compute = peak_flops > 0 ? flops / peak_flops : 0.0;
  const double roof = std::max(compute, read_time(bytes));
  if (roof > 0) state.counters["%roof"] = roof / best * 100;
}

// `times`: how often the body does what flops and bytes are of.
template <class F>
void measure(benchmark::State& state, double peak_flops, double flops, double bytes, F body, int times = 1) {
  const FlushGuard flush;
  double best = 1e9;
  for (auto _ : state) {
    const double start = now();
    body();
    best = std::min(best, (now() - start) / times);
  }
  report(state, peak_flops, best, flops, bytes);
}

// The measured peaks, for the head of the output.
inline void add_context() {
  for (const char* isa : available_isas())
    for (const Precision p : {Precision::float32, Precision::bfloat16, Precision::int8})
      if (const double flops = peak(*kernels_for(isa), p); flops > 0)
        benchmark::AddCustomContext(std::string("peak, ") + isa + " " + kPrecisionNames[static_cast<int>(p)],
                                    std::to_string(flops * 1e-9) + " GFLOP/s");
  for (const auto& [name, bytes] : {std::pair<const char*, double>{"L1, 16 KiB", 16e3},
                                    {"L2, 256 KiB", 256e3},
                                    {"L3, 4 MB", 4e6},
                                    {"memory, 256 MB", 256e6}})
    benchmark::AddCustomContext(std::string("read, ") + name,
                                std::to_string(bytes / read_time(bytes) * 1e-9) + " GB/s");
}

}  // namespace seqcore::bench
