// Products and weight gradients: every ISA gives exactly the chain of ARCHITECTURE.md, computed here with std::fma;
// nothing is read beyond a row's true columns or written beyond the call's own elements.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "guarded.h"
#include "kernels/dispatch.h"

using namespace seqcore;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
std::mt19937 generator(7);
std::int64_t pick(std::int64_t lo, std::int64_t hi) {
  return std::uniform_int_distribution<std::int64_t>(lo, hi)(generator);
}
float value() { return std::uniform_real_distribution<float>(-1.0f, 1.0f)(generator); }
bool coin() { return pick(0, 1) == 1; }
bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// n floats that end where memory ends; 64-byte aligned if n is a multiple of 16.
struct Values : check::Guarded {
  explicit Values(std::int64_t n) : Guarded(n) {
    for (std::int64_t i = 0; i < n; ++i) data()[i] = value();
  }
};
struct Unset : check::Guarded {
  explicit Unset(std::int64_t n) : Guarded(n) { std::fill(data(), data() + n, kNan); }
};

std::vector<std::int32_t> some_rows(std::int64_t begin, std::int64_t m) {
  std::vector<std::int32_t> rows;
  for (std::int64_t r = begin; r < begin + m; ++r)
    if (pick(0, 3) > 0) rows.push_back(static_cast<std::int32_t>(r));
  return rows;
}

// `deep`: weights that are fetched ahead, and sums that may take two passes.
void check_product(bool deep) {
  const std::int64_t batch = pick(1, 9), steps = pick(1, deep ? 9 : 40), total = batch * steps;
  const std::int64_t n = deep ? pick(60, 140) : pick(1, coin() ? 90 : 8);
  const std::int64_t begin = pick(0, total - 1), m = pick(1, total - begin);
  const bool listed = coin(), transposed = coin(), with_scale = pick(0, 3) == 0, backwards = coin();
  const auto list = some_rows(begin, m);
  if (listed && list.empty()) return;

  ProductArgs p{};
  p.batch = batch;
  p.row_begin = begin;
  p.m = listed ? static_cast<std::int64_t>(list.size()) : m;
  p.rows = listed ? list.data() : nullptr;
  p.segments = static_cast<int>(pick(1, 4));
  std::vector<std::unique_ptr<Values>> inputs;
  std::int64_t depth = 0;
  for (int s = 0; s < p.segments; ++s) {
    const std::int64_t k = deep ? pick(150, 500) : pick(1, 30);
    inputs.push_back(std::make_unique<Values>(total * k));
    p.a[s] = {{inputs.back()->data(), batch * k, k}, k, nullptr};
    if (backwards) p.a[s].a = {inputs.back()->data() + (steps - 1) * batch * k, -batch * k, k};
    depth += k;
  }
  Values w(depth * n), bias(n), scale(batch * n);
  p.n = p.n_end = n;
  p.init = with_scale ? Init::zero : static_cast<Init>(pick(0, 2));
  p.bias = p.init == Init::bias ? bias.data() : nullptr;
  p.scale = with_scale ? scale.data() : nullptr;
  p.scale_row = n;
  p.activation = with_scale ? Activation::linear : static_cast<Activation>(pick(0, 21));
  const bool keep = !with_scale && coin();
  Values start(total * n);

  std::vector<float> first_c, first_z;
  for (const char* isa : available_isas()) {
    const Kernels& k = *kernels_for(isa);
    Unset packed(k.packed_product_size(depth, n, Precision::float32));
    for (std::int64_t s = 0, at = 0; s < p.segments; at += p.a[s++].k) {
      float* to = packed.data() + k.packed_product_size(at, n, Precision::float32);
      k.pack_product(transposed ? w.data() + at : w.data() + at * n, transposed ? 1 : n, transposed ? depth : 1,
                     p.a[s].k, n, {}, to);
      p.a[s].packed = to;
    }
    for (const bool whole : {true, false}) {
      Values c(total * n);
      Unset z(total * n);
      std::memcpy(c.data(), start.data(), static_cast<std::size_t>(total * n) * sizeof(float));
      p.c = {c.data(), batch * n, n};
      p.z = {keep ? z.data() : nullptr, batch * n, n};
      if (whole) {
        k.product(p);
      } else {
        for (std::int64_t i = 0; i < p.m; i += 5) {
          ProductArgs part = p;
          part.m = std::min<std::int64_t>(5, p.m - i);
          if (p.rows) part.rows += i;
          part.row_begin += i;
          k.product(part);
        }
      }
      std::vector<std::uint8_t> written(static_cast<std::size_t>(total), 0);
      for (std::int64_t i = 0; i < p.m; ++i) {
        const std::int64_t r = listed ? list[static_cast<std::size_t>(i)] : begin + i;
        written[static_cast<std::size_t>(r)] = 1;
        for (std::int64_t j = 0; j < n; ++j) {
          float chain = p.init == Init::zero ? 0.0f : p.init == Init::bias ? bias.data()[j] : start.data()[r * n + j];
          std::int64_t at = 0;
          for (int s = 0; s < p.segments; ++s)
            for (std::int64_t q = 0; q < p.a[s].k; ++q, ++at)
              chain = std::fma(p.a[s].a.data[r / batch * p.a[s].a.step + r % batch * p.a[s].a.row + q],
                               transposed ? w.data()[j * depth + at] : w.data()[at * n + j], chain);
          const float out = c.data()[r * n + j];
          if (keep) CHECK(same(z.data()[r * n + j], chain));
          if (with_scale) CHECK(same(out, start.data()[r * n + j] + scale.data()[r % batch * n + j] * chain));
          if (p.activation == Activation::linear && !with_scale) CHECK(same(out, chain));
          if (p.activation == Activation::relu) CHECK(out == std::fmax(chain, 0.0f));
        }
      }
      for (std::int64_t r = 0; r < total; ++r)
        for (std::int64_t j = 0; j < n && !written[static_cast<std::size_t>(r)]; ++j) {
          CHECK(same(c.data()[r * n + j], start.data()[r * n + j]));
          CHECK(std::isnan(z.data()[r * n + j]));
        }
      const std::vector<float> all(c.data(), c.data() + total * n);
      if (first_c.empty()) first_c = all;
      CHECK(std::memcmp(all.data(), first_c.data(), all.size() * sizeof(float)) == 0);
    }
  }
}

