// Reduced precision: products in bfloat16 and int8 are exactly what kernels.h says, computed here in plain C++; int8 is the
// same bits on every ISA; cells do not depend on how rows and steps are split, and stay near float32.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/flush_guard.h"
#include "check.h"
#include "guarded.h"
#include "kernels/dispatch.h"

using namespace seqcore;

namespace {

const bool before_main = kernels().dot.int8 != nullptr;  // as a program's own globals might

std::mt19937 generator(13);
std::int64_t pick(std::int64_t lo, std::int64_t hi) {
  return std::uniform_int_distribution<std::int64_t>(lo, hi)(generator);
}
float value(float size) { return std::uniform_real_distribution<float>(-size, size)(generator); }
bool coin() { return pick(0, 1) == 1; }
std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// n floats that end where memory ends; NaN until written.
struct Buffer : check::Guarded {
  explicit Buffer(std::int64_t n) : Guarded(n), size(n) {
    std::fill(data(), data() + n, std::numeric_limits<float>::quiet_NaN());
  }
  Buffer(std::int64_t n, float range) : Buffer(n) {  // in [-range, range]
    for (std::int64_t i = 0; i < n; ++i) data()[i] = value(range);
  }
  std::int64_t size;
};

float bfloat16(float x) {
  std::uint32_t u;
  std::memcpy(&u, &x, 4);
  u = (u + 0x7FFF + (u >> 16 & 1)) & 0xFFFF0000u;
  std::memcpy(&x, &u, 4);
  return x;
}

// k elements, `step` apart, as int8; returns what a unit is worth.
float quantize(const float* x, std::int64_t k, std::int64_t step, std::vector<int>& q) {
  float largest = 0.0f;
  for (std::int64_t i = 0; i < k; ++i) largest = std::max(largest, std::fabs(x[i * step]));
  const float per_unit = largest > 0x1p-100f ? 127.0f / largest : 0.0f;
  q.resize(at(k));
  for (std::int64_t i = 0; i < k; ++i) q[at(i)] = static_cast<int>(std::nearbyint(x[i * step] * per_unit));
  return largest > 0x1p-100f ? largest / 127.0f : 0.0f;
}

void check_product() {
  const std::int64_t m = pick(1, coin() ? 8 : 150), k = pick(1, coin() ? 9 : 70), n = pick(1, coin() ? 5 : 90);
  const Precision precision = coin() ? Precision::int8 : Precision::bfloat16;
  const bool transposed = coin();
  Buffer a(m * k, 2.0f), w(k * n, 0.5f), bias(n, 1.0f);
  if (coin()) std::fill_n(a.data(), k, 0.0f);
  if (coin())
    for (std::int64_t i = 0; i < k; ++i) w[transposed ? i : i * n] = 0.0f;
  std::vector<float> expected(at(m * n)), in_tiles(at(m * n));
  std::vector<int> qa, qw;
  for (std::int64_t r = 0; r < m; ++r)
    for (std::int64_t j = 0; j < n; ++j) {
      const float* column = transposed ? &w[j * k] : &w[j];
      const std::int64_t step = transposed ? 1 : n;
      float chain = bias[j];
      if (precision == Precision::int8) {
        const float sa = quantize(&a[r * k], k, 1, qa), sw = quantize(column, k, step, qw);
        std::int32_t sum = 0;
        for (std::int64_t i = 0; i < k; ++i) sum += qa[at(i)] * qw[at(i)];
        chain = std::fma(sa * sw, static_cast<float>(sum), chain);
      } else {
        for (std::int64_t i = 0; i < k; i += 2) {
          if (i + 1 < k) chain = std::fma(bfloat16(a[r * k + i + 1]), bfloat16(column[(i + 1) * step]), chain);
          chain = std::fma(bfloat16(a[r * k + i]), bfloat16(column[i * step]), chain);
        }
      }
      expected[at(r * n + j)] = chain;
      // AMX: blocks of 32, in each the even and the odd elements a chain of their own.
      float sum = bias[j];
      for (std::int64_t block = 0; block < k; block += 32) {
        float half[2] = {0.0f, 0.0f};
        for (std::int64_t i = block; i < std::min(k, block + 32); ++i)
          half[i % 2] = std::fma(bfloat16(a[r * k + i]), bfloat16(column[i * step]), half[i % 2]);
        sum += half[0] + half[1];
      }
      in_tiles[at(r * n + j)] = sum;
    }
  for (const char* isa : available_isas()) {
    const Kernels& kernels = *kernels_for(isa);
    const Packing packing{precision, kernels.dot.byte_offset};
    Buffer packed(kernels.packed_product_size(k, n, precision));
    kernels.pack_product(w.data(), transposed ? 1 : n, transposed ? k : 1, k, n, packing, packed.data());
    Buffer scratch(kernels.product_scratch(k, m, precision));
    for (const bool whole : {true, false}) {
      Buffer c(m * n);
      ProductArgs p{};
      p.batch = m;
      p.segments = 1;
      p.a[0] = {{a.data(), 0, k}, k, packed.data()};
      p.n = n;
      p.bias = bias.data();
      p.init = Init::bias;
      p.c = {c.data(), 0, n};
      p.activation = Activation::linear;
      p.precision = precision;
      p.dot = &kernels.dot;
      p.scratch = scratch.data();
      const std::int64_t rows = whole ? m : 5, columns = whole ? n : 2 * kernels.width;
      for (p.row_begin = 0; p.row_begin < m; p.row_begin += rows)
        for (p.n_begin = 0; p.n_begin < n; p.n_begin += columns) {
          p.m = std::min(rows, m - p.row_begin);
          p.n_end = std::min(n, p.n_begin + columns);
          kernels.product(p);
        }
      // vdpbf16ps may round once where two fused multiply-adds round twice.
      const bool loose = precision == Precision::bfloat16 && kernels.dot.bfloat16_by == std::string("avx512_bf16");
      const bool tiles = precision == Precision::bfloat16 && kernels.dot.bfloat16_by == std::string("amx_bf16");
      const std::vector<float>& exact = tiles ? in_tiles : expected;
      bool right = loose || !std::memcmp(c.data(), exact.data(), exact.size() * sizeof(float));
      for (std::int64_t i = 0; i < m * n && loose; ++i)
        right = right && std::fabs(c[i] - expected[at(i)]) < 1e-5f * (1.0f + static_cast<float>(k));
      CHECK_THAT(right, std::string(isa) + ": product " + std::to_string(static_cast<int>(precision)) + " m" +
                            std::to_string(m) + " k" + std::to_string(k) + " n" + std::to_string(n));
    }
  }
}

// What is not finite in a row of inputs makes the whole row NaN, and no other.
void check_not_finite() {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const char* isa : available_isas())
      for (const Precision precision : {Precision::bfloat16, Precision::int8}) {
        const Kernels& kernels = *kernels_for(isa);
        Buffer a(3 * 21, 1.0f), w(21 * 4, 1.0f), c(3 * 4);
        a[21 + 20] = bad;
        Buffer packed(kernels.packed_product_size(21, 4, precision)),
            scratch(kernels.product_scratch(21, 3, precision));
        kernels.pack_product(w.data(), 4, 1, 21, 4, {precision, kernels.dot.byte_offset}, packed.data());
        ProductArgs p{};
        p.batch = p.m = 3;
        p.segments = 1;
        p.a[0] = {{a.data(), 0, 21}, 21, packed.data()};
        p.n = p.n_end = 4;
        p.init = Init::zero;
        p.c = {c.data(), 0, 4};
        p.activation = Activation::linear;
        p.precision = precision;
        p.dot = &kernels.dot;
        p.scratch = scratch.data();
        kernels.product(p);
        for (std::int64_t i = 0; i < 12; ++i) CHECK(std::isfinite(c[i]) == (i / 4 != 1));
      }
}

