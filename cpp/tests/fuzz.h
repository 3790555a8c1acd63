// What a fuzz_*.cc is: LLVMFuzzerTestOneInput and some seeds. With clang's -fsanitize=fuzzer -DSEQCORE_LIBFUZZER it is a
// libFuzzer program; otherwise a program that tries so many random changes of its seeds (argument 1, else 200000).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
std::vector<std::string> fuzz_seeds();

#ifndef SEQCORE_LIBFUZZER
#include <cstdio>
#include <cstdlib>
#include <random>

int main(int argc, char** argv) {
  const long rounds = argc > 1 ? std::atol(argv[1]) : 200000;
  const std::vector<std::string> seeds = fuzz_seeds();
  std::mt19937 random(1);
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : random() % n; };
  for (long round = 0; round < rounds; ++round) {
    std::string input = seeds[below(seeds.size())];
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
      const std::size_t at = below(input.size());
      const std::string& other = seeds[below(seeds.size())];
      const char piece[] = {"{}[]\",:0123456789-+.eE\\u \n\xff\x80\xc3\x00"[below(31)], '\0'};
      switch (below(5)) {
        case 0:
          if (!input.empty()) input[at] = static_cast<char>(input[at] ^ (1 << below(8)));
          break;
        case 1:
          input.insert(at, piece, 1);
          break;
        case 2:
          input.erase(at, 1 + below(8));
          break;
        case 3:
          input.insert(at, input, below(input.size()), 1 + below(16));
          break;
        default:
          input.insert(at, other, below(other.size()), 1 + below(32));
          break;
      }
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  }
  std::printf("%ld inputs\n", rounds);
}
#endif
