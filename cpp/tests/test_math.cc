// kernels/: every row-wise and element-wise kernel of every ISA against scalar's by bits, and against definitions in
// double and their finite differences by tolerance. Arrays end on a page that cannot be touched.
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/flush_guard.h"
#include "base/philox.h"
#include "check.h"
#include "guarded.h"
#include "kernels/dispatch.h"

namespace {

using check::Guarded;
using check::Random;
using seqcore::Activation;
using seqcore::kActivations;
using seqcore::Kernels;
using seqcore::LossKind;
using Doubles = std::vector<double>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
const char* const kActivationNames[] = {
#define X(name) #name,
    SEQCORE_ACTIVATIONS(X)
#undef X
};
constexpr Activation activation(int i) { return static_cast<Activation>(i); }

void fill(const Guarded& g, std::int64_t n, Random& random, float lo, float hi) {
  for (std::int64_t i = 0; i < n; ++i) g[i] = random.uniform(lo, hi);
}

// ------------------------------------------------------------------------------------------------ double definitions

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double softplus(double x) { return std::fmax(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double clamp(double x, double lo, double hi) { return x < lo ? lo : x > hi ? hi : x; }

double definition(Activation a, double x) {
  switch (a) {
    case Activation::linear:
      return x;
    case Activation::relu:
      return x < 0 ? 0 : x;
    case Activation::leaky_relu:
      return x < 0 ? 0.2 * x : x;
    case Activation::relu6:
      return clamp(x, 0, 6);
    case Activation::elu:
      return x > 0 ? x : std::expm1(x);
    case Activation::selu:
      return 1.0507009873554804934 * (x > 0 ? x : 1.6732632423543772848 * std::expm1(x));
    case Activation::softplus:
      return softplus(x);
    case Activation::softsign:
      return x / (1 + std::fabs(x));
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::tanh:
      return std::tanh(x);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::exponential:
      return std::exp(x);
    case Activation::hard_sigmoid:
      return clamp(x + 3, 0, 6) / 6;
    case Activation::hard_silu:
      return x * clamp(x + 3, 0, 6) / 6;
    case Activation::hard_tanh:
      return clamp(x, -1, 1);
    case Activation::mish:
      return x * std::tanh(softplus(x));
    case Activation::log_sigmoid:
      return -softplus(-x);
    case Activation::tanh_shrink:
      return x - std::tanh(x);
    case Activation::soft_shrink:
      return x > 0.5 ? x - 0.5 : x < -0.5 ? x + 0.5 : 0;
    case Activation::hard_shrink:
      return std::fabs(x) > 0.5 ? x : 0;
    case Activation::squareplus:
      return (x + std::sqrt(x * x + 4)) / 2;
    case Activation::sparse_plus:
      return x >= 1 ? x : x <= -1 ? 0 : (x + 1) * (x + 1) / 4;
    case Activation::sparse_sigmoid:
      return clamp(x + 1, 0, 2) / 2;
    case Activation::softmax:
    case Activation::log_softmax:
    case Activation::sparsemax:
      break;
  }
  return kNaN;
}

struct Rectifier {
  float threshold, max, slope;
  bool exponential;
};
constexpr Rectifier kRectifiers[] = {{0, HUGE_VALF, 0, false}, {0, HUGE_VALF, 0.2f, false},
                                     {0.5f, 2, 0.3f, false},   {2, 1, 0, false},
                                     {0, HUGE_VALF, 1, true},  {0, HUGE_VALF, -1.7f, true}};

double definition(const Rectifier& r, double x) {
  const double d = x - static_cast<double>(r.threshold);
  if (d > 0) return std::fmin(x, static_cast<double>(r.max));
  return r.slope == 0 ? 0 : static_cast<double>(r.slope) * (r.exponential ? std::expm1(d) : d);
}

Doubles softmax(const Doubles& x, bool log) {
  double top = -HUGE_VAL, total = 0;
  for (const double v : x) top = std::fmax(top, v);
  for (const double v : x) total += std::exp(v - top);
  Doubles y;
  for (const double v : x) y.push_back(log ? v - top - std::log(total) : std::exp(v - top) / total);
  return y;
}

struct LossCase {
  LossKind kind;
  bool from_logits;
  double smoothing;
};
constexpr LossCase kLossCases[] = {{LossKind::mean_squared_error, false, 0},
                                   {LossKind::mean_absolute_error, false, 0},
                                   {LossKind::huber, false, 0},
                                   {LossKind::mean_absolute_percentage_error, false, 0},
                                   {LossKind::mean_squared_logarithmic_error, false, 0},
                                   {LossKind::log_cosh, false, 0},
                                   {LossKind::poisson, false, 0},
                                   {LossKind::kl_divergence, false, 0},
                                   {LossKind::hinge, false, 0},
                                   {LossKind::squared_hinge, false, 0},
                                   {LossKind::categorical_hinge, false, 0},
                                   {LossKind::cosine_similarity, false, 0},
                                   {LossKind::binary_focal_crossentropy, false, 0.125},
                                   {LossKind::binary_focal_crossentropy, true, 0},
                                   {LossKind::categorical_focal_crossentropy, false, 0.125},
                                   {LossKind::categorical_focal_crossentropy, true, 0},
                                   {LossKind::binary_crossentropy, false, 0},
                                   {LossKind::binary_crossentropy, true, 0},
                                   {LossKind::binary_crossentropy, false, 0.125},
                                   {LossKind::binary_crossentropy, true, 0.125},
                                   {LossKind::categorical_crossentropy, false, 0},
                                   {LossKind::categorical_crossentropy, true, 0},
                                   {LossKind::categorical_crossentropy, false, 0.125},
                                   {LossKind::categorical_crossentropy, true, 0.125},
                                   {LossKind::sparse_categorical_crossentropy, false, 0},
                                   {LossKind::sparse_categorical_crossentropy, true, 0}};
constexpr double kDelta = 0.75, kAlpha = 0.25, kGamma = 1.5;

double definition(const LossCase& loss, const Doubles& p, Doubles y, std::size_t label) {
  const auto n = static_cast<double>(p.size());
  const auto clipped = [](double v) { return clamp(v, 1e-7, 1 - 1e-7); };
  const double s = loss.smoothing;
  double sum = 0;
  switch (loss.kind) {
    case LossKind::mean_squared_error:
    case LossKind::mean_absolute_error:
    case LossKind::huber:
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double e = std::fabs(p[i] - y[i]);
        sum += loss.kind == LossKind::mean_squared_error    ? e * e
               : loss.kind == LossKind::mean_absolute_error ? e
               : e <= kDelta                                ? e * e / 2
                                                            : kDelta * e - kDelta * kDelta / 2;
      }
      return sum / n;
    case LossKind::mean_absolute_percentage_error:
      for (std::size_t i = 0; i < p.size(); ++i) sum += 100 * std::fabs(p[i] - y[i]) / std::fmax(std::fabs(y[i]), 1e-7);
      return sum / n;
    case LossKind::mean_squared_logarithmic_error:
      for (std::size_t i = 0; i < p.size(); ++i)
        sum += std::pow(std::log1p(std::fmax(p[i], 1e-7)) - std::log1p(std::fmax(y[i], 1e-7)), 2);
      return sum / n;
    case LossKind::log_cosh:
      for (std::size_t i = 0; i < p.size(); ++i) sum += std::log(std::cosh(p[i] - y[i]));
      return sum / n;
    case LossKind::poisson:
      for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] - y[i] * std::log(p[i] + 1e-7);
      return sum / n;
    case LossKind::hinge:
    case LossKind::squared_hinge:
      for (std::size_t i = 0; i < p.size(); ++i)
        sum += std::pow(std::fmax(1 - y[i] * p[i], 0), loss.kind == LossKind::hinge ? 1 : 2);
      return sum / n;
    case LossKind::categorical_hinge: {
      double other = -INFINITY;
      for (std::size_t i = 0; i < p.size(); ++i) {
        sum += y[i] * p[i];
        other = std::fmax(other, (1 - y[i]) * p[i]);
      }
      return std::fmax(other - sum + 1, 0);
    }
    case LossKind::cosine_similarity: {
      double yy = 0, pp = 0;
      for (std::size_t i = 0; i < p.size(); ++i) {
        sum += y[i] * p[i];
        yy += y[i] * y[i];
        pp += p[i] * p[i];
      }
      return -sum / std::sqrt(yy * pp);
    }
    case LossKind::binary_focal_crossentropy:
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double t = y[i] * (1 - s) + s / 2, q = loss.from_logits ? 1 / (1 + std::exp(-p[i])) : p[i];
        const double weight = t * kAlpha + (1 - t) * (1 - kAlpha), c = clipped(q);
        sum -= weight * std::pow(1 - t * q - (1 - t) * (1 - q), kGamma) * (t * std::log(c) + (1 - t) * std::log(1 - c));
      }
      return sum / n;
    case LossKind::categorical_focal_crossentropy: {
      double total = 0;
      const auto mass = [&](double v) { return loss.from_logits ? std::exp(v) : v; };
      for (const double v : p) total += mass(v);
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double c = clipped(mass(p[i]) / total);
        sum -= kAlpha * (y[i] * (1 - s) + s / n) * std::pow(1 - c, kGamma) * std::log(c);
      }
      return sum;
    }
    case LossKind::kl_divergence:
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double t = clamp(y[i], 1e-7, 1);
        sum += t * std::log(t / clamp(p[i], 1e-7, 1));
      }
      return sum;
    case LossKind::binary_crossentropy:
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double t = y[i] * (1 - s) + s / 2;
        const double q = loss.from_logits ? sigmoid(p[i]) : clipped(p[i]);
        const double r = loss.from_logits ? sigmoid(-p[i]) : 1 - q;
        sum -= t * std::log(q) + (1 - t) * std::log(r);
      }
      return sum / n;
    case LossKind::sparse_categorical_crossentropy:
      y.assign(p.size(), 0);
      y[label] = 1;
      [[fallthrough]];
    case LossKind::categorical_crossentropy: {
      double total = 0;
      for (const double v : p) total += v;
      const Doubles logs = softmax(p, true);
      for (std::size_t i = 0; i < p.size(); ++i)
        sum -= (y[i] * (1 - s) + s / n) * (loss.from_logits ? logs[i] : std::log(clipped(p[i] / total)));
      return sum;
    }
  }
  return kNaN;
}