// Parts pack together what one call packs.
void check_parts() {
  const auto precision = static_cast<Precision>(pick(0, 2));
  const auto kind = static_cast<CellKind>(pick(0, kCellKinds - 1));
  const std::int64_t input = pick(1, 40), units = pick(1, coin() ? 20 : 150), gates = cell_gates(kind);
  const int parts = static_cast<int>(pick(2, 9));
  Buffer w(input * gates * units, 1.0f), u(units * gates * units, 1.0f), b(2 * gates * units, 1.0f);
  const CellWeights weights{input, units, w.data(), u.data(), b.data()};
  for (const char* isa : available_isas()) {
    const Kernels* const k = kernels_for(isa);
    const auto same = [&](std::int64_t size, auto pack) {
      std::vector<float> whole(at(size), 0.0f), pieces(at(size), 0.0f);
      Packing how{precision, k->dot.byte_offset};
      pack(how, whole.data());
      for (how.parts = parts; how.part < parts; ++how.part) pack(how, pieces.data());
      return std::memcmp(whole.data(), pieces.data(), whole.size() * sizeof(float)) == 0;
    };
    for (const bool per_gate : {false, true}) {
      if (per_gate && precision != Precision::float32) continue;
      CHECK(same(k->packed_cell_size(kind, input, units, per_gate, precision),
                 [&](Packing how, float* to) { k->pack_cell(kind, weights, per_gate, how, to); }));
    }
    CHECK(same(k->packed_product_size(input, gates * units, precision), [&](Packing how, float* to) {
      k->pack_product(w.data(), gates * units, 1, input, gates * units, how, to);
    }));
    if (precision == Precision::float32)
      CHECK(same(k->packed_cell_backward_size(kind, units),
                 [&](Packing how, float* to) { k->pack_cell_backward(kind, weights, how, to); }));
  }
}

