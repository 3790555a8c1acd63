// Householder reflections in float64: what makes a matrix orthogonal. Included by isa.inl, once per ISA. Compilers know
// vectors of doubles and these three operations by themselves.

namespace seqcore::SEQCORE_ISA {
namespace {

constexpr std::int64_t kDoubles = W / 2;  // in a vector
constexpr std::int64_t kParts = kReflectLanes / kDoubles;
constexpr int kReflected = kRegisters >= 32 ? 4 : 2;  // columns at a time, for each load of v

// Columns begin anywhere, and such vectors given or returned by value would be a matter of ABIs.
using doubles __attribute__((vector_size(kDoubles * 8))) = double;
SEQCORE_INLINE void get(const double* p, doubles& v) { __builtin_memcpy(&v, p, sizeof v); }
SEQCORE_INLINE void put(const doubles& v, double* p) { __builtin_memcpy(p, &v, sizeof v); }

// Of N columns, for elements begin .. end: c -= s v if `update`, then s = c . w if `dot`. Element i is added to lane
// i % kReflectLanes, and of the lanes the upper half to the lower, until one is left.
template <int N, bool update, bool dot>
SEQCORE_INLINE void reflect_pass(double* c, std::ptrdiff_t column, const double* v, const double* w, std::int64_t begin,
                                 std::int64_t end, double (&s)[N]) {
  doubles sum[N][kParts] = {};
  for (std::int64_t i = begin; i < end; i += kReflectLanes)
    unrolled<kParts>([&](auto part) __attribute__((always_inline)) {
      const std::int64_t at = i + part.value * kDoubles;
      doubles from = {}, to = {};
      if constexpr (update) get(v + at, from);
      if constexpr (dot) get(w + at, to);
      unrolled<N>([&](auto n) __attribute__((always_inline)) {
        double* const p = c + n.value * column + at;
        doubles x;
        get(p, x);
        if constexpr (update) {
          x -= s[n.value] * from;
          put(x, p);
        }
        if constexpr (dot) sum[n.value][part.value] += x * to;
      });
    });
  if constexpr (dot)
    for (int n = 0; n < N; ++n) {
      double lane[kReflectLanes];
      for (std::int64_t part = 0; part < kParts; ++part) put(sum[n][part], lane + part * kDoubles);
      for (std::int64_t half = kReflectLanes / 2; half > 0; half /= 2)
        for (std::int64_t l = 0; l < half; ++l) lane[l] += lane[l + half];
      s[n] = lane[0];
    }
}

template <int N>
void reflect_columns(const ReflectArgs& a, double* c) {
  const auto from = [](std::int64_t row) { return row / kReflectLanes * kReflectLanes; };
  const std::int64_t step = a.first <= a.last ? 1 : -1;
  const double* v = a.v;
  double s[N];
  reflect_pass<N, false, true>(c, a.column, nullptr, v, from(a.first), a.rows, s);
  for (std::int64_t j = a.first; j != a.last; j += step, v += step * a.column)
    reflect_pass<N, true, true>(c, a.column, v, v + step * a.column, from(step > 0 ? j : j - 1), a.rows, s);
  reflect_pass<N, true, false>(c, a.column, v, nullptr, from(a.last), a.rows, s);
}

void reflect(const ReflectArgs& a) {
  std::int64_t k = 0;
  for (; k + kReflected <= a.columns; k += kReflected) reflect_columns<kReflected>(a, a.c + k * a.column);
  for (; k < a.columns; ++k) reflect_columns<1>(a, a.c + k * a.column);
}

double squared_norm(std::int64_t n, const double* x) {
  double s[1];
  reflect_pass<1, false, true>(const_cast<double*>(x), 0, nullptr, x, 0, n, s);
  return s[0];
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
