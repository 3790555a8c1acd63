// Products of words with the instruction made for them: two bfloat16 by AVX-512 BF16. Used through dispatch.h only.
#define SEQCORE_ISA avx512_bf16
#define SEQCORE_AVX512_BF16
#include "simd/avx512.h"

#include "kernels/dots.h"

#include "kernels/tile.inl"
#include "kernels/row_tile.inl"

namespace seqcore::SEQCORE_ISA {

void dot(const Product& t, std::int64_t m, std::int64_t vectors) { multiply<BFloat16>(t, m, vectors); }
RowTile row(const RowProduct& t) { return row_tile_of<BFloat16>(t); }

}  // namespace seqcore::SEQCORE_ISA
