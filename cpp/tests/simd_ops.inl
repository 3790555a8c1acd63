// Every operation of simd/ on 16 lanes, as plain functions, for test_simd.cc, which includes this once per ISA.

namespace seqcore::SEQCORE_ISA {

struct Operation {
  const char* name;
  bool is_float;                                                          // else compared bit by bit
  void (*run)(const float* a, const float* b, const float* c, float* y);  // 16 elements
};

// FLOAT(name, result in vec), INT(name, result in ivec), of vec a, b, c and ivec ia, ib.
// clang-format off
#define SEQCORE_OPERATIONS(FLOAT, INT)                                                                     \
  FLOAT(add, add(a, b)) FLOAT(sub, sub(a, b)) FLOAT(mul, mul(a, b)) FLOAT(div, div(a, b))                  \
  FLOAT(sqrt, sqrt(a)) FLOAT(fma, fma(a, b, c)) FLOAT(fnma, fnma(a, b, c)) FLOAT(neg, neg(a))              \
  FLOAT(abs, abs(a)) FLOAT(copysign, copysign(a, b)) FLOAT(min, min(a, b)) FLOAT(max, max(a, b))           \
  FLOAT(round, round(a)) FLOAT(set1, set1(1.5f)) FLOAT(zero, zero())                                       \
  FLOAT(lt, select(lt(a, b), b, c)) FLOAT(le, select(le(a, b), b, c)) FLOAT(gt, select(gt(a, b), b, c))    \
  FLOAT(ge, select(ge(a, b), b, c)) FLOAT(eq, select(eq(a, b), b, c)) FLOAT(ne, select(ne(a, b), b, c))    \
  FLOAT(unordered, select(unordered(a, b), c, set1(2.0f)))                                                 \
  FLOAT(mand, select(mand(lt(a, b), lt(b, c)), b, c)) FLOAT(mor, select(mor(lt(a, b), lt(b, c)), b, c))    \
  FLOAT(mnot, select(mnot(lt(a, b)), b, c)) FLOAT(to_float, to_float(ia)) FLOAT(float_of, float_of(ia))    \
  INT(to_int, to_int(a)) INT(bits, bits(a)) INT(iset1, iset1(-7)) INT(iadd, iadd(ia, ib))                  \
  INT(isub, isub(ia, ib)) INT(iand, iand(ia, ib)) INT(ior, ior(ia, ib)) INT(ixor, ixor(ia, ib))            \
  INT(shl, shl<3>(ia)) INT(shr, shr<23>(ia)) INT(sar, sar<23>(ia)) INT(ieq, iselect(ieq(ia, ib), ia, ib))  \
  INT(igt, iselect(igt(ia, ib), ia, ib))
// clang-format on

#define SEQCORE_LOAD                                                               \
  [[maybe_unused]] const vec a = load(pa + i), b = load(pb + i), c = load(pc + i); \
  [[maybe_unused]] const ivec ia = bits(a), ib = bits(b);
#define SEQCORE_FLOAT(name, result)                                              \
  void run_##name(const float* pa, const float* pb, const float* pc, float* y) { \
    for (int i = 0; i < 16; i += W) {                                            \
      SEQCORE_LOAD                                                               \
      store(y + i, result);                                                      \
    }                                                                            \
  }
#define SEQCORE_INT(name, result)                                                \
  void run_##name(const float* pa, const float* pb, const float* pc, float* y) { \
    for (int i = 0; i < 16; i += W) {                                            \
      SEQCORE_LOAD                                                               \
      std::int32_t t[W];                                                         \
      istore(t, result);                                                         \
      std::memcpy(y + i, t, sizeof t);                                           \
    }                                                                            \
  }
