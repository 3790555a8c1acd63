// Random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), counter-based:
// word e of stream (key, counter) is a pure function of (key, counter, e), so nothing depends on threads or order.
// Block i of a stream is philox(counter words {lo(i), hi(i), lo(counter), hi(counter)}, key words {lo(key), hi(key)}).
#pragma once

#include <cstdint>

namespace seqcore {

struct Philox {
  std::uint64_t key;
  std::uint64_t counter;

  struct Block {
    std::uint32_t word[4];
  };
  Block block(std::uint64_t index) const;  // words 4*index .. 4*index+3
  std::uint32_t word(std::uint64_t e) const { return block(e / 4).word[e % 4]; }
  float uniform(std::uint64_t e) const { return static_cast<float>(word(e) >> 8) * 0x1p-24f; }  // [0, 1)
};

// Mixes a seed with the numbers that tell its users apart (layer, weight, epoch, …) into a key. Order matters.
std::uint64_t mix_seed(std::uint64_t seed, std::uint64_t a, std::uint64_t b = 0);

}  // namespace seqcore
