#include "model/penalties.h"

#include <algorithm>
#include <cmath>

#include "base/shape.h"

namespace seqcore {

namespace {

// orthogonal times the mean of |u_i · u_j| over all pairs of rows (or columns) i < j, u = w / |w| (w 10^7 below a norm of
// 10^-7). Each sum over j, and over the elements of a row, is a chain in order.
double orthogonal(const Penalty& penalty, const std::vector<std::int64_t>& shape, const float* w, float* grad,
                  const Run& run) {
  constexpr double kEpsilon = 1e-7;
  const std::int64_t rows = shape[penalty.of_columns ? 1 : 0], n = shape[penalty.of_columns ? 0 : 1];
  if (rows < 2) return 0;
  const std::int64_t next = penalty.of_columns ? 1 : n, along = penalty.of_columns ? rows : 1;
  const std::int64_t ld = pad(n), ld_across = pad(rows);
  Arena memory;
  float *const unit = memory.zeros(rows * ld), *const across = memory.zeros(n * ld_across);
  auto *const scale = memory.allocate<double>(rows), *const sums = memory.allocate<double>(rows);
  for (std::int64_t i = 0; i < rows; i++) {
    double squares = 0;
    for (std::int64_t k = 0; k < n; k++) {
      const auto v = static_cast<double>(w[i * next + k * along]);
      squares += v * v;
    }
    scale[i] = 1 / std::max(std::sqrt(squares), kEpsilon);
    for (std::int64_t k = 0; k < n; k++)
      unit[i * ld + k] = across[k * ld_across + i] =
          static_cast<float>(static_cast<double>(w[i * next + k * along]) * scale[i]);
  }
  const double share = 2 * penalty.orthogonal / (static_cast<double>(rows) * static_cast<double>(rows - 1));
  float* const scratch = memory.floats(run.threads * (ld_across + ld));
  const double cost = 2.0 * static_cast<double>(rows * n) * (grad ? 2 : 1);
  run.rows(rows, cost, 1, [&](std::int64_t from, std::int64_t to, int worker) {
    float *const products = scratch + worker * (ld_across + ld), *const sum = products + ld_across;
    for (std::int64_t i = from; i < to; i++) {
      const float* const mine = unit + i * ld;
      std::fill_n(products, rows, 0.0f);
      for (std::int64_t k = 0; k < n; k++) run.k.axpy(rows, mine[k], across + k * ld_across, products);
      products[i] = 0;
      sums[i] = run.k.sum_abs(rows, products);
      if (!grad) continue;
      std::fill_n(sum, n, 0.0f);
      for (std::int64_t j = 0; j < rows; j++)
        if (products[j] != 0) run.k.axpy(n, products[j] > 0 ? 1.0f : -1.0f, unit + j * ld, sum);
      double inward = 0;  // what goes along u_i itself does nothing
      if (scale[i] < 1 / kEpsilon)
        for (std::int64_t k = 0; k < n; k++) inward += static_cast<double>(sum[k]) * static_cast<double>(mine[k]);
      for (std::int64_t k = 0; k < n; k++) {
        float& g = grad[i * next + k * along];
        const double across_u = static_cast<double>(sum[k]) - inward * static_cast<double>(mine[k]);
        g = g + static_cast<float>(share * scale[i] * across_u);
      }
    }
  });
  double total = 0;
  for (std::int64_t i = 0; i < rows; i++) total += sums[i];
  return share * 0.5 * total;
}

}  // namespace

double penalize(const Penalty& penalty, const std::vector<std::int64_t>& shape, const float* w, float* grad,
                const Run& run) {
  if (penalty.orthogonal != 0) return orthogonal(penalty, shape, w, grad, run);
  const std::int64_t size = elements(shape);
  const double sum = penalty.l1 * run.k.sum_abs(size, w) + penalty.l2 * run.k.sum_squares(size, w);
  if (!grad) return sum;
  const auto l1 = static_cast<float>(penalty.l1), l2 = static_cast<float>(2 * penalty.l2);
  for (std::int64_t j = 0; j < size; j++) {
    const float sign = w[j] > 0 ? l1 : w[j] < 0 ? -l1 : 0.0f;
    grad[j] = grad[j] + (sign + l2 * w[j]);
  }
  return sum;
}

}  // namespace seqcore