// d f / d x[i] by central differences.
double slope(const std::function<double(const Doubles&)>& f, Doubles x, std::size_t i, double h = 1e-6) {
  const double center = x[i];
  x[i] = center + h;
  const double above = f(x);
  x[i] = center - h;
  return (above - f(x)) / (2 * h);
}

// -------------------------------------------------------------------------- one run of everything, for the comparison

// All results of one ISA, in one order: sizes 1..70 with rows closer or farther apart than a vector.
std::vector<float> everything(const Kernels& k) {
  const seqcore::FlushGuard guard;
  std::vector<float> results;
  const auto keep = [&](const Guarded& g, std::int64_t n) { results.insert(results.end(), g.data(), g.data() + n); };
  Random random{42};

  // Every activation and its derivative over a comb of all bit patterns.
  constexpr std::int64_t kComb = 4099;
  for (int a = 0; a < kActivations; ++a) {
    if (is_rowwise(activation(a))) continue;
    Guarded x(kComb), y(kComb), one(kComb);
    for (std::int64_t i = 0; i < kComb; ++i) {
      x[i] = i % 2 ? check::from_bits(static_cast<std::uint32_t>(i * ((1ll << 32) / kComb) + random.word() % 1024))
                   : random.uniform(-20.0f, 20.0f);
      one[i] = 1.0f;
    }
    k.activate(activation(a), 1, kComb, x.data(), kComb, y.data(), kComb);
    keep(y, kComb);
    k.activate_backward(activation(a), 1, kComb, x.data(), kComb, one.data(), kComb, y.data(), kComb);
    keep(y, kComb);
  }

  for (std::int64_t n = 1; n <= 70; ++n) {
    const std::int64_t rows = 3;
    const std::int64_t ld = n + n % 3;
    const std::int64_t size = (rows - 1) * ld + n;
    Guarded a(size), b(size), y(size), z(size), per_row(rows), per_row2(rows), column(n);
    fill(a, size, random, -4, 4);
    fill(b, size, random, -4, 4);
    for (int f = 0; f < kActivations; ++f) {
      k.activate(activation(f), rows, n, a.data(), ld, y.data(), ld);
      keep(y, size);
      k.activate_backward(activation(f), rows, n, y.data(), ld, b.data(), ld, z.data(), ld);
      keep(z, size);
    }
    for (const Rectifier& r : kRectifiers) {
      k.rectify({rows, n, a.data(), ld, r.threshold, r.max, r.slope, r.exponential, y.data(), ld});
      keep(y, size);
      k.rectify_backward({rows, n, a.data(), ld, r.threshold, r.max, r.slope, r.exponential, y.data(), ld});
      keep(y, size);
    }
    k.add(n, a.data(), b.data(), column.data());
    keep(column, n);
    k.multiply(n, a.data(), b.data(), column.data());
    keep(column, n);
    k.scale(n, 1.7f, a.data(), column.data());
    keep(column, n);
    k.axpy(n, 0.3f, b.data(), column.data());
    keep(column, n);
    k.clip(n, -1.0f, 2.0f, column.data());
    keep(column, n);
    results.push_back(static_cast<float>(k.sum_squares(size, a.data())));
    results.push_back(static_cast<float>(k.sum_abs(size, a.data())));
    k.column_sums(rows, n, a.data(), ld, false, column.data());
    k.column_sums(rows, n, b.data(), ld, true, column.data());
    keep(column, n);
    Guarded dropped(n);
    k.dropout_mask(3, 5, 7 + static_cast<std::uint64_t>(n), n, 0.3f, dropped.data());
    keep(dropped, n);
    k.normals(3, 5, 7 + static_cast<std::uint64_t>(n), n, 0.5f, 2.0f, dropped.data());
    keep(dropped, n);

    k.layer_norm(
        {rows, n, a.data(), ld, column.data(), column.data(), 1e-3f, y.data(), ld, per_row.data(), per_row2.data()});
    keep(y, size);
    k.layer_norm_backward({rows, n, a.data(), ld, b.data(), ld, column.data(), per_row.data(), per_row2.data(),
                           y.data(), ld, z.data(), ld});
    keep(y, size);
    keep(z, size);

    const std::int32_t listed[] = {0, 2};
    const std::uint8_t mask[] = {1, 0, 1};
    Guarded mean(n), variance(n), inv_std(n), factor(n), dbeta(n), dgamma(n);
    k.batch_moments({2, n, listed, a.data(), ld, mean.data(), variance.data()});
    keep(mean, n);
    keep(variance, n);
    k.batch_norm_scale(n, variance.data(), 1e-3f, mean.data(), inv_std.data(), factor.data());
    keep(inv_std, n);
    keep(factor, n);
    k.batch_norm({rows, n, a.data(), ld, mean.data(), factor.data(), mean.data(), y.data(), ld});
    keep(y, size);
    k.batch_norm_sums(
        {rows, n, nullptr, a.data(), ld, b.data(), ld, mean.data(), inv_std.data(), dbeta.data(), dgamma.data()});
    keep(dbeta, n);
    keep(dgamma, n);
    k.batch_norm_backward({rows, n, a.data(), ld, b.data(), ld, mean.data(), inv_std.data(), factor.data(),
                           dbeta.data(), dgamma.data(), mask, 0.5f, z.data(), ld});
    keep(z, size);

    Guarded labels(rows), weight(rows);
    const auto label = std::make_unique<std::int32_t[]>(static_cast<std::size_t>(rows));
    for (std::int64_t r = 0; r < rows; ++r) {
      label[static_cast<std::size_t>(r)] = static_cast<std::int32_t>(r % n);
      weight[r] = random.uniform(0.5f, 2.0f);
    }
    fill(b, size, random, 0, 1);
    for (const LossCase& c : kLossCases) {
      fill(a, size, random, c.from_logits ? -5.0f : 0.01f, c.from_logits ? 5.0f : 0.99f);
      k.loss({c.kind,
              rows,
              n,
              a.data(),
              ld,
              b.data(),
              ld,
              label.get(),
              weight.data(),
              nullptr,
              c.from_logits,
              static_cast<float>(c.smoothing),
              static_cast<float>(kDelta),
              per_row.data(),
              y.data(),
              ld,
              n % 3 == 0,
              0.25f,
              static_cast<float>(n % 5) / 2,
              nullptr,
              n % 2 == 0});
      keep(per_row, rows);
      keep(y, size);
    }

    Guarded p(n), m(n), v(n), vhat(n);
    for (const Guarded* g : {&p, &m, &v, &vhat}) fill(*g, n, random, 0, 1);
    k.adam({n, p.data(), a.data(), m.data(), v.data(), n % 2 ? vhat.data() : nullptr, 0.01f, 0.1f, 0.001f, 1e-7f,
            n % 3 ? 0.0f : 0.004f});
    k.sgd({n, p.data(), b.data(), n % 4 ? m.data() : nullptr, 0.01f, 0.9f, n % 4 == 2, n % 3 ? 0.0f : 0.004f});
    k.rmsprop({n, p.data(), a.data(), v.data(), n % 2 ? vhat.data() : nullptr, n % 4 ? m.data() : nullptr, 0.01f, 0.9f,
               0.1f, 1e-7f, n % 3 ? 0.0f : 0.004f});
    const float decay = n % 3 ? 0.0f : 0.004f;
    k.nadam({n, p.data(), a.data(), m.data(), v.data(), 0.01f, 0.02f, 0.1f, 0.001f, 1.5f, 1e-7f, decay});
    k.adamax({n, p.data(), b.data(), m.data(), v.data(), 0.01f, 0.1f, 0.999f, 1e-7f, decay});
    k.adagrad({n, p.data(), a.data(), v.data(), 0.01f, 1e-7f, decay});
    k.adadelta({n, p.data(), b.data(), v.data(), vhat.data(), 0.1f, 0.05f, 1e-7f, decay});
    k.lion({n, p.data(), a.data(), m.data(), 0.01f, 0.1f, 0.01f, decay});
    for (const float power : {0.5f, 0.0f, 0.7f})
      k.ftrl({n, p.data(), a.data(), v.data(), m.data(), 0.1f, power, 0.1f, 0.2f, 0.3f, decay});
    for (const Guarded* g : {&p, &m, &v, &vhat}) keep(*g, n);
  }
  return results;
}

