// simd/: scalar's fused multiply-add against std::fma, and every operation of every ISA against scalar's, bit by bit.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/flush_guard.h"
#include "check.h"
#include "guarded.h"
#include "kernels/dispatch.h"

#define SEQCORE_ISA scalar
#include "simd/scalar.h"
#include "simd_ops.inl"
#undef SEQCORE_ISA

#define SEQCORE_TARGET_(flags) _Pragma(#flags)
#ifdef __clang__
#define SEQCORE_BEGIN(features) \
  SEQCORE_TARGET_(clang attribute push(__attribute__((target(features))), apply_to = function))
#define SEQCORE_END _Pragma("clang attribute pop")
#else
#define SEQCORE_BEGIN(features) _Pragma("GCC push_options") SEQCORE_TARGET_(GCC target(features))
#define SEQCORE_END _Pragma("GCC pop_options")
#endif

#ifdef SEQCORE_HAVE_AVX2
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // as in avx512.h
#include <immintrin.h>
#pragma GCC diagnostic pop
SEQCORE_BEGIN("avx2,fma")
#define SEQCORE_ISA avx2
#include "simd/avx2.h"
#include "simd_ops.inl"
#undef SEQCORE_ISA
SEQCORE_END
#endif

#ifdef SEQCORE_HAVE_AVX512
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // as in avx512.h
#endif
#ifdef SEQCORE_EMULATE_AVX512
SEQCORE_BEGIN("avx2,fma")
#else
SEQCORE_BEGIN("avx512f,avx512dq,avx512vl,avx512bw,fma")
#endif
#define SEQCORE_ISA avx512
#include "simd/avx512.h"
#include "simd_ops.inl"
#undef SEQCORE_ISA
SEQCORE_END
#endif

#ifdef SEQCORE_HAVE_NEON
#define SEQCORE_ISA neon
#include "simd/neon.h"
#include "simd_ops.inl"
#undef SEQCORE_ISA
#endif

