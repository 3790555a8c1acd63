// What the recurrent cells share: packing, the walk over steps and rows, pre-activations by panels, the gradient of the
// state, and activations that are known at compile time where it pays. Included by isa.inl, before the cells.
//
// A cell is two functions over its activations: `finish` (forward: pre-activations of some rows and units to h, c and
// caches) and its backward counterpart. Rows are taken in blocks of at most kRowBlock through all steps.

namespace seqcore::SEQCORE_ISA {
namespace {

// -------------------------------------------------------------------------------------------------- activations
// An activation is a type where it is common enough to be inlined into a cell, else a value.

template <Activation a>
struct Fixed {
  static constexpr Activation value = a;
};
struct Chosen {
  Activation value;
};
using Linear = Fixed<Activation::linear>;

__attribute__((noinline)) vec activate_chosen(Activation a, vec x) { return activate(a, x); }
__attribute__((noinline)) vec slope_chosen(Activation a, vec cache) { return activation_gradient(a, cache); }
template <Activation a>
SEQCORE_INLINE vec apply(Fixed<a>, vec x) {
  return activate(a, x);
}
SEQCORE_INLINE vec apply(Chosen a, vec x) { return activate_chosen(a.value, x); }
template <Activation a>
SEQCORE_INLINE vec slope(Fixed<a>, vec cache) {
  return activation_gradient(a, cache);
}
SEQCORE_INLINE vec slope(Chosen a, vec cache) { return slope_chosen(a.value, cache); }
// What a slot keeps of (pre-activation x, output y), and the output from what it keeps.
template <class A>
SEQCORE_INLINE vec kept(A a, vec x, vec y) {
  return needs_input(a.value) ? x : y;
}
template <class A>
SEQCORE_INLINE vec output(A a, vec cache) {
  return needs_input(a.value) ? apply(a, cache) : cache;
}

template <class F>
void with_activations(Activation act, Activation rec, F f) {
  using A = Activation;
  if (act == A::tanh && rec == A::sigmoid) return f(Fixed<A::tanh>{}, Fixed<A::sigmoid>{});
  if (act == A::relu && rec == A::sigmoid) return f(Fixed<A::relu>{}, Fixed<A::sigmoid>{});
  f(Chosen{act}, Chosen{rec});
}

// f(vector index j) over the vectors of `units`.
template <class F>
SEQCORE_INLINE void each_vector(std::int64_t units, F f) {
  for (std::int64_t j = 0; j < units; j += W) f(j);
}

void copy_row(std::int64_t units, const float* from, float* to) {
  each_vector(units, [=](std::int64_t j) { store(to + j, load(from + j)); });
}

// ------------------------------------------------------------------------------------------------------ packing
// A group of G gates: panels of U vectors of units, [accumulators][U][W] of bias, then [I + H][G][U][W].

std::int64_t packed_gates_size(std::int64_t gates, std::int64_t accumulators, std::int64_t input, std::int64_t units) {
  return vectors(units) * W * ((input + units) * gates + accumulators);
}

// The gates first .. first + gates - 1 of W, U and b. With `split` the last has a second bias, the recurrent half's.
float* pack_gates(const CellWeights& w, int cell, int first, int gates, int panel, bool split, float* packed) {
  const std::int64_t row = cell * w.units;
  for (std::int64_t v = 0; v < vectors(w.units); v += panel) {
    const std::int64_t width = least(panel, vectors(w.units) - v) * W;
    const std::int64_t columns = w.units - v * W;
    const auto pack = [&](const float* from, std::int64_t k) {
      for (int g = 0; g < gates; ++g)
        pack_panel(from + (first + g) * w.units + v * W, row, 1, k, columns, width, gates * width, packed + g * width);
      packed += k * gates * width;
    };
    // Keras's b[2][3H] of reset after: z and r take the sum of both rows, as the two are added in any case.
    for (int g = 0; g < gates + (split ? 1 : 0); ++g) {
      const int gate = first + (g < gates ? g : gates - 1);
      for (std::int64_t j = 0; j < width; j += W) {
        vec b = zero();
        if (w.b && columns > j) {
          const float* at = w.b + gate * w.units + v * W + j;
          const float* recurrent = at + row;
          b = g == gates ? load_upto(recurrent, columns - j) : load_upto(at, columns - j);
          if (split && g < gates - 1) b = add(b, load_upto(recurrent, columns - j));
        }
        store(packed, b);
        packed += W;
      }
    }
    pack(w.w, w.input);
    pack(w.u, w.units);
  }
  return packed;
}

constexpr int kPanel[kCellKinds] = {4, 1, 1, 2};  // vectors of units in a panel; reset before: its candidate has 4

std::int64_t packed_cell_size(CellKind kind, std::int64_t input, std::int64_t units) {
  const int gates = cell_gates(kind);
  return packed_gates_size(gates, gates + (kind == CellKind::gru_reset_after ? 1 : 0), input, units);
}

void pack_cell(CellKind kind, const CellWeights& weights, float* packed) {
  const int gates = cell_gates(kind);
  const int panel = kPanel[static_cast<int>(kind)];
  if (kind == CellKind::gru_reset_before) {
    packed = pack_gates(weights, gates, 0, 2, panel, false, packed);
    pack_gates(weights, gates, 2, 1, 4, false, packed);
  } else {
    pack_gates(weights, gates, 0, gates, panel, kind == CellKind::gru_reset_after, packed);
  }
}

// The transposed recurrent weights as products of depth G*H (reset before: 2H, then H for the candidate).
std::int64_t packed_cell_backward_size(CellKind kind, std::int64_t units) {
  return packed_product_size(cell_gates(kind) * units, units);
}

void pack_cell_backward(CellKind kind, const CellWeights& weights, float* packed) {
  const std::int64_t h = weights.units;
  const std::int64_t row = cell_gates(kind) * h;
  if (kind == CellKind::gru_reset_before) {
    pack_product(weights.u, 1, row, 2 * h, h, packed);
    pack_product(weights.u + 2 * h, 1, row, h, h, packed + packed_product_size(2 * h, h));
  } else {
    pack_product(weights.u, 1, row, row, h, packed);
  }
}

// ------------------------------------------------------------------------------------------------------- forward

// With so few rows a step is bound by reading its weights. Then x's half of as many steps as make this many rows is made at
// once, and the chains go on from there: W is read once a stretch, not once a step.
constexpr std::int64_t kHoistRows = 24;
constexpr std::int64_t kHoistBelow = 4;   // rows
constexpr std::int64_t kHoistInput = 32;  // features

// One step of one block of rows. Pointers are at the block's first row; rows lists the valid ones, counted from there.
struct Step {
  std::int64_t units, stride, slots, m;  // stride = pad(units)
  std::int32_t rows[kRowBlock];
  std::ptrdiff_t x_offset[kRowBlock], h_offset[kRowBlock];
  Operand x, state;  // of the product; state is h, or h scaled per gate
  const float* h;
  float* h_next;
  const float* c;
  float* c_next;
  float* gates;        // or null
  bool gated;          // gates have operands of their own
  float* hoisted;      // x's half of this stretch of steps, [panel][kHoistRows][accumulators][U][W], or null
  std::int64_t ahead;  // steps of the stretch that starts here, else 0
  std::int64_t past;   // steps of the stretch that lie before this one
  std::ptrdiff_t ahead_offset[kHoistRows];
  const float* scale;  // recurrent dropout [G][..][stride], or null
  std::ptrdiff_t scale_gate;

