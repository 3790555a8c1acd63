// Weight gradients of recurrent layers: whoever sums what, the bits are those of ARCHITECTURE.md's bands, computed here
// with std::fma; and products over banded rows reach every row.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/parallel.h"
#include "check.h"
#include "kernels/dispatch.h"
#include "layers/products.h"

using namespace seqcore;

namespace {

std::mt19937 generator(11);
std::int64_t pick(std::int64_t lo, std::int64_t hi) {
  return std::uniform_int_distribution<std::int64_t>(lo, hi)(generator);
}
std::vector<float> values(std::int64_t n) {
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = std::uniform_real_distribution<float>(-1.0f, 1.0f)(generator);
  return v;
}

// The rows of every band, by the words of the header.
std::vector<std::vector<std::int64_t>> bands_of(std::int64_t batch, std::int64_t steps, const std::uint8_t* mask) {
  std::int64_t count = 16;
  const std::int64_t most = batch >= 16 ? std::max<std::int64_t>((batch + 15) / 16, 2) : 1;
  while (count > 1 && (count > most || count / 2 * 256 >= batch * steps)) count /= 2;
  std::vector<std::vector<std::int64_t>> bands(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t t = 0; t < steps; ++t)
      for (std::int64_t b = batch * i / count; b < batch * (i + 1) / count; ++b)
        if (!mask || mask[t * batch + b]) bands[static_cast<std::size_t>(i)].push_back(t * batch + b);
  return bands;
}

struct Problem {
  std::int64_t batch, steps, k0, k1, n, groups;  // k1 = 0: one factor
  bool masked, bias;
  std::vector<int> threads = {1, 2, 3, 7};
};

// Element (k, column) as it is promised; k of the bias is -1.
float promised(const std::vector<std::vector<std::int64_t>>& bands, const std::vector<float>& a, std::int64_t lda,
               const std::vector<float>& d, std::int64_t ldd, std::int64_t k, std::int64_t column) {
  float sum = 0;
  for (std::size_t band = 0; band < bands.size(); ++band) {
    const auto& rows = bands[band];
    float of_band = 0;
    for (std::size_t first = 0; first < rows.size(); first += 256) {
      float chain = 0;
      for (std::size_t i = first; i < std::min(rows.size(), first + 256); ++i) {
        const float x = k < 0 ? 1.0f : a[static_cast<std::size_t>(rows[i] * lda + k)];
        chain = std::fma(x, d[static_cast<std::size_t>(rows[i] * ldd + column)], chain);
      }
      of_band = first == 0 ? chain : of_band + chain;
    }
    if (!rows.empty()) sum = band == 0 ? of_band : sum + of_band;
  }
  return sum;
}

// The rows of some samples, as a batch of their own.
const float* apart(const std::vector<float>& all, std::int64_t ld, const Problem& p, std::int64_t first,
                   std::int64_t batch, std::vector<std::vector<float>>& memory) {
  std::vector<float>& own = memory.emplace_back();
  for (std::int64_t t = 0; t < p.steps; ++t)
    own.insert(own.end(), all.begin() + (t * p.batch + first) * ld, all.begin() + (t * p.batch + first + batch) * ld);
  return own.data();
}

void check_gradient(const Problem& p) {
  const std::int64_t total = p.batch * p.steps, k = p.k0 + p.k1, columns = p.groups * p.n;
  const std::int64_t lda = k, ld = pad(p.n), ldd = p.groups * ld;
  const std::vector<float> a = values(total * lda), d = values(total * ldd);
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(total), 1);
  if (p.masked) {
    for (auto& m : mask) m = pick(0, 3) > 0;
    for (std::int64_t t = 0; t < p.steps; ++t)  // a band without rows
      for (std::int64_t b = 0; b < std::min<std::int64_t>(p.batch, 20); ++b)
        mask[static_cast<std::size_t>(t * p.batch + b)] = 0;
  }
  const std::uint8_t* const shown = p.masked ? mask.data() : nullptr;
  const auto bands = bands_of(p.batch, p.steps, shown);