namespace {

using check::Random;

// A number near where things go wrong: powers of two, the ends of the range, neighbours of 1, of halves, of integers.
float extreme(Random& random) {
  static const float kInteresting[] = {0.0f,           -0.0f,      1.0f,     -1.0f, 0x1p-126f, 0x1.fffffep127f,
                                       HUGE_VALF,      -HUGE_VALF, 0.5f,     1.5f,  2.5f,      0x1p23f,
                                       0x1.fffffep22f, 0x1p31f,    -0x1p31f, NAN,   0x1p-149f, 0x1.fffffcp-127f};
  const std::uint32_t kind = random.word();
  if (kind % 4 == 0) return kInteresting[(kind >> 8) % (sizeof kInteresting / sizeof kInteresting[0])];
  const std::uint32_t exponent = kind % 4 == 1 ? (kind >> 8) % 256 : 100 + (kind >> 8) % 52;
  const std::uint32_t mantissa = kind % 16 < 8 ? random.word() : (kind >> 20) % 3 - 1;
  return check::from_bits((kind & 0x80000000u) | exponent << 23 | (mantissa & 0x7fffffu));
}

bool same_bits_or_nan(float a, float b) { return check::bits(a) == check::bits(b) || (std::isnan(a) && std::isnan(b)); }

// Without flushing: every finite input, overflow and subnormals included.
void test_scalar_fma() {
  Random random{1};
  long wrong = 0;
  for (int i = 0; i < 10000000; i += seqcore::scalar::W) {
    float a[seqcore::scalar::W], b[seqcore::scalar::W], c[seqcore::scalar::W], got[seqcore::scalar::W];
    for (int j = 0; j < seqcore::scalar::W; ++j) {
      const int kind = (i / seqcore::scalar::W + j) % 8;
      a[j] = kind % 2 ? random.any() : extreme(random);
      b[j] = kind % 2 ? random.any() : extreme(random);
      c[j] = kind % 2 ? random.any() : extreme(random);
      if (kind == 3) c[j] = -(a[j] * b[j]);  // cancellation
      if (kind == 5) c[j] = std::ldexp(a[j] * b[j], static_cast<int>(random.word() % 100) - 50);
    }
    using namespace seqcore::scalar;
    store(got, fma(load(a), load(b), load(c)));
    for (int j = 0; j < W; ++j) wrong += !same_bits_or_nan(got[j], std::fma(a[j], b[j], c[j]));
  }
  CHECK(wrong == 0);
}

template <std::size_t n, class Table>
void compare(const char* isa, const Table (&table)[n]) {
  if (!seqcore::kernels_for(isa)) return;  // this machine cannot run it
  const auto& reference = seqcore::scalar::kOperations;
  static_assert(sizeof(reference) / sizeof(reference[0]) == n);
  const seqcore::FlushGuard guard;
  for (std::size_t o = 0; o < n; ++o) {
    Random random{7 + o};
    long wrong = 0;
    for (int round = 0; round < 20000; ++round) {
      float a[16], b[16], c[16], got[16], want[16];
      for (int i = 0; i < 16; ++i) {
        a[i] = extreme(random);
        b[i] = round % 5 == 0 ? a[i] : extreme(random);
        c[i] = random.any();
      }
      table[o].run(a, b, c, got);
      reference[o].run(a, b, c, want);
      for (int i = 0; i < 16; ++i)
        wrong += !(table[o].is_float ? check::same(got[i], want[i]) : check::bits(got[i]) == check::bits(want[i]));
    }
    CHECK_THAT(wrong == 0, std::string(isa) + " " + table[o].name + " differs from scalar in " + std::to_string(wrong));
  }
}

template <class F, class G, class H>
void test_memory(const char* isa, F partial, G transposes, H words) {
  if (!seqcore::kernels_for(isa)) return;
  check::Guarded in(16), out(16);
  for (int i = 0; i < 16; ++i) in.data()[i] = static_cast<float>(i + 1);
  CHECK_THAT(partial(in.data() + 16, out.data() + 16), std::string(isa) + ": load_n, store_n or first_n");
  CHECK_THAT(transposes(), std::string(isa) + ": transpose");
  const seqcore::FlushGuard guard;
  CHECK_THAT(words(), std::string(isa) + ": dot2, dot4, store_high or store_bytes");
}

// What scalar itself must do, where it is easy to get wrong.
void test_scalar() {
  using namespace seqcore::scalar;
  const float x[] = {0.5f, 1.5f, -2.5f, -0.25f};
  float y[4];
  store(y, round(load(x)));
  CHECK(y[0] == 0.0f && y[1] == 2.0f && y[2] == -2.0f && y[3] == 0.0f && std::signbit(y[3]));
  std::int32_t n[4];
  istore(n, to_int(load(x)));
  CHECK(n[0] == 0 && n[1] == 2 && n[2] == -2 && n[3] == 0);
  const float nan = NAN;
  store(y, min(set1(nan), set1(1.0f)));
  CHECK(y[0] == 1.0f);
  store(y, min(set1(1.0f), set1(nan)));
  CHECK(std::isnan(y[0]));
  store(y, fnma(set1(2.0f), set1(3.0f), set1(10.0f)));
  CHECK(y[0] == 4.0f);
  store(y, copysign(set1(2.0f), set1(-0.0f)));
  CHECK(y[0] == -2.0f);
}

}  // namespace

int main() {
  test_scalar();
  test_scalar_fma();
  test_memory("scalar", seqcore::scalar::partial, seqcore::scalar::transposes, seqcore::scalar::words);
#ifdef SEQCORE_HAVE_AVX2
  compare("avx2", seqcore::avx2::kOperations);
  test_memory("avx2", seqcore::avx2::partial, seqcore::avx2::transposes, seqcore::avx2::words);
#endif
#ifdef SEQCORE_HAVE_AVX512
  compare("avx512", seqcore::avx512::kOperations);
  test_memory("avx512", seqcore::avx512::partial, seqcore::avx512::transposes, seqcore::avx512::words);
#endif
#ifdef SEQCORE_HAVE_NEON
  compare("neon", seqcore::neon::kOperations);
  test_memory("neon", seqcore::neon::partial, seqcore::neon::transposes, seqcore::neon::words);
#endif
  return check::report();
}
