// Two vectors as one value, for chains of operations that wait for each other: the two chains run side by side. Whatever
// is written for a vector type V, vec or pair, gives each vector the same bits. Included by isa.inl, once per ISA.

namespace seqcore::SEQCORE_ISA {
namespace {

struct pair {
  vec a, b;
};

// A number in every lane of something like the first argument.
SEQCORE_INLINE vec constant(vec, float x) { return set1(x); }
SEQCORE_INLINE pair constant(pair, float x) { return {set1(x), set1(x)}; }

SEQCORE_INLINE pair add(pair x, pair y) { return {add(x.a, y.a), add(x.b, y.b)}; }
SEQCORE_INLINE pair sub(pair x, pair y) { return {sub(x.a, y.a), sub(x.b, y.b)}; }
SEQCORE_INLINE pair mul(pair x, pair y) { return {mul(x.a, y.a), mul(x.b, y.b)}; }
SEQCORE_INLINE pair div(pair x, pair y) { return {div(x.a, y.a), div(x.b, y.b)}; }
SEQCORE_INLINE pair fma(pair x, pair y, pair z) { return {fma(x.a, y.a, z.a), fma(x.b, y.b, z.b)}; }
SEQCORE_INLINE pair fnma(pair x, pair y, pair z) { return {fnma(x.a, y.a, z.a), fnma(x.b, y.b, z.b)}; }
SEQCORE_INLINE pair abs(pair x) { return {abs(x.a), abs(x.b)}; }
SEQCORE_INLINE pair min(pair x, pair y) { return {min(x.a, y.a), min(x.b, y.b)}; }
SEQCORE_INLINE pair max(pair x, pair y) { return {max(x.a, y.a), max(x.b, y.b)}; }
SEQCORE_INLINE pair copysign(pair x, pair y) { return {copysign(x.a, y.a), copysign(x.b, y.b)}; }

// A place in a row, a vector or two of them.
struct One {
  std::int64_t j;
  SEQCORE_INLINE vec load(const float* p) const { return SEQCORE_ISA::load(p + j); }
  SEQCORE_INLINE void store(float* p, vec v) const { SEQCORE_ISA::store(p + j, v); }
};
struct Two {
  std::int64_t j;
  SEQCORE_INLINE pair load(const float* p) const { return {SEQCORE_ISA::load(p + j), SEQCORE_ISA::load(p + j + W)}; }
  SEQCORE_INLINE void store(float* p, pair v) const {
    SEQCORE_ISA::store(p + j, v.a);
    SEQCORE_ISA::store(p + j + W, v.b);
  }
};

// f(place) over the vectors from `begin` to `end`, two at a time where the registers are enough for it.
template <class F>
SEQCORE_INLINE void each_place(std::int64_t begin, std::int64_t end, F f) {
  std::int64_t j = begin;
  if constexpr (kRegisters >= 16)
    for (; j + 2 * W <= end; j += 2 * W) f(Two{j});
  for (; j < end; j += W) f(One{j});
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