namespace {
SEQCORE_OPERATIONS(SEQCORE_FLOAT, SEQCORE_INT)

// load_n, store_n and first_n at every n <= W, on memory that ends where they may not look.
bool partial(const float* end, float* out_end) {
  bool ok = true;
  for (int n = 0; n <= W; ++n) {
    float whole[W];
    store(whole, load_n(end - n, n));
    for (int i = 0; i < W; ++i) ok = ok && whole[i] == (i < n ? end[i - n] : 0.0f);
    for (int i = 1; i <= W; ++i) out_end[-i] = -1.0f;
    store_n(out_end - n, set1(3.0f), n);
    for (int i = 1; i <= W; ++i) ok = ok && out_end[-i] == (i <= n ? 3.0f : -1.0f);
    store(whole, select(first_n(n), set1(1.0f), zero()));
    for (int i = 0; i < W; ++i) ok = ok && whole[i] == (i < n ? 1.0f : 0.0f);
    ok = ok && any(first_n(n)) == (n > 0) && all(first_n(n)) == (n == W);
  }
  std::int32_t ints[W], copied[W];
  for (int i = 0; i < W; ++i) ints[i] = i - 2;
  istore(copied, iload(ints));
  return ok && std::memcmp(ints, copied, sizeof ints) == 0;
}

// dot2 against its two fused multiply-adds, dot4 against integers; what store_high and store_bytes store.
bool words() {
  bool ok = true;
  std::uint32_t state = 1;
  const auto word = [&] { return state = state * 1664525u + 1013904223u; };
  for (int round = 0; round < 200; ++round) {
    float a[W], b[W], acc[W], got[W];
    std::int32_t sums[W], dots[W], narrow[W];
    for (int i = 0; i < W; ++i) {
      acc[i] = static_cast<float>(static_cast<std::int32_t>(word())) * 0x1p-20f;
      sums[i] = static_cast<std::int32_t>(word() >> 8);
      std::uint32_t wa = 0, wb = 0;
      for (int k = 0; k < 4; ++k) {
        wa = wa << 8 | static_cast<std::uint8_t>(static_cast<int>(word() >> 8) % 128 * (word() & 4096 ? 1 : -1));
        wb = wb << 8 | static_cast<std::uint8_t>(round % 3 ? static_cast<int>(word() >> 8) % 128 : 127);
      }
      std::memcpy(&a[i], &wa, 4);
      std::memcpy(&b[i], &wb, 4);
      dots[i] = sums[i];
      for (int k = 0; k < 32; k += 8)
        dots[i] += (static_cast<std::int8_t>(wa >> k) + kByteOffset) * static_cast<std::int8_t>(wb >> k);
      narrow[i] = static_cast<std::int8_t>(wa);
    }
    std::int32_t out[W];
    istore(out, dot4(bytes_of(load(a)), load(b), iload(sums)));
    ok = ok && std::memcmp(out, dots, sizeof out) == 0;
    std::int8_t eight[W];
    store_bytes(eight, iload(narrow));
    std::uint16_t high[W];
    store_high(high, bits(load(a)));
    for (int i = 0; i < W; ++i) {
      std::uint32_t wa, wb = word() & 0xBFFFBFFFu;  // moderate numbers
      std::memcpy(&wa, &a[i], 4);
      ok = ok && eight[i] == narrow[i] && high[i] == wa >> 16;
      wa &= 0xBFFFBFFFu;
      std::memcpy(&a[i], &wa, 4);
      std::memcpy(&b[i], &wb, 4);
    }
    store(got, dot2(halves_of(load(a)), load(b), load(acc)));
    for (int i = 0; i < W; ++i) {
      std::uint32_t wa, wb, high_a, high_b, low_a, low_b;
      std::memcpy(&wa, &a[i], 4);
      std::memcpy(&wb, &b[i], 4);
      high_a = wa & 0xFFFF0000u, high_b = wb & 0xFFFF0000u, low_a = wa << 16, low_b = wb << 16;
      float ha, hb, la, lb;
      std::memcpy(&ha, &high_a, 4), std::memcpy(&hb, &high_b, 4);
      std::memcpy(&la, &low_a, 4), std::memcpy(&lb, &low_b, 4);
      const float want = std::fma(la, lb, std::fma(ha, hb, acc[i]));
      ok = ok && check::same(got[i], want);
    }
  }
  return ok;
}

bool transposes() {
  float from[W * (W + 3)], to[W * (W + 1)];
  for (int i = 0; i < W * (W + 3); ++i) from[i] = static_cast<float>(i);
  for (float& t : to) t = -1.0f;
  transpose(from, W + 3, to, W + 1);
  bool ok = true;
  for (int j = 0; j < W; ++j) {
    for (int i = 0; i < W; ++i) ok = ok && to[j * (W + 1) + i] == from[i * (W + 3) + j];
    ok = ok && to[j * (W + 1) + W] == -1.0f;
  }
  return ok;
}
}  // namespace

#define SEQCORE_ROW_FLOAT(name, result) {#name, true, run_##name},
#define SEQCORE_ROW_INT(name, result) {#name, false, run_##name},
const Operation kOperations[] = {SEQCORE_OPERATIONS(SEQCORE_ROW_FLOAT, SEQCORE_ROW_INT)};

#undef SEQCORE_OPERATIONS
#undef SEQCORE_LOAD
#undef SEQCORE_FLOAT
#undef SEQCORE_INT
#undef SEQCORE_ROW_FLOAT
#undef SEQCORE_ROW_INT

}  // namespace seqcore::SEQCORE_ISA
