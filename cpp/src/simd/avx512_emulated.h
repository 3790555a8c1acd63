// AVX-512's intrinsics as SIMDe has them, and the few that its release 0.7.4 lacks: so that avx512.h, and everything that
// depends on vectors of 16 floats, is tested on processors without AVX-512. Included by avx512.h only, with
// SEQCORE_EMULATE_AVX512. Never in a release: it is slow.
#pragma once

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors of 64 bytes are passed through memory here

#include <cmath>
#include <cstdint>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>

namespace seqcore_emulated {

template <class To, class From, class F>
static inline void lanes(const From (&from)[16], To (&to)[16], F f) {
  for (int i = 0; i < 16; ++i) to[i] = f(from[i], i);
}
static inline __m512 maskz_loadu_ps(__mmask16 mask, const void* from) {
  float a[16] = {};
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) a[i] = static_cast<const float*>(from)[i];
  return _mm512_loadu_ps(a);
}
static inline void mask_storeu_ps(void* to, __mmask16 mask, __m512 v) {
  float a[16];
  _mm512_storeu_ps(a, v);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) static_cast<float*>(to)[i] = a[i];
}
static inline __m512 cvtepi32_ps(__m512i v) {
  std::int32_t a[16];
  float r[16];
  _mm512_storeu_si512(a, v);
  lanes(a, r, [](std::int32_t x, int) { return static_cast<float>(x); });
  return _mm512_loadu_ps(r);
}
static inline __m512i cvtps_epi32(__m512 v) {
  float a[16];
  std::int32_t r[16];
  _mm512_storeu_ps(a, v);
  lanes(a, r,
        [](float x, int) { return std::fabs(x) < 0x1p31f ? static_cast<std::int32_t>(std::nearbyint(x)) : INT32_MIN; });
  return _mm512_loadu_si512(r);
}
static inline __m512i srai_epi32(__m512i v, unsigned n) {
  std::int32_t a[16], r[16];
  _mm512_storeu_si512(a, v);
  lanes(a, r, [n](std::int32_t x, int) { return x >> n; });
  return _mm512_loadu_si512(r);
}

static inline __m256i cvtepi32_epi16(__m512i v) {
  std::int32_t a[16];
  std::int16_t r[16];
  _mm512_storeu_si512(a, v);
  lanes(a, r, [](std::int32_t x, int) { return static_cast<std::int16_t>(x); });
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(r));
}
static inline __m128i cvtepi32_epi8(__m512i v) {
  std::int32_t a[16];
  std::int8_t r[16];
  _mm512_storeu_si512(a, v);
  lanes(a, r, [](std::int32_t x, int) { return static_cast<std::int8_t>(x); });
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(r));
}

static inline __m512i madd_epi16(__m512i x, __m512i y) {
  std::int16_t a[32], b[32];
  std::int32_t r[16];
  _mm512_storeu_si512(a, x);
  _mm512_storeu_si512(b, y);
  for (int i = 0; i < 16; ++i) r[i] = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
  return _mm512_loadu_si512(r);
}

}  // namespace seqcore_emulated

#define _mm512_maskz_loadu_ps seqcore_emulated::maskz_loadu_ps
#define _mm512_mask_storeu_ps seqcore_emulated::mask_storeu_ps
#define _mm512_cvtepi32_ps seqcore_emulated::cvtepi32_ps
#define _mm512_cvtps_epi32 seqcore_emulated::cvtps_epi32
#define _mm512_srai_epi32 seqcore_emulated::srai_epi32
#define _mm512_cvtepi32_epi16 seqcore_emulated::cvtepi32_epi16
#define _mm512_cvtepi32_epi8 seqcore_emulated::cvtepi32_epi8
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 seqcore_emulated::madd_epi16
