#include "base/philox.h"

#include <initializer_list>

namespace seqcore {

Philox::Block Philox::block(std::uint64_t index) const {
  const auto lo = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  const auto hi = [](std::uint64_t v) { return static_cast<std::uint32_t>(v >> 32); };
  std::uint32_t x0 = lo(index), x1 = hi(index), x2 = lo(counter), x3 = hi(counter);
  std::uint32_t k0 = lo(key), k1 = hi(key);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * x0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * x2;
    x0 = hi(p1) ^ x1 ^ k0;
    x1 = lo(p1);
    x2 = hi(p0) ^ x3 ^ k1;
    x3 = lo(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{x0, x1, x2, x3}};
}

// Three rounds of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), a bijection of each argument.
std::uint64_t mix_seed(std::uint64_t seed, std::uint64_t a, std::uint64_t b) {
  std::uint64_t z = 0;
  for (const std::uint64_t part : {seed, a, b}) {
    z += part + 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
  }
  return z;
}

}  // namespace seqcore
