// The error of kernels/math.inl over every float32 against double libm, in units in the last place; exit status 1
// beyond the bounds. `ulp [--step N]` takes every Nth bit pattern (default 1: minutes for each function).
// It runs the scalar ISA: test_math.cc shows that the others give the same bits.
#define SEQCORE_ISA scalar
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/flush_guard.h"
#include "simd/scalar.h"

#include "kernels/twice.inl"
#include "kernels/math.inl"

namespace {

namespace isa = seqcore::scalar;

constexpr double kTiny = 0x1p-126;

struct Function {
  const char* name;
  void (*got)(const float* x, float* y);  // W at a time
  double (*want)(double);
  double bound;   // ulp
  double lo, hi;  // range that no result may leave
  bool odd;
};

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

constexpr double kInf = HUGE_VAL;
#define SEQCORE_FUNCTION(name) #name, [](const float* x, float* y) { isa::store(y, isa::v##name(isa::load(x))); }
const Function kFunctions[] = {
    {SEQCORE_FUNCTION(exp), [](double x) { return std::exp(x); }, 2.0, 0.0, kInf, false},
    {SEQCORE_FUNCTION(expm1), [](double x) { return std::expm1(x); }, 2.0, -1.0, kInf, false},
    {SEQCORE_FUNCTION(log), [](double x) { return std::log(x); }, 2.0, -kInf, kInf, false},
    {SEQCORE_FUNCTION(log1p), [](double x) { return std::log1p(x); }, 2.0, -kInf, kInf, false},
    {SEQCORE_FUNCTION(tanh), [](double x) { return std::tanh(x); }, 3.0, -1.0, 1.0, true},
    {SEQCORE_FUNCTION(sigmoid), sigmoid, 3.0, 0.0, 1.0, false},
    {SEQCORE_FUNCTION(erf), [](double x) { return std::erf(x); }, 3.0, -1.0, 1.0, true},
};

// Distance in ulp of `want`; subnormals count as zero, an overflow must give infinity.
double distance(float got, double want) {
  const float rounded = static_cast<float>(want);
  if (std::isnan(want)) return std::isnan(got) ? 0.0 : kInf;
  if (std::isinf(rounded) || std::isinf(got)) return rounded == got ? 0.0 : kInf;
  const double almost_tiny = kTiny * (1.0 + 4.0 * 0x1p-23);
  if (std::fabs(want) < almost_tiny && std::fabs(static_cast<double>(got)) < almost_tiny) return 0.0;
  const int exponent = std::max(std::ilogb(want), -126);
  return std::fabs(static_cast<double>(got) - want) / std::ldexp(1.0, exponent - 23);
}

float flushed(float x) { return std::fabs(static_cast<double>(x)) < kTiny ? std::copysign(0.0f, x) : x; }

bool sweep(const Function& f, std::uint64_t step) {
  double worst = 0.0;
  float worst_at = 0.0f;
  long outside = 0, not_odd = 0;
  for (std::uint64_t bits = 0; bits < (1ull << 32); bits += isa::W * step) {
    float x[isa::W], y[isa::W], minus[isa::W], other[isa::W];
    for (int i = 0; i < isa::W; ++i) {
      const auto pattern = static_cast<std::uint32_t>(bits + static_cast<std::uint64_t>(i) * step);
      std::memcpy(&x[i], &pattern, sizeof pattern);
      minus[i] = -x[i];
    }
    {
      const seqcore::FlushGuard guard;
      f.got(x, y);
      if (f.odd) f.got(minus, other);
    }
    for (int i = 0; i < isa::W; ++i) {
      const double d = distance(y[i], f.want(static_cast<double>(flushed(x[i]))));
      if (!(d <= worst)) worst = d, worst_at = x[i];
      outside += y[i] < f.lo || y[i] > f.hi;
      not_odd += f.odd && !std::isnan(y[i]) && other[i] != -y[i];
    }
  }
  const bool ok = worst <= f.bound && outside == 0 && not_odd == 0;
  std::printf("%-8s %7.4f ulp at %-15.9g (%a)  outside the range: %ld  not odd: %ld  %s\n", f.name, worst,
              static_cast<double>(worst_at), static_cast<double>(worst_at), outside, not_odd, ok ? "ok" : "FAILED");
  return ok;
}

}  // namespace

int main(int argc, char** argv) {
  const bool given = argc == 3 && std::strcmp(argv[1], "--step") == 0;
  const std::uint64_t step = given ? std::strtoull(argv[2], nullptr, 10) : 1;
  if ((argc != 1 && !given) || step == 0) {
    std::fprintf(stderr, "usage: ulp [--step N]\n");
    return 2;
  }
  bool ok = true;
  for (const Function& f : kFunctions) ok = sweep(f, step) && ok;
  return ok ? 0 : 1;
}
