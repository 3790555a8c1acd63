// Tiles (AMX): eight registers of up to 16 rows of 64 bytes, and products of two of them added to a third. Included by
// kernels/dot_amx.cc, after simd/avx512.h. Instructions are written out, since the compilers' functions take register
// numbers that no template can give them.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr int kTileWords = 16;  // of a row; and rows of a whole tile

// The eight registers: `first` of them with `rows` rows, the others with 16. All of 64 bytes a row, all zero.
SEQCORE_INLINE void tiles_begin(int first, int rows) {
  struct alignas(64) Shape {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shape;
  static_assert(sizeof shape == 64);
  for (int i = 0; i < first; ++i) shape.rows[i] = static_cast<std::uint8_t>(rows);
  __asm__ volatile("ldtilecfg %0" ::"m"(shape));
}
// Their contents are lost, and a switch of contexts no longer costs their 8 KiB.
SEQCORE_INLINE void tiles_end() { __asm__ volatile("tilerelease"); }

template <int tile>
SEQCORE_INLINE void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(tile));
}
// `row`: floats from row to row.
template <int tile>
SEQCORE_INLINE void tile_load(const float* p, std::ptrdiff_t row) {
  __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(p), "r"(row * 4) : "memory");
}
template <int tile>
SEQCORE_INLINE void tile_store(float* p, std::ptrdiff_t row) {
  __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(tile), "r"(p), "r"(row * 4) : "memory");
}
// sum[m][n] += the sum over 16 words k of a[m][k] . b[k][n]. Of two bfloat16: one chain of fused multiply-adds over the
// words' low halves and one over their high halves, each from 0; what these make together is added to the sum.
template <int sum, int a, int b>
SEQCORE_INLINE void tile_dot2() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(a), "i"(b));
}
// Of four signed bytes, in int32.
template <int sum, int a, int b>
SEQCORE_INLINE void tile_dot4() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sum), "i"(a), "i"(b));
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
