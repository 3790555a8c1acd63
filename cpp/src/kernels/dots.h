// Products of words by instructions that some processors with AVX-512 have (Dot): dot_*.cc define them, each compiled for
// its own; dispatch.cc puts them into the table.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace seqcore {

namespace avx512_vnni {
void dot(const Product& t, std::int64_t m, std::int64_t vectors);
RowTile row(const RowProduct& t);
}  // namespace avx512_vnni

namespace avx512_bf16 {
void dot(const Product& t, std::int64_t m, std::int64_t vectors);
RowTile row(const RowProduct& t);
}  // namespace avx512_bf16

namespace amx {
extern bool allowed;  // whether the system lets this process have tiles: dispatch.cc asks
void bfloat16(const Product& t, std::int64_t m, std::int64_t vectors);
RowTile bfloat16_row(const RowProduct& t);
void int8(const Product& t, std::int64_t m, std::int64_t vectors);
}  // namespace amx

}  // namespace seqcore
