// Dropout multipliers from Philox4x32-10 (base/philox.h), many blocks at a time. Included by isa.inl, once per ISA.

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

// y[i] = keep ? 1 / (1 - rate) : 0 for elements index + i; element e is kept iff the uniform number of word e >= rate.
void dropout_mask(std::uint64_t key, std::uint64_t counter, std::uint64_t index, std::int64_t n, float rate, float* y) {
  constexpr int kWords = 4 * kPhiloxBlocks;
  const float kept = 1.0f / (1.0f - rate);
  std::uint64_t block = index / 4;
  auto skip = static_cast<std::int64_t>(index % 4);
  for (std::int64_t i = 0; i < n; block += kPhiloxBlocks, skip = 0) {
    std::uint32_t words[kWords];
    float value[kWords];
    philox(key, counter, block, words);
    for (int w = 0; w < kWords; ++w)
      value[w] = static_cast<float>(static_cast<std::int32_t>(words[w] >> 8)) * 0x1p-24f >= rate ? kept : 0.0f;
    const std::int64_t m = n - i < kWords - skip ? n - i : kWords - skip;
    for (std::int64_t j = 0; j < m; ++j) y[i + j] = value[skip + j];
    i += m;
  }
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