  float* slot(std::int64_t row, int s) const { return gates + (row * slots + s) * stride; }
};

// Floats of scratch: [G] scaled states, [4] whole rows of pre-activations, [2] a cell's own, each [rows][pad(units)]; then
// what is hoisted.
constexpr int kForwardPlanes = 10;
std::int64_t forward_scratch(CellKind, std::int64_t rows, std::int64_t units) {
  return (kForwardPlanes * least(rows, kRowBlock) + 4 * kHoistRows) * pad(units);
}

// body(step, plane): plane(i) is the i-th of the six planes of scratch that a cell may use.
template <class F>
void each_step(const CellForwardArgs& a, CellKind kind, F body) {
  const std::int64_t stride = pad(a.units);
  split_evenly(a.row_end - a.row_begin, kRowBlock, [&](std::int64_t first, std::int64_t count) {
    const std::int64_t row0 = a.row_begin + first;
    const int gates = cell_gates(kind);
    const auto plane = [&](int i) { return a.scratch + (4 + i) * count * stride; };
    Step s{};
    s.units = a.units;
    s.stride = stride;
    s.slots = cell_slots(kind);
    s.gated = a.x_gate != 0 || a.recurrent_scale;
    s.scale = a.recurrent_scale ? a.recurrent_scale + row0 * stride : nullptr;
    s.scale_gate = a.batch * stride;
    const bool hoist = count <= kHoistBelow && a.input >= kHoistInput && !a.mask && !s.gated;
    const std::int64_t stretch = hoist ? kHoistRows / count : 1;
    if (stretch > 1 && a.t_end - a.t_begin > 1) s.hoisted = a.scratch + kForwardPlanes * count * stride;
    for (std::int64_t t = a.t_begin; t < a.t_end; ++t) {
      s.past = (t - a.t_begin) % stretch;
      s.ahead = s.past == 0 ? least(stretch, a.t_end - t) : 0;
      s.h = a.h + (t % a.h_slots * a.batch + row0) * stride;
      s.h_next = a.h + ((t + 1) % a.h_slots * a.batch + row0) * stride;
      if (a.c) {
        s.c = a.c + (t % a.c_slots * a.batch + row0) * stride;
        s.c_next = a.c + ((t + 1) % a.c_slots * a.batch + row0) * stride;
      }
      if (a.gates) s.gates = a.gates + (t * a.batch + row0) * s.slots * stride;
      if (t == a.t_begin || a.mask) {
        s.m = 0;
        for (std::int64_t r = 0; r < count; ++r) {
          if (a.mask && !a.mask[t * a.mask_step + row0 + r]) {
            copy_row(a.units, s.h + r * stride, s.h_next + r * stride);
            if (a.c && s.c != s.c_next) copy_row(a.units, s.c + r * stride, s.c_next + r * stride);
            continue;
          }
          s.rows[s.m] = static_cast<std::int32_t>(r);
          s.x_offset[s.m] = r * a.x.row;
          s.h_offset[s.m++] = r * stride;
        }
      }
      s.x = {a.x.data + t * a.x.step + row0 * a.x.row, s.x_offset, 1, a.x_gate, a.input};
      s.state = {s.h, s.h_offset, 1, 0, a.units};
      if (s.hoisted && s.ahead)
        for (std::int64_t i = 0; i < s.ahead * count; ++i)
          s.ahead_offset[i] = i / count * a.x.step + i % count * a.x.row;
      if (s.scale) {
        for (int g = 0; g < gates; ++g)
          for (std::int64_t i = 0; i < s.m; ++i) {
            const std::ptrdiff_t at = s.h_offset[i];
            each_vector(a.units, [&](std::int64_t j) {
              store(a.scratch + g * count * stride + at + j,
                    mul(load(s.h + at + j), load(s.scale + g * s.scale_gate + at + j)));
            });
          }
        s.state.base = a.scratch;
        s.state.gate = count * stride;
      }
      if (s.m > 0) body(s, plane);
    }
  });
}

// Pre-activations of some valid rows (first .. first + rows of the list) and units (unit .. unit + width).
struct Block {
  float* data;
  std::int64_t first, rows, unit, width;
  std::ptrdiff_t row, gate;
  float* at(std::int64_t i, int g, std::int64_t j) const { return data + i * row + g * gate + j; }
};

// Pre-activations of G gates of all valid rows, by register tiles, each handed to finish(Block) while it is in L1.
// With `whole` (for row-wise activations) they are all kept there, [gate][row][stride], and finish is called once.
template <int G, int Panel, bool Split, bool Gated, class F>
void pre_activations(const Step& s, const Operand& x, const Operand& state, const float* packed, float* whole,
                     float* hoisted, F finish) {
  constexpr int A = G + (Split ? 1 : 0);
  alignas(64) float chains[kTileFloats];
  Tile t{};
  t.segments = 2;
  t.a[0] = x;
  t.a[1] = state;
  if (hoisted) t.a[0].k = 0;
  const float* const weights = packed;
  for (std::int64_t unit = 0; unit < s.units; unit += Panel * W)
    with_count<Panel>(vectors(s.units - unit), [&](auto u) {
      constexpr int U = decltype(u)::value;
      t.init = packed;
      t.w = packed + A * U * W;
      t.w_step = G * U * W;
      packed = t.w + (x.k + state.k) * G * U * W;
      if (hoisted) {
        Tile ahead = t;
        ahead.a[0] = {x.base, s.ahead_offset, 1, 0, x.k};
        ahead.a[1].k = 0;
        ahead.init_row = 0;
        ahead.out_row = A * U * W;
        ahead.out_gate = U * W;
        split_evenly(s.ahead * s.m, tile_rows(A * U), [&](std::int64_t first, std::int64_t rows) {
          ahead.out = hoisted + first * A * U * W;
          run_tile<G, U, Split, false>(rows, ahead, first);
        });
        t.w += x.k * G * U * W;
        t.init_row = A * U * W;
      }
      const bool last = unit + U * W >= s.units;
      const std::int64_t size = (A + (x.k + state.k) * G) * U * W;
      std::int64_t tiles = 0;
      const float* const start = hoisted ? hoisted + s.past * s.m * A * U * W : t.init;
      split_evenly(s.m, tile_rows(A * U), [&](std::int64_t first, std::int64_t rows) {
        t.init = start + first * t.init_row;
        look_ahead(t, last ? weights : packed, size, tiles++, x.k + state.k);
        t.out = whole ? whole + first * s.stride + unit : chains;
        t.out_row = whole ? s.stride : U * W;
        t.out_gate = whole ? s.m * s.stride : rows * U * W;
        run_tile<G, U, Split, Gated>(rows, t, first);
        if (!whole) finish(Block{chains, first, rows, unit, U * W, t.out_row, t.out_gate});
      });
      if (hoisted) hoisted += kHoistRows * A * U * W;
    });
  if (whole) finish(Block{whole, 0, s.m, 0, vectors(s.units) * W, s.stride, s.m * s.stride});
}

template <int G, int Panel, bool Split, class F>
void pre_activations(const Step& s, const float* packed, float* whole, F finish) {
  if (s.gated)
    pre_activations<G, Panel, Split, true>(s, s.x, s.state, packed, whole, nullptr, finish);
  else
    pre_activations<G, Panel, Split, false>(s, s.x, s.state, packed, whole, s.hoisted, finish);
}

// Row-wise path: gate g of whole rows through its activation, in place, and what the slot keeps of it into the cache.
void settle(const Step& s, const Block& z, int g, Activation a) {
  for (std::int64_t i = 0; i < z.rows; ++i) {
    float* row = z.at(i, g, 0);
    if (s.gates && needs_input(a)) copy_row(s.units, row, s.slot(s.rows[i], g));
    activate(a, 1, s.units, row, 0, row, 0);
    if (s.gates && !needs_input(a)) copy_row(s.units, row, s.slot(s.rows[i], g));
  }
}

// ------------------------------------------------------------------------------------------------------ backward

struct BackwardStep {
  std::int64_t units, stride, slots, m;
  std::int32_t rows[kRowBlock];
  std::ptrdiff_t dz_offset[kRowBlock];
  float* gates;
  const float* h;       // before the step
  const float* c;       // before the step
  const float* c_next;  // after it
  float* dh;
  float* dc;
  const float* scale;
  std::ptrdiff_t scale_gate;
  float* scratch;  // [5][stride] for one row, then [rows][stride]

