// Rows and matrices in reduced precision, as words of two bfloat16 or four int8 (Precision in kernels.h). Included by
// isa.inl after tile.inl.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr float kLargestByte = 127.0f;
constexpr float kTiny = 0x1p-100f;  // rows and columns no larger than this are zero in int8

// The nearest bfloat16, even on ties, in the high half of every lane. NaN stays NaN.
SEQCORE_INLINE ivec round_to_high(vec v) {
  const ivec u = bits(v);
  const ivec rounded = iadd(u, iadd(iset1(0x7FFF), iand(shr<16>(u), iset1(1))));
  return iselect(unordered(v, v), ior(u, iset1(0x00400000)), rounded);
}

template <class To, class From>
SEQCORE_INLINE To same_bits(From from) {
  To to;
  static_assert(sizeof to == sizeof from);
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// The largest size of k floats; infinite or NaN where one of them is. Sizes have the order of their bits.
SEQCORE_INLINE float largest_size(const float* x, std::int64_t k) {
  const Lanes lanes = fold(k, 0.0f, [=](auto at, vec acc) {
    const ivec size = bits(abs(at.load(x)));
    return float_of(iselect(igt(size, bits(acc)), size, bits(acc)));
  });
  std::int32_t sizes[kLanes];
  for (int j = 0; j < kLanes / W; ++j) istore(sizes + j * W, bits(lanes.v[j]));
  return same_bits<float>(halve(sizes, [](std::int32_t a, std::int32_t b) { return a > b ? a : b; }));
}

// Words from one encoded row to the next.
constexpr std::int64_t encoded_row(Precision p, std::int64_t k) { return pad(words(p, k)); }

// A row of k floats as words, zero beyond k up to the next row. int8: `scale` is what a unit is worth, NaN
// where an element is not finite.
void encode(Precision p, const float* x, std::int64_t k, float* out, float* scale) {
  const std::int64_t last = encoded_row(p, k) - kPad;
  for (std::int64_t i = last; i < last + kPad; i += W) store(out + i, zero());
  if (p == Precision::bfloat16) {
    auto* to = reinterpret_cast<std::uint16_t*>(out);
    for (std::int64_t i = 0; i < k; i += W) store_high(to + i, round_to_high(load_upto(x + i, k - i)));
    return;
  }
  const float largest = largest_size(x, k);
  const float per_unit = largest > kTiny ? kLargestByte / largest : 0.0f;
  *scale = (largest > kTiny ? largest / kLargestByte : 0.0f) + (largest - largest);
  auto* to = reinterpret_cast<std::int8_t*>(out);
  for (std::int64_t i = 0; i < k; i += W) store_bytes(to + i, to_int(mul(load_upto(x + i, k - i), set1(per_unit))));
}

// Packed in words: int8: [columns] of scale, [columns] of init (int32); then the words, as floats are packed.
constexpr std::int64_t words_at(Precision p, std::int64_t columns) { return p == Precision::int8 ? 2 * columns : 0; }
constexpr std::int64_t packed_matrix_size(Precision p, std::int64_t k, std::int64_t columns) {
  return words_at(p, columns) + words(p, k) * columns;
}

SEQCORE_INLINE std::uint32_t bfloat16_of(float x) {
  const auto u = same_bits<std::uint32_t>(x);
  return x == x ? (u + 0x7FFFu + (u >> 16 & 1u)) >> 16 : (u | 0x00400000u) >> 16;
}

// Columns c .. c + width of k rows, at(i, j) being the element in row i, column c + j: their words to `to` (width apart),
// their scale and init. width <= kPanel. Row by row: in a column each number would cost a line of the cache.
template <class At>
void pack_words(Packing how, std::int64_t k, std::int64_t width, At at, float* scale, float* init, float* to) {
  const std::int64_t n = words(how.precision, k);
  const auto element = [&](std::int64_t i, std::int64_t j) { return i < k ? at(i, j) : 0.0f; };
  if (how.precision == Precision::bfloat16) {
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < width; ++j)
        to[i * width + j] = same_bits<float>(bfloat16_of(element(2 * i, j)) | bfloat16_of(element(2 * i + 1, j)) << 16);
    return;
  }
  float largest[kPanel] = {}, nothing[kPanel] = {}, per_unit[kPanel];
  std::int32_t sum[kPanel] = {};
  for (std::int64_t i = 0; i < k; ++i)
    for (std::int64_t j = 0; j < width; ++j) {
      const float a = __builtin_fabsf(at(i, j));
      largest[j] = a > largest[j] ? a : largest[j];
      nothing[j] += a * 0.0f;  // or NaN
    }
  for (std::int64_t j = 0; j < width; ++j) per_unit[j] = largest[j] > kTiny ? kLargestByte / largest[j] : 0.0f;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < width; ++j) {
      std::uint32_t word = 0;
      for (int b = 0; b < 4; ++b) {
        const float q = element(4 * i + b, j) * per_unit[j];
        const auto byte = q == q ? static_cast<std::int32_t>((q + 0x1.8p23f) - 0x1.8p23f) : 0;  // nearest, even on ties
        sum[j] += byte;
        word |= static_cast<std::uint32_t>(byte & 0xFF) << 8 * b;
      }
      to[i * width + j] = same_bits<float>(word);
    }
  for (std::int64_t j = 0; j < width; ++j) {
    scale[j] = (largest[j] > kTiny ? largest[j] / kLargestByte : 0.0f) + nothing[j];
    init[j] = same_bits<float>(-how.byte_offset * sum[j]);
  }
}

// out = init + scale of the row * scale of the column * sum, for int32 sums in rows of `columns`.
void add_scaled(std::int64_t m, std::int64_t columns, const float* sums, const float* row_scale,
                const float* column_scale, const float* init, std::ptrdiff_t init_row, float* out,
                std::ptrdiff_t out_row) {
  for (std::int64_t i = 0; i < m; ++i) {
    const vec scale = set1(row_scale[i]);
    for (std::int64_t j = 0; j < columns; j += W)
      store(out + i * out_row + j, fma(mul(scale, load(column_scale + j)), to_float(bits(load(sums + i * columns + j))),
                                       load(init + i * init_row + j)));
  }
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
