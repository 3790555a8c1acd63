// What the recurrent cells share: packing, the walk over steps, rows and groups of units, the gradient of the state, and
// activations that are known at compile time where it pays. Included by isa.inl, before the cells.
//
// Forward, a cell is one or two passes over its units in groups of a few vectors. A group's pre-activations are strips,
// products over the input, the state or both that share their packed columns; they go to L1, for all rows, and the cell's
// `finish` makes h, c and caches of them there.

namespace seqcore::SEQCORE_ISA {
namespace {

// -------------------------------------------------------------------------------------------------- activations
// An activation is a type where it is common enough to be inlined into a cell, else a value.

template <Activation a>
struct Fixed {
  static constexpr Activation value = a;
  explicit Fixed(Activation = a) {}
};
struct Chosen {
  Activation value;
  explicit Chosen(Activation a) : value(a) {}
};
using Linear = Fixed<Activation::linear>;

__attribute__((noinline)) vec activate_chosen(Activation a, vec x) { return activate(a, x); }
__attribute__((noinline)) vec slope_chosen(Activation a, vec cache) { return activation_gradient(a, cache); }
template <Activation a, class V>
SEQCORE_INLINE V apply(Fixed<a>, V x) {
  return activate(a, x);
}
SEQCORE_INLINE vec apply(Chosen a, vec x) { return activate_chosen(a.value, x); }
template <class V>
SEQCORE_INLINE twice<V> apply(Chosen a, twice<V> x) {
  return {apply(a, x.a), apply(a, x.b)};
}
template <Activation a, class V>
SEQCORE_INLINE V slope(Fixed<a>, V cache) {
  return activation_gradient(a, cache);
}
SEQCORE_INLINE vec slope(Chosen a, vec cache) { return slope_chosen(a.value, cache); }
template <class V>
SEQCORE_INLINE twice<V> slope(Chosen a, twice<V> cache) {
  return {slope(a, cache.a), slope(a, cache.b)};
}
// What a slot keeps of (pre-activation x, output y), and the output from what it keeps.
template <class A, class V>
SEQCORE_INLINE V kept(A a, V x, V y) {
  return needs_input(a.value) ? x : y;
}
template <class A, class V>
SEQCORE_INLINE V output(A a, V cache) {
  return needs_input(a.value) ? apply(a, cache) : cache;
}

// The instance of a function template over the two activations' types.
#define SEQCORE_BY_ACTIVATIONS(function, act, rec)                      \
  ((rec) == Activation::sigmoid && (act) == Activation::tanh            \
       ? &function<Fixed<Activation::tanh>, Fixed<Activation::sigmoid>> \
   : (rec) == Activation::sigmoid && (act) == Activation::relu          \
       ? &function<Fixed<Activation::relu>, Fixed<Activation::sigmoid>> \
       : &function<Chosen, Chosen>)

// f(j) over the vectors from `begin` to `end`.
template <class F>
SEQCORE_INLINE void each_vector(std::int64_t begin, std::int64_t end, F f) {
  for (std::int64_t j = begin; j < end; j += W) f(j);
}
template <class F>
SEQCORE_INLINE void each_vector(std::int64_t units, F f) {
  each_vector(0, units, f);
}

void copy_row(std::int64_t units, const float* from, float* to) {
  each_vector(units, [=](std::int64_t j) { store(to + j, load(from + j)); });
}

// ------------------------------------------------------------------------------------------------------ packing
// A group of n units: for each strip, whose columns are gates x n units, its bias, then the packed columns of W and of U.
// The last group has the units that are left, so that its gates lie side by side without a gap; with per_gate it is as
// wide as the others, so that each gate's panels are its own.

enum class Bias { input, recurrent, both };  // Keras's b[2][3H] of reset after; others have only the first row
struct Strip {
  int gate, gates;
  bool input, state;  // which of the two it sums over
  Bias bias;
};
struct Strips {
  int width;  // of a group, in vectors of units
  int count;
  Strip strip[3];
};
constexpr Strips gru_strips(int width) {
  return {width,
          3,
          {{0, 2, true, true, Bias::both}, {2, 1, true, false, Bias::input}, {2, 1, false, true, Bias::recurrent}}};
}
struct StripsOfPasses {
  Strips pass[2];
  constexpr const Strips* begin() const { return pass; }
  constexpr const Strips* end() const { return pass + (pass[1].count > 0 ? 2 : 1); }
};
constexpr StripsOfPasses kPasses[kCellKinds] = {
    {{{8, 1, {{0, 1, true, true, Bias::input}}}, {}}},
    {{{2, 1, {{0, 4, true, true, Bias::input}}}, {}}},
    {{gru_strips(W < 16 ? 4 : 2), {}}},
    {{{4, 1, {{0, 2, true, true, Bias::input}}}, {4, 1, {{2, 1, true, true, Bias::input}}}}},
};
// Words come so fast that two vectors would be two chains that wait for themselves.
constexpr StripsOfPasses kGruWords = {{gru_strips(4), {}}};
constexpr const StripsOfPasses& passes_of(CellKind kind, Precision precision) {
  const bool words = kind == CellKind::gru_reset_after && precision != Precision::float32;
  return words ? kGruWords : kPasses[static_cast<int>(kind)];
}
constexpr int kGroupColumns = 16 * W;  // at most
constexpr int kStripColumns = 8 * W;

// The sizes that a cell's packed weights follow from.
struct Geometry {
  std::int64_t input, units;
  bool per_gate;
  Precision precision;