  float* slot(std::int64_t row, int s) const { return gates + (row * slots + s) * stride; }
  float* spare(int i) const { return scratch + i * stride; }
};

constexpr int kSpareRows = 6;
std::int64_t backward_scratch(CellKind, std::int64_t rows, std::int64_t units) {
  return (kSpareRows + least(rows, kRowBlock)) * pad(units);
}

// Walks back in time; dh holds dy of the step too when body(step) is called.
template <class F>
void each_step_back(const CellBackwardArgs& a, CellKind kind, F body) {
  const std::int64_t stride = pad(a.units);
  split_evenly(a.row_end - a.row_begin, kRowBlock, [&](std::int64_t first, std::int64_t count) {
    const std::int64_t row0 = a.row_begin + first;
    BackwardStep s{};
    s.units = a.units;
    s.stride = stride;
    s.slots = cell_slots(kind);
    s.dh = a.dh + row0 * stride;
    s.dc = a.dc ? a.dc + row0 * stride : nullptr;
    s.scale = a.recurrent_scale ? a.recurrent_scale + row0 * stride : nullptr;
    s.scale_gate = a.batch * stride;
    s.scratch = a.scratch;
    for (std::int64_t t = a.t_end - 1; t >= a.t_begin; --t) {
      s.gates = a.gates + (t * a.batch + row0) * s.slots * stride;
      s.h = a.h + (t * a.batch + row0) * stride;
      if (a.c) {
        s.c = a.c + (t * a.batch + row0) * stride;
        s.c_next = s.c + a.batch * stride;
      }
      s.m = 0;
      for (std::int64_t r = 0; r < count; ++r) {
        const bool valid = !a.mask || a.mask[t * a.mask_step + row0 + r];
        if (a.dy.data && (valid || !a.zero_output_for_mask)) {
          const float* dy = a.dy.data + t * a.dy.step + (row0 + r) * a.dy.row;
          float* dh = s.dh + r * stride;
          each_vector(a.units,
                      [&](std::int64_t j) { store(dh + j, add(load(dh + j), load_upto(dy + j, a.units - j))); });
        }
        if (!valid) continue;
        s.rows[s.m] = static_cast<std::int32_t>(r);
        s.dz_offset[s.m++] = r * s.slots * stride;
      }
      if (s.m > 0) body(s);
    }
  });
}

// out = chain from 0 over the gates' slots, units in order, of dz * Uᵀ; with recurrent dropout the sum over gates, in
// order, of scale * (the gate's own chain). `direct`: plus what out holds, added last. out: [rows][stride].
template <int G>
void state_gradient(const BackwardStep& s, const float* packed, const int (&slots)[G], int first_gate, bool direct,
                    float* out) {
  alignas(64) float chains[kTileFloats], sum[kTileFloats];
  Operand dz[G];
  for (int g = 0; g < G; ++g) dz[g] = {s.gates + slots[g] * s.stride, s.dz_offset, 1, 0, s.units};
  Tile t{};
  t.init = kZeros;
  const float* const weights = packed;
  for (std::int64_t unit = 0; unit < s.units; unit += 4 * W)
    with_count<4>(vectors(s.units - unit), [&](auto u) {
      constexpr int U = decltype(u)::value;
      t.w_step = t.out_row = U * W;
      const std::int64_t depth = G * s.units;
      const float* const next = unit + U * W < s.units ? packed + depth * U * W : weights;
      std::int64_t tiles = 0;
      split_evenly(s.m, tile_rows(U), [&](std::int64_t first, std::int64_t rows) {
        t.w = packed;
        look_ahead(t, next, depth * U * W, tiles++, depth);
        if (!s.scale) {
          t.segments = G;
          for (int g = 0; g < G; ++g) t.a[g] = dz[g];
          t.out = sum;
          run_tile<1, U, false, false>(rows, t, first);
        } else {
          t.segments = 1;
          t.out = chains;
          for (int g = 0; g < G; ++g, t.w += s.units * U * W) {
            t.a[0] = dz[g];
            run_tile<1, U, false, false>(rows, t, first);
            for (std::int64_t i = 0; i < rows; ++i)
              for (std::int64_t j = i * U * W; j < (i + 1) * U * W; j += W) {
                const float* scale = s.scale + (first_gate + g) * s.scale_gate + s.rows[first + i] * s.stride + unit;
                const vec v = mul(load(scale + (j - i * U * W)), load(chains + j));
                store(sum + j, g == 0 ? v : add(load(sum + j), v));
              }
          }
        }
        for (std::int64_t i = 0; i < rows; ++i)
          for (std::int64_t j = 0; j < U * W; j += W) {
            float* to = out + s.rows[first + i] * s.stride + unit + j;
            const vec v = load(sum + i * U * W + j);
            store(to, direct ? add(v, load(to)) : v);
          }
      });
      packed += G * s.units * U * W;
    });
}

// Row-wise path. unsettle: the slot's cache to spare row i, the activated values to the slot. resettle: the slot's
// gradient through the activation, whose cache is spare row i.
void unsettle(const BackwardStep& s, std::int64_t row, int slot, int i, Activation a) {
  float* at = s.slot(row, slot);
  copy_row(s.units, at, s.spare(i));
  if (needs_input(a)) activate(a, 1, s.units, at, 0, at, 0);
}
void resettle(const BackwardStep& s, std::int64_t row, int slot, int i, Activation a) {
  float* at = s.slot(row, slot);
  activate_backward(a, 1, s.units, s.spare(i), 0, at, 0, at, 0);
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