struct Cell {
  CellKind kind;
  std::int64_t batch, steps, input, units;
  Activation act, rec;
  Buffer x, h0, c0, w, u, b;
};

// h and c after every step, one row after the other.
std::vector<float> run(Cell& p, const Kernels& kernels, Precision precision, std::int64_t rows, std::int64_t steps) {
  const std::int64_t stride = pad(p.units);
  const CellWeights weights{p.input, p.units, p.w.data(), p.u.data(), p.b.data()};
  Buffer packed(kernels.packed_cell_size(p.kind, p.input, p.units, false, precision));
  kernels.pack_cell(p.kind, weights, false, {precision, kernels.dot.byte_offset}, packed.data());
  Buffer h((p.steps + 1) * p.batch * stride), c((p.steps + 1) * p.batch * stride);
  for (std::int64_t r = 0; r < p.batch; ++r)
    for (std::int64_t j = 0; j < p.units; ++j) {
      h[r * stride + j] = p.h0[r * p.units + j];
      c[r * stride + j] = p.c0[r * p.units + j];
    }
  CellForwardArgs f{};
  f.batch = p.batch;
  f.input = p.input;
  f.units = p.units;
  f.activation = p.act;
  f.recurrent_activation = p.rec;
  f.packed = packed.data();
  f.precision = precision;
  f.dot = &kernels.dot;
  f.x = {p.x.data(), p.batch * p.input, p.input};
  f.h = h.data();
  f.h_slots = p.steps + 1;
  f.c = p.kind == CellKind::lstm ? c.data() : nullptr;
  f.c_slots = p.steps + 1;
  for (f.row_begin = 0; f.row_begin < p.batch; f.row_begin += rows)
    for (f.t_begin = 0; f.t_begin < p.steps; f.t_begin += steps) {
      f.row_end = std::min(p.batch, f.row_begin + rows);
      f.t_end = std::min(p.steps, f.t_begin + steps);
      Buffer scratch(kernels.forward_scratch(p.kind, f));
      f.scratch = scratch.data();
      kernels.cell_forward[static_cast<int>(p.kind)](f);
    }
  std::vector<float> all;
  for (Buffer* state : {&h, &c})
    for (std::int64_t r = 0; r < (p.steps + 1) * p.batch && (state == &h || f.c); ++r)
      all.insert(all.end(), state->data() + r * stride, state->data() + r * stride + p.units);
  return all;
}