  for (const int threads : p.threads) {
    set_num_threads(threads);
    Arena arena, scratch;
    Run run(kernels(), threads);
    run.arena = &arena;
    run.scratch = &scratch;
    const Bands banding(p.batch, p.steps);
    CHECK(banding.count == static_cast<std::int64_t>(bands.size()));
    std::vector<float> c(static_cast<std::size_t>((k + 1) * columns), 7.0f);
    // Some bands each, whose rows lie apart.
    const std::int64_t count = pick(1, banding.count);
    std::vector<GradPart> parts;
    std::vector<std::vector<float>> memory;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t first = banding.count * i / count, last = banding.count * (i + 1) / count;
      const std::int64_t start = banding.begin(first), batch = banding.begin(last) - start;
      const float* const own_a = apart(a, lda, p, start, batch, memory);
      const float* const own_d = apart(d, ldd, p, start, batch, memory);
      GradArgs args{};
      args.batch = batch;
      args.factors = p.k1 > 0 ? 2 : 1;
      args.a[0] = {{own_a, batch * lda, lda}, p.k0, nullptr, 0, c.data()};
      args.a[1] = {{own_a + p.k0, batch * lda, lda}, p.k1, nullptr, 0, c.data() + p.k0 * columns};
      args.d = {own_d, batch * ldd, ldd};
      args.groups = static_cast<int>(p.groups);
      args.d_group = ld;
      args.n = p.n;
      args.c_row = columns;
      args.c_group = args.bias_group = p.n;
      args.bias = p.bias ? c.data() + k * columns : nullptr;
      const std::uint8_t* const of_part = shown ? shown + start : nullptr;
      parts.push_back({args, banded_rows(run, of_part, p.batch, banding, first, last)});
    }
    weight_gradient(parts.data(), static_cast<int>(count), run, threads);

    const std::int64_t all = (k + 1) * columns, checked = std::min<std::int64_t>(all, 2000);
    for (std::int64_t i = 0; i < checked; ++i) {
      const std::int64_t at = all == checked ? i : pick(0, all - 1), row = at / columns, column = at % columns;
      const float expected =
          row == k && !p.bias ? 7.0f
                              : promised(bands, a, lda, d, ldd, row == k ? -1 : row, column / p.n * ld + column % p.n);
      CHECK(std::memcmp(&c[static_cast<std::size_t>(at)], &expected, sizeof expected) == 0);
    }
  }
}

// y = A W over the rows of some parts. A thread's piece may end anywhere: rows go back at the border of a band.
void check_product() {
  const std::int64_t batch = pick(17, 60), steps = pick(16, 30), total = batch * steps, k = pick(1, 40),
                     n = pick(1, 40);
  const std::vector<float> a = values(total * k), w = values(k * n);
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    Arena arena, scratch;
    Run run(kernels(), threads);
    run.arena = &arena;
    run.scratch = &scratch;
    const Bands bands(batch, steps);
    float* packed = arena.floats(run.k.packed_product_size(k, n, Precision::float32));
    run.k.pack_product(w.data(), n, 1, k, n, {}, packed);
    std::vector<float> y(static_cast<std::size_t>(total * n), 7.0f);
    std::vector<ProductPart> parts;
    const std::int64_t count = pick(1, bands.count);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t first = bands.count * i / count, last = bands.count * (i + 1) / count;
      const std::int64_t start = bands.begin(first);
      ProductArgs args{};
      args.batch = bands.begin(last) - start;
      args.segments = 1;
      args.a[0] = {{a.data() + start * k, batch * k, k}, k, packed};
      args.n = n;
      args.init = Init::zero;
      args.activation = Activation::linear;
      args.c = {y.data() + start * n, batch * n, n};
      parts.push_back({args, banded_rows(run, nullptr, 0, bands, first, last)});
    }
    product(parts.data(), static_cast<int>(count), run);
    for (std::int64_t i = 0; i < total * n; ++i) {
      float chain = 0;
      for (std::int64_t j = 0; j < k; ++j)
        chain = std::fma(a[static_cast<std::size_t>(i / n * k + j)], w[static_cast<std::size_t>(j * n + i % n)], chain);
      CHECK(std::memcmp(&y[static_cast<std::size_t>(i)], &chain, sizeof chain) == 0);
    }
  }
}

}  // namespace

int main() {
  for (int i = 0; i < 60; ++i)
    check_gradient({pick(1, 90), pick(1, 40), pick(1, 30), pick(0, 1) * pick(1, 30), pick(1, 40), pick(1, 4),
                    pick(0, 1) == 1, pick(0, 1) == 1});
  check_gradient({600, 3, 5, 9, 33, 2, true, true});                // bands of many samples
  check_gradient({48, 90, 100, 128, 150, 4, false, true, {1, 3}});  // polled in the middle of a band
  for (int i = 0; i < 8; ++i) check_product();
  return check::report();
}