void test_isas_agree() {
  const std::vector<float> want = everything(*seqcore::kernels_for("scalar"));
  for (const char* isa : seqcore::available_isas()) {
    const std::vector<float> got = everything(*seqcore::kernels_for(isa));
    CHECK(got.size() == want.size());
    std::size_t wrong = 0, first = 0;
    for (std::size_t i = 0; i < want.size(); ++i)
      if (!check::same(got[i], want[i]) && ++wrong == 1) first = i;
    CHECK_THAT(wrong == 0, std::string(isa) + ": " + std::to_string(wrong) + " of " + std::to_string(want.size()) +
                               " results differ from scalar's, first at " + std::to_string(first));
  }
}

// ------------------------------------------------------------------------------------------- against the definitions

void test_activations(const Kernels& k) {
  constexpr std::int64_t n = 2001;
  Guarded x(n), y(n), dy(n), dx(n);
  for (std::int64_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(i - n / 2) * 0.0113f + 0.0007f;
    dy[i] = 1.0f;
  }
  for (int f = 0; f < kActivations; ++f) {
    const Activation a = activation(f);
    if (is_rowwise(a)) continue;
    const std::string name = kActivationNames[f];
    k.activate(a, 1, n, x.data(), n, y.data(), n);
    k.activate_backward(a, 1, n, needs_input(a) ? x.data() : y.data(), n, dy.data(), n, dx.data(), n);
    for (std::int64_t i = 0; i < n; ++i) {
      const double at = static_cast<double>(x[i]);
      CHECK_THAT(check::close(static_cast<double>(y[i]), definition(a, at), 1e-6, 5e-7), name + " value");
      const double want = slope([a](const Doubles& v) { return definition(a, v[0]); }, {at}, 0);
      CHECK_THAT(check::close(static_cast<double>(dx[i]), want, 1e-5, 1e-5),
                 name + " at " + std::to_string(at) + ": derivative " + std::to_string(dx[i]) + ", expected " +
                     std::to_string(want));
    }
    const float nan = NAN;
    k.activate(a, 1, 1, &nan, 1, y.data(), 1);
    CHECK_THAT(std::isnan(y[0]), name + "(NaN)");
  }
}