  std::int64_t group_units(const Strips& strips, std::int64_t unit) const {
    return per_gate ? strips.width * W : least(strips.width * W, units - unit);
  }
  std::int64_t groups(const Strips& strips) const { return (units + strips.width * W - 1) / (strips.width * W); }
  std::int64_t input_size(const Strip& strip, std::int64_t columns) const {
    return strip.input ? packed_matrix_size(precision, input, columns) : 0;
  }
  std::int64_t state_size(const Strip& strip, std::int64_t columns) const {
    return strip.state ? packed_matrix_size(precision, units, columns) : 0;
  }
  std::int64_t group_size(const Strips& strips, std::int64_t n) const {
    std::int64_t size = 0;
    for (int i = 0; i < strips.count; ++i) {
      const std::int64_t columns = packed_columns(strips.strip[i].gates * n);
      size += columns + input_size(strips.strip[i], columns) + state_size(strips.strip[i], columns);
    }
    return size;
  }
  std::int64_t pass_size(const Strips& strips) const {
    const std::int64_t whole = groups(strips) - 1;
    return whole * group_size(strips, strips.width * W) +
           group_size(strips, group_units(strips, whole * strips.width * W));
  }
};

std::int64_t packed_cell_size(CellKind kind, std::int64_t input, std::int64_t units, bool per_gate,
                              Precision precision) {
  const Geometry geometry{input, units, per_gate, precision};
  std::int64_t size = 0;
  for (const Strips& strips : passes_of(kind, precision)) size += geometry.pass_size(strips);
  return size;
}

std::int64_t cell_shares(CellKind kind, std::int64_t units, bool backward, Precision precision) {
  const std::int64_t unit = backward ? kPanel : passes_of(kind, precision).pass[0].width * W;
  return (units + unit - 1) / unit;
}

// The columns of one strip and group, of a matrix with k rows of `row` floats: column c is gate c / n, unit + c % n.
void pack_strip(const float* from, std::int64_t row, std::int64_t k, const Strip& strip, std::int64_t unit,
                std::int64_t n, std::int64_t units, Packing packing, float* packed) {
  const std::int64_t columns = strip.gates * n, all = packed_columns(columns);
  float* const to = packed + words_at(packing.precision, all);
  from += strip.gate * units + unit;
  if (packing.precision == Precision::float32 && n % kPanel == 0) {
    for (std::int64_t c = 0; c < columns; c += kPanel)
      pack_panel(from + c / n * units + c % n, row, 1, k, units - unit - c % n, kPanel, to + c * k);
    return;
  }
  if (packing.precision == Precision::float32) {
    alignas(64) float gates[kStripColumns + W] = {};  // of a row, side by side
    for (std::int64_t i = 0; i < k; ++i, from += row) {
      for (std::int64_t g = 0; g < strip.gates; ++g)
        each_vector(least(n, units - unit), [&](std::int64_t j) {
          store(gates + g * n + j, load_upto(from + g * units + j, units - unit - j));
        });
      for (std::int64_t c = 0; c < all; c += kPanel) {
        const std::int64_t width = least(kPanel, all - c);
        each_vector(width, [&](std::int64_t j) { store(to + c * k + i * width + j, load(gates + c + j)); });
      }
    }
    return;
  }
  for (std::int64_t c = 0; c < columns; c += kPanel) {
    const std::int64_t width = least(kPanel, all - c);
    const float* column[kPanel];  // where each begins, or null: zeros
    for (std::int64_t j = 0; j < width; ++j) {
      const std::int64_t u = (c + j) % n;
      column[j] = c + j < columns && unit + u < units ? from + (c + j) / n * units + u : nullptr;
    }
    const auto at = [&](std::int64_t i, std::int64_t j) { return column[j] ? column[j][i * row] : 0.0f; };
    pack_words(packing, k, width, at, packed + c, packed + all + c, to + c * words(packing.precision, k));
  }
}

void pack_cell(CellKind kind, const CellWeights& w, bool per_gate, Packing packing, float* packed) {
  const std::int64_t row = cell_gates(kind) * w.units;
  const Geometry geometry{w.input, w.units, per_gate, packing.precision};
  for (const Strips& strips : passes_of(kind, packing.precision)) {
    const std::int64_t width = strips.width * W;
    const Stretch mine = stretch_of(geometry.groups(strips), packing);
    float* const pass = packed;
    packed += mine.begin * geometry.group_size(strips, width);
    for (std::int64_t group = mine.begin; group < mine.end; ++group) {
      const std::int64_t unit = group * width, n = geometry.group_units(strips, unit);
      for (int i = 0; i < strips.count; ++i) {
        const Strip& strip = strips.strip[i];
        const std::int64_t columns = packed_columns(strip.gates * n);
        for (std::int64_t c = 0; c < columns; ++c) {
          const std::int64_t at = unit + c % n;
          const float* b =
              w.b && c < strip.gates * n && at < w.units ? w.b + (strip.gate + c / n) * w.units + at : nullptr;
          *packed++ = !b                              ? 0.0f
                      : strip.bias == Bias::recurrent ? b[row]
                      : strip.bias == Bias::both      ? b[0] + b[row]
                                                      : b[0];
        }
        if (strip.input) pack_strip(w.w, row, w.input, strip, unit, n, w.units, packing, packed);
        packed += geometry.input_size(strip, columns);
        if (strip.state) pack_strip(w.u, row, w.units, strip, unit, n, w.units, packing, packed);
        packed += geometry.state_size(strip, columns);
      }
    }
    packed = pass + geometry.pass_size(strips);
  }
}

// The transposed recurrent weights, a product of depth H for each gate.
std::int64_t packed_cell_backward_size(CellKind kind, std::int64_t units) {
  return cell_gates(kind) * packed_product_size(units, units, Precision::float32);
}

void pack_cell_backward(CellKind kind, const CellWeights& w, Packing packing, float* packed) {
  const std::int64_t row = cell_gates(kind) * w.units;
  const std::int64_t one = packed_product_size(w.units, w.units, Precision::float32);
  for (int g = 0; g < cell_gates(kind); ++g)
    pack_product(w.u + g * w.units, 1, row, w.units, w.units, packing, packed + g * one);
}

constexpr bool is_whole(Activation act, Activation rec) { return is_rowwise(act) || is_rowwise(rec); }

// Slots of the whole sequence that no L2 holds: they are fetched while products are made.
template <class Args>
bool slots_are_far(const Args& a, std::int64_t slots) {
  return (a.t_end - a.t_begin) * a.batch * slots * pad(a.units) * 4 >= kFar;
}

SEQCORE_INLINE void sync(const Share& share) {
  if (share.sync) share.sync(share.context);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