// `some`: so many units; or 0, any number.
void check_cell(CellKind kind, std::int64_t some = 0) {
  const bool few = coin();
  const std::int64_t batch = few ? pick(1, 3) : pick(1, 20), steps = few ? pick(1, 30) : pick(1, 5);
  const std::int64_t input = few && coin() ? pick(32, 45) : pick(1, 20),
                     units = some > 0 ? some : pick(1, coin() ? 12 : 75);
  const std::int64_t gates = cell_gates(kind);
  const float size = 1.0f / std::sqrt(static_cast<float>(input + units));
  const bool rowwise = pick(0, 5) == 0;
  Cell p{kind,
         batch,
         steps,
         input,
         units,
         rowwise  ? Activation::softmax
         : coin() ? Activation::tanh
                  : Activation::softsign,
         Activation::sigmoid,
         Buffer(steps * batch * input, 1.0f),
         Buffer(batch * units, 1.0f),
         Buffer(batch * units, 1.0f),
         Buffer(input * gates * units, size),
         Buffer(units * gates * units, size),
         Buffer(2 * gates * units, 0.5f)};
  const std::vector<float> exact = run(p, *kernels_for("scalar"), Precision::float32, batch, steps);
  for (const Precision precision : {Precision::bfloat16, Precision::int8}) {
    const std::string name = "cell " + std::to_string(static_cast<int>(kind)) + " precision " +
                             std::to_string(static_cast<int>(precision)) + " B" + std::to_string(batch) + " T" +
                             std::to_string(steps) + " I" + std::to_string(input) + " H" + std::to_string(units);
    std::vector<float> first;
    for (const char* isa : available_isas()) {
      const Kernels& kernels = *kernels_for(isa);
      const std::vector<float> got = run(p, kernels, precision, batch, steps);
      const auto same = [&](const std::vector<float>& other) {
        return !std::memcmp(got.data(), other.data(), got.size() * sizeof(float));
      };
      double worst = 0;
      for (std::size_t i = 0; i < got.size(); ++i)
        worst = std::max(worst, std::isnan(got[i]) ? 1e9 : std::fabs(static_cast<double>(got[i] - exact[i])));
      CHECK_THAT(worst < 0.06, name + ": off by " + std::to_string(worst));
      CHECK_THAT(same(run(p, kernels, precision, 1, steps)), name + ": other bits by rows, " + isa);
      CHECK_THAT(same(run(p, kernels, precision, batch, 1)), name + ": other bits by steps, " + isa);
      if (first.empty()) first = got;
      if (precision == Precision::int8) CHECK_THAT(same(first), name + ": other bits on " + isa);
    }
  }
}

}  // namespace

int main() {
  CHECK(before_main);
  const FlushGuard flush;
  for (const bool allowed : {false, true}) {  // what computes them there may change, but no bit
    if (allowed) allow_tiles();
    for (int i = 0; i < 120; ++i) check_product();
    check_not_finite();
    for (int kind = 0; kind < kCellKinds; ++kind) {
      for (int i = 0; i < 30; ++i) check_cell(static_cast<CellKind>(kind));
      for (std::int64_t units = 1; units <= 180; units += units < 66 ? 1 : 16)  // a last group of every size
        check_cell(static_cast<CellKind>(kind), units);
    }
  }
  for (int i = 0; i < 60; ++i) check_parts();
  return check::report();
}