void test_rectify(const Kernels& k) {
  constexpr std::int64_t n = 2001;
  Guarded x(n), y(n), z(n);
  for (std::int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(i - n / 2) * 0.0113f + 0.0007f;
  for (const Rectifier& r : kRectifiers) {
    const auto args = [&](std::int64_t count, const float* from, float* to) {
      return seqcore::RectifyArgs{1, count, from, count, r.threshold, r.max, r.slope, r.exponential, to, count};
    };
    const std::string name = "slope " + std::to_string(r.slope);
    k.rectify(args(n, x.data(), y.data()));
    for (std::int64_t i = 0; i < n; ++i) z[i] = 2.0f;
    k.rectify_backward(args(n, x.data(), z.data()));
    for (std::int64_t i = 0; i < n; ++i) {
      const double at = static_cast<double>(x[i]);
      CHECK_THAT(check::close(static_cast<double>(y[i]), definition(r, at), 1e-6, 5e-7), name + " value");
      const double want = slope([&](const Doubles& v) { return definition(r, v[0]); }, {at}, 0);
      CHECK_THAT(check::close(static_cast<double>(z[i]), 2 * want, 1e-5, 1e-5), name + " at " + std::to_string(at));
    }
    const float odd[] = {NAN, HUGE_VALF, -HUGE_VALF};
    k.rectify(args(3, odd, y.data()));
    CHECK(std::isnan(y[0]) && y[1] == r.max);
    CHECK(y[2] == (r.exponential ? -r.slope : r.slope == 0 ? 0.0f : -HUGE_VALF));
  }
  // The bits of the activations without parameters.
  for (const auto& [a, r] : {std::pair{Activation::relu, kRectifiers[0]},
                             {Activation::leaky_relu, kRectifiers[1]},
                             {Activation::elu, kRectifiers[4]}}) {
    Guarded want(n), dwant(n);
    k.activate(a, 1, n, x.data(), n, want.data(), n);
    for (std::int64_t i = 0; i < n; ++i) z[i] = dwant[i] = 0.7f;
    k.activate_backward(a, 1, n, want.data(), n, dwant.data(), n, dwant.data(), n);
    k.rectify({1, n, x.data(), n, r.threshold, r.max, r.slope, r.exponential, y.data(), n});
    k.rectify_backward({1, n, x.data(), n, r.threshold, r.max, r.slope, r.exponential, z.data(), n});
    for (std::int64_t i = 0; i < n; ++i) CHECK(check::same(y[i], want[i]) && check::same(z[i], dwant[i]));
  }
}

void test_rowwise(const Kernels& k) {
  Random random{5};
  for (const bool log : {false, true}) {
    const Activation a = log ? Activation::log_softmax : Activation::softmax;
    for (const std::int64_t n : {1, 2, 15, 16, 17, 33, 100}) {
      Guarded x(n), y(n), dy(n), dx(n);
      fill(x, n, random, -30, 30);
      fill(dy, n, random, -1, 1);
      k.activate(a, 1, n, x.data(), n, y.data(), n);
      k.activate_backward(a, 1, n, y.data(), n, dy.data(), n, dx.data(), n);
      const Doubles at(x.data(), x.data() + n);
      const Doubles want = softmax(at, log);
      const auto objective = [&](const Doubles& v) {
        double s = 0;
        const Doubles out = softmax(v, log);
        for (std::size_t i = 0; i < out.size(); ++i) s += out[i] * static_cast<double>(dy.data()[i]);
        return s;
      };
      for (std::int64_t i = 0; i < n; ++i) {
        const auto j = static_cast<std::size_t>(i);
        CHECK(check::close(static_cast<double>(y[i]), want[j], 2e-6, log ? 1e-6 : 1e-30));
        CHECK(check::close(static_cast<double>(dx[i]), slope(objective, at, j), 1e-5, 1e-5));
      }
    }
    // Shifts change nothing; -inf beside finite numbers is a probability of 0; a row without a finite number is NaN.
    float x[] = {1e30f, 1e30f, -HUGE_VALF};
    k.activate(a, 1, 3, x, 3, x, 3);
    CHECK(log ? check::close(static_cast<double>(x[0]), -std::log(2.0), 1e-6, 0) : x[0] == 0.5f);
    CHECK(x[1] == x[0] && (log ? x[2] == -HUGE_VALF : x[2] == 0.0f));
    for (const float bad : {-HUGE_VALF, HUGE_VALF, NAN}) {
      float row[] = {bad, bad, bad == -HUGE_VALF ? bad : 1.0f};
      k.activate(a, 1, 3, row, 3, row, 3);
      CHECK(std::isnan(row[0]) && std::isnan(row[1]));
    }
  }
}

void test_sparsemax(const Kernels& k) {
  constexpr Activation a = Activation::sparsemax;
  Random random{6};
  for (const float size : {0.01f, 0.3f, 1.0f, 20.0f})
    for (const std::int64_t n : {1, 2, 15, 16, 17, 33, 100, 1000}) {
      Guarded x(n), y(n), dy(n), dx(n);
      fill(x, n, random, -size, size);
      fill(dy, n, random, -1, 1);
      k.activate(a, 1, n, x.data(), n, y.data(), n);
      k.activate_backward(a, 1, n, y.data(), n, dy.data(), n, dx.data(), n);
      const double threshold = check::sparsemax_threshold(Doubles(x.data(), x.data() + n));
      double sum = 0, count = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        CHECK(check::close(static_cast<double>(y[i]), std::fmax(static_cast<double>(x[i]) - threshold, 0), 1e-6,
                           1e-6 * static_cast<double>(size) + 1e-6));
        if (y[i] > 0) sum += static_cast<double>(dy[i]), ++count;
      }
      for (std::int64_t i = 0; i < n; ++i)
        CHECK(check::close(static_cast<double>(dx[i]), y[i] > 0 ? static_cast<double>(dy[i]) - sum / count : 0, 1e-6,
                           1e-6));
      k.activate(a, 1, n, x.data(), n, x.data(), n);
      for (std::int64_t i = 0; i < n; ++i) CHECK(check::same(x[i], y[i]));
    }
  float x[] = {1e30f, 1e30f, -HUGE_VALF};
  k.activate(a, 1, 3, x, 3, x, 3);
  CHECK(x[0] == 0.5f && x[1] == 0.5f && x[2] == 0);
  for (const float bad : {-HUGE_VALF, HUGE_VALF, NAN}) {
    float row[] = {bad, bad, bad == -HUGE_VALF ? bad : 1.0f};
    k.activate(a, 1, 3, row, 3, row, 3);
    CHECK(std::isnan(row[0]) && std::isnan(row[1]) && std::isnan(row[2]));
  }
}

