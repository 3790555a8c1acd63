// Several vectors as one value, for chains of operations that wait for each other: the chains run side by side. Whatever
// is written for a vector type V, vec or some of them, gives each vector the same bits. Included by isa.inl, once per ISA.

namespace seqcore::SEQCORE_ISA {
namespace {

template <class V>
struct twice {
  V a, b;
};

// A number in every lane of something like the first argument.
SEQCORE_INLINE vec constant(vec, float x) { return set1(x); }
template <class V>
SEQCORE_INLINE twice<V> constant(twice<V> like, float x) {
  return {constant(like.a, x), constant(like.b, x)};
}

#define SEQCORE_TWICE_1(f)                \
  template <class V>                      \
  SEQCORE_INLINE twice<V> f(twice<V> x) { \
    return {f(x.a), f(x.b)};              \
  }
#define SEQCORE_TWICE_2(f)                            \
  template <class V>                                  \
  SEQCORE_INLINE twice<V> f(twice<V> x, twice<V> y) { \
    return {f(x.a, y.a), f(x.b, y.b)};                \
  }
#define SEQCORE_TWICE_3(f)                                        \
  template <class V>                                              \
  SEQCORE_INLINE twice<V> f(twice<V> x, twice<V> y, twice<V> z) { \
    return {f(x.a, y.a, z.a), f(x.b, y.b, z.b)};                  \
  }
SEQCORE_TWICE_1(abs)
SEQCORE_TWICE_2(add)
SEQCORE_TWICE_2(sub)
SEQCORE_TWICE_2(mul)
SEQCORE_TWICE_2(div)
SEQCORE_TWICE_2(min)
SEQCORE_TWICE_2(max)
SEQCORE_TWICE_2(copysign)
SEQCORE_TWICE_3(fma)
SEQCORE_TWICE_3(fnma)
#undef SEQCORE_TWICE_1
#undef SEQCORE_TWICE_2
#undef SEQCORE_TWICE_3

// A place in a row: one vector, or two places as one.
struct One {
  static constexpr std::int64_t size = W;
  std::int64_t j;
  SEQCORE_INLINE One moved(std::int64_t by) const { return {j + by}; }
  SEQCORE_INLINE vec load(const float* p) const { return SEQCORE_ISA::load(p + j); }
  SEQCORE_INLINE void store(float* p, vec v) const { SEQCORE_ISA::store(p + j, v); }
};
template <class P>
struct Both {
  using Half = P;
  static constexpr std::int64_t size = 2 * P::size;
  P a, b;
  SEQCORE_INLINE Both moved(std::int64_t by) const { return {a.moved(by), b.moved(by)}; }
  SEQCORE_INLINE auto load(const float* p) const { return twice<decltype(a.load(p))>{a.load(p), b.load(p)}; }
  template <class V>
  SEQCORE_INLINE void store(float* p, twice<V> v) const {
    a.store(p, v.a);
    b.store(p, v.b);
  }
};
template <int n>
struct Places {
  using type = Both<typename Places<n / 2>::type>;
};
template <>
struct Places<1> {
  using type = One;
};
template <int n>
using Vectors = typename Places<n>::type;
using Two = Vectors<2>;
using Four = Vectors<4>;

template <class P>
SEQCORE_INLINE P place(std::int64_t j) {
  if constexpr (P::size == W)
    return {j};
  else
    return {place<typename P::Half>(j), place<typename P::Half>(j + P::size / 2)};
}

// f(place) over the vectors from `begin` to `end`, the last one whole too, as many at a time as fit, up to P, where the
// registers are enough for it.
template <class P, class F>
SEQCORE_INLINE void each_place(std::int64_t begin, std::int64_t end, F f) {
  std::int64_t j = begin;
  if constexpr (P::size == W) {
    for (; j < end; j += W) f(One{j});
  } else {
    if constexpr (kRegisters >= 16)
      for (; j + P::size <= end; j += P::size) f(place<P>(j));
    each_place<typename P::Half>(j, end, f);
  }
}

// The same as values: a place that is known as it is compiled takes no loop.
template <class P>
struct Just {
  template <class F>
  SEQCORE_INLINE void operator()(F f) const {
    f(place<P>(0));
  }
};
template <class P>
struct Upto {
  std::int64_t end;
  template <class F>
  SEQCORE_INLINE void operator()(F f) const {
    each_place<P>(0, end, f);
  }
};

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