// `far`: D is more than an L2 holds, and is copied in small portions.
void check_grad(bool far) {
  const std::int64_t batch = far ? 9 : pick(1, 9), steps = far ? 200 : pick(1, 90), total = batch * steps;
  const std::int64_t begin = far ? 0 : pick(0, total - 1), m = far ? total : pick(1, total - begin);
  const std::int64_t k = pick(1, 40), n = far ? pick(80, 100) : pick(1, coin() ? 70 : 6);
  const std::int64_t groups = far ? 4 : pick(1, 4), slots = groups + 1;
  const std::int64_t k0 = coin() ? k : pick(1, k);  // columns of the first A; what is left is the second's
  const bool listed = !far && coin(), scaled = coin(), accumulate = coin(), with_bias = coin();
  auto list = some_rows(begin, m);
  if (pick(0, 9) == 0) list.clear();
  Values a(total * k), scale(batch * k), start((k + 1) * groups * n);
  Unset d(total * slots * pad(n));
  for (std::int64_t r = 0; r < total; ++r)
    for (std::int64_t s = 0; s < groups; ++s)
      for (std::int64_t j = 0; j < n; ++j) d.data()[(r * slots + s) * pad(n) + j] = value();

  GradArgs g{};
  g.batch = batch;
  g.row_begin = begin;
  g.m = listed ? static_cast<std::int64_t>(list.size()) : m;
  g.rows = listed ? list.data() : nullptr;
  g.factors = k0 == k ? 1 : 2;
  g.d = {d.data(), batch * slots * pad(n), slots * pad(n)};
  g.groups = static_cast<int>(groups);
  g.d_group = pad(n);
  g.n = n;
  g.c_row = groups * n;
  g.c_group = n;
  g.bias_group = n;
  g.accumulate = accumulate;

  std::vector<float> expected(start.data(), start.data() + (k + 1) * groups * n);  // the last row is the bias
  for (std::int64_t q = 0; q <= k; ++q)
    for (std::int64_t j = 0; j < groups * n; ++j) {
      if (q == k && !with_bias) continue;
      float& c = expected[static_cast<std::size_t>(q * groups * n + j)];
      if (!accumulate) c = 0.0f;
      for (std::int64_t i0 = 0; i0 < g.m; i0 += kGradBlock) {
        float chain = 0.0f;
        for (std::int64_t i = i0; i < std::min(i0 + kGradBlock, g.m); ++i) {
          const std::int64_t r = listed ? list[static_cast<std::size_t>(i)] : begin + i;
          const float x = q == k   ? 1.0f
                          : scaled ? a.data()[r * k + q] * scale.data()[r % batch * k + q]
                                   : a.data()[r * k + q];
          chain = std::fma(x, d.data()[(r * slots + j / n) * pad(n) + j % n], chain);
        }
        c = i0 == 0 && !accumulate ? chain : c + chain;
      }
    }

  for (const char* isa : available_isas()) {
    const Kernels& kernel = *kernels_for(isa);
    Unset scratch(kernel.grad_scratch(k));
    for (const bool whole : {true, false}) {
      Values c((k + 1) * groups * n);
      std::memcpy(c.data(), start.data(), static_cast<std::size_t>((k + 1) * groups * n) * sizeof(float));
      g.a[0] = {{a.data(), batch * k, k}, k0, scaled ? scale.data() : nullptr, k, c.data()};
      g.a[1] = {
          {a.data() + k0, batch * k, k}, k - k0, scaled ? scale.data() + k0 : nullptr, k, c.data() + k0 * groups * n};
      g.bias = with_bias ? c.data() + k * groups * n : nullptr;
      g.scratch = scratch.data();
      const std::int64_t k_tile = whole ? k : 7, n_tile = whole ? pad(n) : kPad;
      for (g.k_begin = 0; g.k_begin < k; g.k_begin += k_tile)
        for (g.n_begin = 0; g.n_begin < n; g.n_begin += n_tile) {
          g.k_end = std::min(k, g.k_begin + k_tile);
          g.n_end = std::min(n, g.n_begin + n_tile);
          kernel.grad(g);
        }
      CHECK(std::memcmp(c.data(), expected.data(), expected.size() * sizeof(float)) == 0);
    }
  }
}

}  // namespace

int main() {
  for (int i = 0; i < 150; ++i) check_product(false);
  for (int i = 0; i < 12; ++i) check_product(true);
  for (int i = 0; i < 100; ++i) check_grad(false);
  for (int i = 0; i < 4; ++i) check_grad(true);
  return check::report();
}
