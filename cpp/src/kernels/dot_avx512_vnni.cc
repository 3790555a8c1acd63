// Products of words with the instruction made for them: four bytes by AVX-512 VNNI. Used through dispatch.h only.
#define SEQCORE_ISA avx512_vnni
#define SEQCORE_AVX512_VNNI
#include "simd/avx512.h"

#include "kernels/dots.h"

#include "kernels/tile.inl"
#include "kernels/row_tile.inl"

namespace seqcore::SEQCORE_ISA {

void dot(const Product& t, std::int64_t m, std::int64_t vectors) { multiply<Int8>(t, m, vectors); }
RowTile row(const RowProduct& t) { return row_tile_of<Int8>(t); }

}  // namespace seqcore::SEQCORE_ISA