void test_losses(const Kernels& k) {
  Random random{9};
  for (const LossCase& c : kLossCases)
    for (const std::int64_t n : {1, 2, 5, 16, 19, 40}) {
      const std::string name = "loss " + std::to_string(static_cast<int>(c.kind)) + (c.from_logits ? " logits" : "") +
                               " n " + std::to_string(n);
      Guarded p(n), y(n), d(n);
      fill(p, n, random, c.from_logits ? -4.0f : 0.05f, c.from_logits ? 4.0f : 0.95f);
      fill(y, n, random, 0, 1);
      const auto label = static_cast<std::int32_t>(n / 2);
      const float weight = 1.75f;
      float loss = -1;
      seqcore::LossArgs args{c.kind,
                             1,
                             n,
                             p.data(),
                             n,
                             y.data(),
                             n,
                             &label,
                             &weight,
                             nullptr,
                             c.from_logits,
                             static_cast<float>(c.smoothing),
                             static_cast<float>(kDelta),
                             &loss,
                             d.data(),
                             n,
                             false,
                             static_cast<float>(kAlpha),
                             static_cast<float>(kGamma),
                             nullptr,
                             true};
      k.loss(args);
      const Doubles at(p.data(), p.data() + n), target(y.data(), y.data() + n);
      const auto objective = [&](const Doubles& v) {
        return definition(c, v, target, static_cast<std::size_t>(label));
      };
      CHECK_THAT(check::close(static_cast<double>(loss), objective(at), 3e-6, 3e-7), name);
      for (std::int64_t i = 0; i < n; ++i) {
        const double want = 1.75 * slope(objective, at, static_cast<std::size_t>(i));
        CHECK_THAT(check::close(static_cast<double>(d[i]), want, 2e-5, 2e-5),
                   name + ": gradient " + std::to_string(d[i]) + ", expected " + std::to_string(want));
      }

      // Without the gradient the loss has the same bits.
      float alone = -1;
      args.loss = &alone;
      args.dpred = nullptr;
      args.weight = nullptr;
      k.loss(args);
      CHECK(alone == loss);

      // Weight 0: exact zeros, whatever the prediction. Skipped: nothing is read.
      const float none = 0.0f;
      p[0] = NAN;
      args.weight = &none;
      args.dpred = d.data();
      k.loss(args);
      for (std::int64_t i = 0; i < n; ++i) CHECK(d[i] == 0.0f);
      const std::uint8_t skip = 1;
      args.skip = &skip;
      args.pred = args.target = nullptr;
      args.labels = nullptr;
      fill(d, n, random, 1, 2);
      k.loss(args);
      CHECK(alone == 0.0f && d[0] == 0.0f && d[n - 1] == 0.0f);
    }

  // Clipped: finite at 0 and 1, without gradient.
  for (const LossKind kind :
       {LossKind::binary_crossentropy, LossKind::categorical_crossentropy, LossKind::sparse_categorical_crossentropy}) {
    const float p[] = {0.0f, 1.0f}, y[] = {1.0f, 0.0f}, weight = 1.0f;
    const std::int32_t label = 0;
    float loss, d[2];
    k.loss({kind, 1, 2, p, 2, y, 2, &label, &weight, nullptr, false, 0, 1, &loss, d, 2});
    CHECK(check::close(static_cast<double>(loss), -std::log(1e-7), 1e-2, 0) && d[0] == 0.0f && d[1] == 0.0f);
  }
}

