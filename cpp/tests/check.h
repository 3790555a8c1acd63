// The tests' harness: CHECK counts, main ends with `return report();`. Used by cpp/tests/test_*.cc only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace check {

inline long passed = 0;
inline long failed = 0;

inline bool that(bool ok, const char* file, int line, const std::string& what) {
  if (ok) {
    ++passed;
  } else if (++failed <= 20) {
    std::printf("%s:%d: FAILED: %s\n", file, line, what.c_str());
  }
  return ok;
}

inline int report() {
  std::printf("%ld passed, %ld failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}

inline std::uint32_t bits(float x) {
  std::uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  return u;
}
inline float from_bits(std::uint32_t u) {
  float x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}

// Equal bits, but any NaN equals any NaN, and a subnormal the zero of its sign.
inline bool same(float a, float b) {
  const auto canonical = [](float x) {
    const std::uint32_t u = bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fc00000u;
    return (u & 0x7f800000u) == 0 ? u & 0x80000000u : u;
  };
  return canonical(a) == canonical(b);
}

inline bool close(double got, double want, double relative, double absolute) {
  if (std::isnan(want)) return std::isnan(got);
  if (std::isinf(want) || std::isinf(got)) return got == want;
  return std::fabs(got - want) <= absolute + relative * std::fabs(want);
}

// What sparsemax takes off each element: by the definition, from the sorted ones.
inline double sparsemax_threshold(std::vector<double> x) {
  std::sort(x.begin(), x.end(), std::greater<>());
  double sum = 0, threshold = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    sum += x[i];
    const double count = static_cast<double>(i + 1);
    if (1 + count * x[i] > sum) threshold = (sum - 1) / count;
  }
  return threshold;
}

// SplitMix64.
struct Random {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  std::uint32_t word() { return static_cast<std::uint32_t>(next() >> 32); }
  float any() { return from_bits(word()); }  // any bit pattern
  float uniform(float lo, float hi) { return lo + (hi - lo) * (static_cast<float>(word() >> 8) * 0x1p-24f); }
};

}  // namespace check

#define CHECK(condition) check::that((condition), __FILE__, __LINE__, #condition)
#define CHECK_THAT(condition, what) check::that((condition), __FILE__, __LINE__, (what))
#define CHECK_THROWS(expression, exception)                                           \
  do {                                                                                \
    bool thrown = false;                                                              \
    try {                                                                             \
      static_cast<void>(expression);                                                  \
    } catch (const exception&) {                                                      \
      thrown = true;                                                                  \
    }                                                                                 \
    check::that(thrown, __FILE__, __LINE__, #expression " should throw " #exception); \
  } while (false)
