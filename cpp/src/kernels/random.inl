// Dropout multipliers and normal numbers from Philox4x32-10 (base/philox.h), many blocks at a time. Included by isa.inl,
// once per ISA.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int kPhiloxBlocks = 32;  // side by side, in loops that compilers vectorise (gcc unrolls shorter ones)

// words[4*i + w] = word w of block index + i of stream (key, counter).
SEQCORE_INLINE void philox(std::uint64_t key, std::uint64_t counter, std::uint64_t index,
                           std::uint32_t (&words)[4 * kPhiloxBlocks]) {
  const auto lo = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  const auto hi = [](std::uint64_t v) { return static_cast<std::uint32_t>(v >> 32); };
  std::uint32_t x[4][kPhiloxBlocks];
  for (int i = 0; i < kPhiloxBlocks; ++i) {
    x[0][i] = lo(index + static_cast<std::uint64_t>(i));
    x[1][i] = hi(index + static_cast<std::uint64_t>(i));
    x[2][i] = lo(counter);
    x[3][i] = hi(counter);
  }
  std::uint32_t k0 = lo(key), k1 = hi(key);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
    for (int i = 0; i < kPhiloxBlocks; ++i) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * x[0][i];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * x[2][i];
      x[0][i] = hi(p1) ^ x[1][i] ^ k0;
      x[1][i] = lo(p1);
      x[2][i] = hi(p0) ^ x[3][i] ^ k1;
      x[3][i] = lo(p0);
    }
  for (int i = 0; i < kPhiloxBlocks; ++i)
    for (int w = 0; w < 4; ++w) words[4 * i + w] = x[w][i];
}

// y[i] = value(word of element index + i), which element e has in word e % 4 of block e / 4.
template <class F>
SEQCORE_INLINE void draw(std::uint64_t key, std::uint64_t counter, std::uint64_t index, std::int64_t n, float* y,
                         F value) {
  constexpr int kWords = 4 * kPhiloxBlocks;
  std::uint64_t block = index / 4;
  auto skip = static_cast<std::int64_t>(index % 4);
  for (std::int64_t i = 0; i < n; block += kPhiloxBlocks, skip = 0) {
    std::uint32_t words[kWords];
    float values[kWords];
    philox(key, counter, block, words);
    for (int w = 0; w < kWords; ++w) values[w] = value(static_cast<float>(static_cast<std::int32_t>(words[w] >> 8)));
    const std::int64_t m = n - i < kWords - skip ? n - i : kWords - skip;
    for (std::int64_t j = 0; j < m; ++j) y[i + j] = values[skip + j];
    i += m;
  }
}

// y[i] = keep ? 1 / (1 - rate) : 0; an element is kept iff its uniform number >= rate.
void dropout_mask(std::uint64_t key, std::uint64_t counter, std::uint64_t index, std::int64_t n, float rate, float* y) {
  const float kept = 1.0f / (1.0f - rate);
  draw(key, counter, index, n, y, [=](float k) { return k * 0x1p-24f >= rate ? kept : 0.0f; });
}

// sqrt(2) erfinv(x) for |x| < 1: a standard normal's quantile at (1 + x) / 2. Giles, "Approximating the erfinv function"
// (GPU Computing Gems, 2011), in single precision.
SEQCORE_INLINE vec normal_quantile(vec x) {
  const auto polynomial = [](const float(&c)[9], vec t) {
    vec p = set1(c[0]);
    for (int i = 1; i < 9; ++i) p = fma(p, t, set1(c[i]));
    return p;
  };
  constexpr float kMiddle[9] = {2.81022636e-08f, 3.43273939e-07f, -3.5233877e-06f, -4.39150654e-06f, 0.00021858087f,
                                -0.00125372503f, -0.00417768164f, 0.246640727f,    1.50140941f};
  constexpr float kTails[9] = {-0.000200214257f, 0.000100950558f, 0.00134934322f, -0.00367342844f, 0.00573950773f,
                               -0.0076224613f,   0.00943887047f,  1.00167406f,    2.83297682f};
  const vec one = set1(1.0f);
  const vec w = neg(vlog(mul(sub(one, x), add(one, x))));
  const vec middle = polynomial(kMiddle, sub(w, set1(2.5f)));
  const vec tails = polynomial(kTails, sub(sqrt(w), set1(3.0f)));
  return mul(set1(1.41421356237309504880f), mul(x, select(lt(w, set1(5.0f)), middle, tails)));
}

// y[i] = mean + deviation z, z the standard normal's quantile at (k + 1/2) / 2^24, k the upper 24 bits of the word.
void normals(std::uint64_t key, std::uint64_t counter, std::uint64_t index, std::int64_t n, float mean, float deviation,
             float* y) {
  draw(key, counter, index, n, y, [](float k) { return k * 0x1p-23f - (1.0f - 0x1p-24f); });
  for_each(n, [=](auto at) { at.store(y, fma(set1(deviation), normal_quantile(at.load(y)), set1(mean))); });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