void test_layer_norm(const Kernels& k) {
  Random random{11};
  for (const std::int64_t n : {1, 3, 16, 37})
    for (const bool affine : {false, true}) {
      Guarded x(n), dy(n), gamma(n), beta(n), y(n), dx(n), product(n), mean(1), inv_std(1);
      fill(x, n, random, -3, 5);
      fill(dy, n, random, -1, 1);
      fill(gamma, n, random, 0.5, 2);
      fill(beta, n, random, -1, 1);
      k.layer_norm({1, n, x.data(), n, affine ? gamma.data() : nullptr, affine ? beta.data() : nullptr, 1e-3f, y.data(),
                    n, mean.data(), inv_std.data()});
      k.layer_norm_backward({1, n, x.data(), n, dy.data(), n, affine ? gamma.data() : nullptr, mean.data(),
                             inv_std.data(), dx.data(), n, product.data(), n});
      const auto normalised = [](const Doubles& v) {
        double m = 0, s = 0;
        for (const double e : v) m += e / static_cast<double>(v.size());
        for (const double e : v) s += (e - m) * (e - m) / static_cast<double>(v.size());
        Doubles out;
        for (const double e : v) out.push_back((e - m) / std::sqrt(s + static_cast<double>(1e-3f)));
        return out;
      };
      const auto g = [&](std::int64_t i) { return affine ? static_cast<double>(gamma[i]) : 1.0; };
      const auto objective = [&](const Doubles& v) {
        double s = 0;
        const Doubles out = normalised(v);
        for (std::int64_t i = 0; i < n; ++i) s += out[static_cast<std::size_t>(i)] * g(i) * static_cast<double>(dy[i]);
        return s;
      };
      const Doubles at(x.data(), x.data() + n), hat = normalised(at);
      for (std::int64_t i = 0; i < n; ++i) {
        const auto j = static_cast<std::size_t>(i);
        const double want = hat[j] * g(i) + (affine ? static_cast<double>(beta[i]) : 0.0);
        CHECK(check::close(static_cast<double>(y[i]), want, 1e-5, 2e-6));
        CHECK(check::close(static_cast<double>(dx[i]), slope(objective, at, j), 1e-4, 2e-5));
        CHECK(check::close(static_cast<double>(product[i]), hat[j] * static_cast<double>(dy[i]), 1e-5, 2e-6));
      }
    }
}

// One column of some rows, more than a block of them, in doubles; beside it a row that is not listed.
void test_batch_norm(const Kernels& k) {
  Random random{17};
  for (const std::int64_t n : {1, 5, 16, 37}) {
    const std::int64_t rows = 2 * seqcore::kGradBlock + 7, m = rows - 1;
    Guarded x(rows * n), dy(rows * n), y(rows * n), dx(rows * n), gamma(n), beta(n);
    Guarded mean(n), variance(n), inv_std(n), factor(n), dbeta(n), dgamma(n);
    fill(x, rows * n, random, -3, 5);
    fill(dy, rows * n, random, -1, 1);
    fill(gamma, n, random, 0.5, 2);
    fill(beta, n, random, -1, 1);
    std::vector<std::int32_t> listed;
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(rows), 1);
    mask[3] = 0;
    for (std::int64_t r = 0; r < rows; ++r)
      if (mask[static_cast<std::size_t>(r)]) listed.push_back(static_cast<std::int32_t>(r));
    k.batch_moments({m, n, listed.data(), x.data(), n, mean.data(), variance.data()});
    k.batch_norm_scale(n, variance.data(), 1e-3f, gamma.data(), inv_std.data(), factor.data());
    k.batch_norm({rows, n, x.data(), n, mean.data(), factor.data(), beta.data(), y.data(), n});
    k.batch_norm_sums(
        {rows, n, nullptr, x.data(), n, dy.data(), n, mean.data(), inv_std.data(), dbeta.data(), dgamma.data()});
    k.batch_norm_backward({rows, n, x.data(), n, dy.data(), n, mean.data(), inv_std.data(), factor.data(), dbeta.data(),
                           dgamma.data(), mask.data(), 1.0f / static_cast<float>(m), dx.data(), n});
    for (std::int64_t c = 0; c < n; ++c) {
      const auto of = [&](const Guarded& all, std::int64_t r) { return static_cast<double>(all[r * n + c]); };
      const double count = static_cast<double>(m), g = static_cast<double>(gamma[c]);
      double mu = 0, sigma = 0, sum = 0, product = 0;
      for (const std::int32_t r : listed) mu += of(x, r) / count;
      for (const std::int32_t r : listed) sigma += (of(x, r) - mu) * (of(x, r) - mu) / count;
      const double inverse = 1 / std::sqrt(sigma + static_cast<double>(1e-3f));
      const auto hat = [&](std::int64_t r) { return (of(x, r) - mu) * inverse; };
      for (std::int64_t r = 0; r < rows; ++r) {
        sum += of(dy, r);
        product += of(dy, r) * hat(r);
      }
      CHECK(check::close(static_cast<double>(mean[c]), mu, 1e-5, 1e-5));
      CHECK(check::close(static_cast<double>(variance[c]), sigma, 1e-5, 0));
      CHECK(check::close(static_cast<double>(dbeta[c]), sum, 1e-5, 1e-4));
      CHECK(check::close(static_cast<double>(dgamma[c]), product, 1e-5, 1e-4));
      for (std::int64_t r = 0; r < rows; ++r) {
        const double counted = mask[static_cast<std::size_t>(r)] ? (sum + hat(r) * product) / count : 0.0;
        CHECK(check::close(of(y, r), hat(r) * g + static_cast<double>(beta[c]), 1e-5, 1e-5));
        CHECK(check::close(of(dx, r), inverse * g * (of(dy, r) - counted), 1e-4, 1e-5));
      }
    }
    k.batch_moments({0, n, listed.data(), x.data(), n, mean.data(), variance.data()});
    for (std::int64_t c = 0; c < n; ++c) CHECK(mean[c] == 0.0f && variance[c] == 0.0f);
  }
}

void test_sums(const Kernels& k) {
  Random random{13};
  const std::int64_t n = 10001;
  Guarded x(n);
  fill(x, n, random, -1, 1);
  double squares = 0, absolute = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    absolute += std::fabs(static_cast<double>(x[i]));
  }
  CHECK(check::close(k.sum_squares(n, x.data()), squares, 1e-6, 0));
  CHECK(check::close(k.sum_abs(n, x.data()), absolute, 1e-6, 0));
  CHECK(k.sum_squares(0, x.data()) == 0.0);
  // The order of ARCHITECTURE.md, spelled out on one block: 16 lanes, then halves.
  const std::int64_t m = 1003;
  float lane[16] = {};
  for (std::int64_t i = 0; i < m; ++i) lane[i % 16] += std::fabs(x[i]);
  for (int half = 8; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  CHECK(k.sum_abs(m, x.data()) == static_cast<double>(lane[0]));

  const std::int64_t rows = 700, columns = 13;
  Guarded y(columns), split(columns);
  k.column_sums(rows, columns, x.data(), columns, false, y.data());
  k.column_sums(512, columns, x.data(), columns, false, split.data());
  k.column_sums(rows - 512, columns, x.data() + 512 * columns, columns, true, split.data());
  for (std::int64_t c = 0; c < columns; ++c) {
    double want = 0;
    for (std::int64_t r = 0; r < rows; ++r) want += static_cast<double>(x[r * columns + c]);
    CHECK(check::close(static_cast<double>(y[c]), want, 1e-5, 1e-4) && y[c] == split[c]);
  }
  k.column_sums(0, columns, x.data(), columns, false, y.data());
  CHECK(y[0] == 0.0f && y[columns - 1] == 0.0f);
}

void test_elementwise(const Kernels& k) {
  const float a[] = {1.0f, NAN, -7.0f, 3.0f}, b[] = {2.0f, 1.0f, 0.5f, HUGE_VALF};
  float y[4];
  k.add(4, a, b, y);
  CHECK(y[0] == 3.0f && std::isnan(y[1]) && y[2] == -6.5f && y[3] == HUGE_VALF);
  k.multiply(4, a, b, y);
  CHECK(y[0] == 2.0f && y[2] == -3.5f);
  k.scale(4, -2.0f, a, y);
  CHECK(y[0] == -2.0f && y[2] == 14.0f);
  k.axpy(4, 2.0f, b, y);
  CHECK(y[0] == 2.0f && y[2] == 15.0f);
  k.clip(4, -1.0f, 2.5f, y);
  CHECK(y[0] == 2.0f && std::isnan(y[1]) && y[2] == 2.5f && y[3] == 2.5f);
}

void test_dropout(const Kernels& k) {
  const std::int64_t n = 1000;
  const float rate = 0.37f;
  Guarded whole(n);
  for (const std::uint64_t index : {0ull, 3ull, (1ull << 34) - 5}) {
    const seqcore::Philox stream{0x123456789abcdefull, 0xfedcba9876543210ull};
    k.dropout_mask(stream.key, stream.counter, index, n, rate, whole.data());
    for (std::int64_t i = 0; i < n; ++i) {
      const bool kept = stream.uniform(index + static_cast<std::uint64_t>(i)) >= rate;
      CHECK(whole[i] == (kept ? 1.0f / (1.0f - rate) : 0.0f));
    }
    Guarded part(n - 129);
    k.dropout_mask(stream.key, stream.counter, index + 129, n - 129, rate, part.data());
    CHECK(std::memcmp(part.data(), whole.data() + 129, sizeof(float) * static_cast<std::size_t>(n - 129)) == 0);
  }
}

void test_normals(const Kernels& k) {
  const std::int64_t n = 20000;
  Guarded whole(n), part(n - 129);
  const seqcore::Philox stream{0x123456789abcdefull, 0xfedcba9876543210ull};
  for (const std::uint64_t index : {0ull, 3ull, (1ull << 34) - 5}) {
    k.normals(stream.key, stream.counter, index, n, 0, 1, whole.data());
    for (std::int64_t i = 0; i < n; ++i) {
      // One step of Newton's from what came out to the quantile.
      const double p = (static_cast<double>(stream.word(index + static_cast<std::uint64_t>(i)) >> 8) + 0.5) * 0x1p-24;
      const auto z = static_cast<double>(whole[i]), tail = std::fmin(p, 1 - p);
      const double beyond = 0.5 * std::erfc(std::fabs(z) / std::sqrt(2.0));
      const double step = (beyond - tail) * std::sqrt(2 * 3.14159265358979323846) * std::exp(z * z / 2);
      CHECK(std::fabs(step) <= 1e-6 * std::fabs(z) && (z > 0) == (p > 0.5));
    }
    k.normals(stream.key, stream.counter, index + 129, n - 129, 0, 1, part.data());
    CHECK(std::memcmp(part.data(), whole.data() + 129, sizeof(float) * static_cast<std::size_t>(n - 129)) == 0);
    k.normals(stream.key, stream.counter, index, n - 129, -2, 0.5f, part.data());
    for (std::int64_t i = 0; i < n - 129; ++i) CHECK(part[i] == std::fma(0.5f, whole[i], -2.0f));
  }
}

void test_optimizers(const Kernels& k) {
  const double p = 0.5, g = -0.25, m = 0.125, v = 0.0625, alpha = 0.01, b1 = 0.1, b2 = 0.001, eps = 1e-7, decay = 0.01;
  for (const bool amsgrad : {false, true}) {
    float fp = 0.5f, fm = 0.125f, fv = 0.0625f, hat = 0.5f;
    const float fg = -0.25f;
    k.adam({1, &fp, &fg, &fm, &fv, amsgrad ? &hat : nullptr, 0.01f, 0.1f, 0.001f, 1e-7f, 0.01f});
    const double m1 = m + (g - m) * b1, v1 = v + (g * g - v) * b2, used = amsgrad ? 0.5 : v1;
    CHECK(check::close(static_cast<double>(fm), m1, 1e-6, 0) && check::close(static_cast<double>(fv), v1, 1e-6, 0));
    CHECK(check::close(static_cast<double>(fp), p - p * decay - m1 * alpha / (std::sqrt(used) + eps), 1e-6, 0));
    CHECK(hat == 0.5f);
  }
  for (const int kind : {0, 1, 2}) {  // plain, momentum, nesterov
    float fp = 0.5f, fm = 0.125f;
    const float fg = -0.25f;
    k.sgd({1, &fp, &fg, kind ? &fm : nullptr, 0.1f, 0.9f, kind == 2, 0.01f});
    const double m1 = 0.9 * m - 0.1 * g, base = p - p * decay;
    const double want = kind == 0 ? base - 0.1 * g : kind == 1 ? base + m1 : base + 0.9 * m1 - 0.1 * g;
    CHECK(check::close(static_cast<double>(fp), want, 1e-6, 0));
    CHECK(check::close(static_cast<double>(fm), kind ? m1 : m, 1e-6, 0));
  }
}

void test_rmsprop(const Kernels& k) {
  const double p = 0.5, g = -0.25, v = 0.0625, share = 0.1, eps = 1e-3, decay = 0.01;
  for (const int kind : {0, 1, 2, 3}) {
    const bool centered = kind & 1, momentum = kind & 2;
    float fp = 0.5f, fv = 0.0625f, mean = 0.125f, m = 0.25f;
    const float fg = -0.25f;
    k.rmsprop({1, &fp, &fg, &fv, centered ? &mean : nullptr, momentum ? &m : nullptr, 0.01f, 0.9f, 0.1f, 1e-3f, 0.01f});
    const double v1 = v + (g * g - v) * share, mean1 = 0.125 + (g - 0.125) * share;
    double step = 0.01 * g / std::sqrt(v1 - (centered ? mean1 * mean1 : 0) + eps);
    if (momentum) step += 0.9 * 0.25;
    CHECK(check::close(static_cast<double>(fv), v1, 1e-6, 0));
    CHECK(check::close(static_cast<double>(mean), centered ? mean1 : 0.125, 1e-6, 0));
    CHECK(check::close(static_cast<double>(m), momentum ? step : 0.25, 1e-6, 0));
    CHECK(check::close(static_cast<double>(fp), p - p * decay - step, 1e-6, 0));
  }
  float fp = 1, fv = 1, mean = 1.0001f;  // less than nothing is left of v
  const float fg = 1;
  k.rmsprop({1, &fp, &fg, &fv, &mean, nullptr, 0.001f, 0, 0.5f, 1e-7f, 0});
  CHECK(std::isfinite(fp));
}

void test_dispatch() {
  CHECK(seqcore::kernels_for("scalar") != nullptr);
  CHECK(seqcore::kernels_for("AVX2") == nullptr && seqcore::kernels_for("") == nullptr);
  const std::vector<const char*> isas = seqcore::available_isas();
  CHECK(std::strcmp(isas.front(), "scalar") == 0);
  for (const char* isa : isas) {
    const Kernels* k = seqcore::kernels_for(isa);
    CHECK(k && std::strcmp(k->isa, isa) == 0 && seqcore::kPad % k->width == 0);
  }
  // A bad choice throws each time it is asked for, and the next good one is taken.
  setenv("SEQCORE_ISA", "sse9", 1);
  CHECK_THROWS(seqcore::kernels(), std::invalid_argument);
  setenv("SEQCORE_ISA", "scalar", 1);
  CHECK(&seqcore::kernels() == seqcore::kernels_for("scalar"));
}

}  // namespace

int main() {
  test_isas_agree();
  {
    const seqcore::FlushGuard guard;
    const Kernels& best = *seqcore::kernels_for(seqcore::available_isas().back());
    test_activations(best);
    test_rectify(best);
    test_rowwise(best);
    test_sparsemax(best);
    test_losses(best);
    test_layer_norm(best);
    test_batch_norm(best);
    test_sums(best);
    test_elementwise(best);
    test_dropout(best);
    test_normals(best);
    test_optimizers(best);
    test_rmsprop(best);
  }
  test_dispatch();
  return check::report();
}
