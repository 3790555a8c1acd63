// Initializers: Keras's ranges, moments and fans, the same bits for any number of threads, and bad configs by name.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "base/parallel.h"
#include "base/philox.h"
#include "kernels/dispatch.h"
#include "model/initializers.h"
#include "says.h"

using namespace seqcore;

namespace {

using Shape = std::vector<std::int64_t>;

std::vector<float> make(const std::string& name, const std::string& config, const Shape& shape,
                        std::uint64_t seed = 1) {
  std::int64_t n = 1;
  for (const std::int64_t size : shape) n *= size;
  std::vector<float> out(static_cast<std::size_t>(n), 777.0f);
  initialize(Json::parse("{\"class_name\":\"" + name + "\",\"config\":" + config + "}"), shape, seed, out.data());
  return out;
}

struct Moments {
  double mean = 0, deviation = 0, fourth = 0, low = 0, high = 0;
};
Moments moments(const std::vector<float>& x) {
  Moments m;
  const auto n = static_cast<double>(x.size());
  m.mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  for (const float v : x) m.deviation += (v - m.mean) * (v - m.mean) / n;
  m.deviation = std::sqrt(m.deviation);
  for (const float v : x) m.fourth += std::pow((v - m.mean) / m.deviation, 4) / n;
  m.low = *std::min_element(x.begin(), x.end());
  m.high = *std::max_element(x.begin(), x.end());
  return m;
}

// Mean, deviation and kurtosis as sampled from n = 250,000, within five or so standard errors; all in [low, high] and
// close to its ends.
void check_moments(const std::vector<float>& x, double mean, double deviation, double kurtosis, double half_range) {
  const Moments m = moments(x);
  CHECK(std::abs(m.mean - mean) < 0.01 * deviation);
  CHECK(std::abs(m.deviation / deviation - 1) < 0.01);
  CHECK(std::abs(m.fourth / kurtosis - 1) < 0.03);
  CHECK(m.low >= mean - half_range * 1.000001 && m.low < mean - half_range * 0.99);
  CHECK(m.high <= mean + half_range * 1.000001 && m.high > mean + half_range * 0.99);
}

constexpr double kCut = 0.87962566103423978;  // deviation of a standard normal cut at 2
constexpr double kCutKurtosis = 2.36483;

void test_plain() {
  CHECK(make("Zeros", "{}", {2, 3}) == std::vector<float>(6, 0.0f));
  CHECK(make("Ones", "{}", {4}) == std::vector<float>(4, 1.0f));
  CHECK(make("Constant", "{\"value\":-2.5}", {1, 1, 2}) == std::vector<float>(2, -2.5f));
  CHECK(make("Constant", "{\"value\":3}", {}) == std::vector<float>(1, 3.0f));
  CHECK(make("Constant", "{}", {2}) == std::vector<float>(2, 0.0f));
  CHECK(make("Identity", "{\"gain\":2}", {2, 3}) == (std::vector<float>{2, 0, 0, 0, 2, 0}));
  CHECK(make("GlorotUniform", "{}", {0, 5}).empty() && make("Orthogonal", "{}", {0, 5}).empty());
  std::vector<float> out(1);
  initialize(Json::parse("{\"class_name\":\"Ones\"}"), {1}, 0, out.data());
  CHECK(out[0] == 1);
}

void test_distributions() {
  const Shape shape{500, 500};
  const double sqrt3 = std::sqrt(3.0);
  check_moments(make("RandomUniform", "{}", shape), 0, 0.05 / sqrt3, 1.8, 0.05);
  check_moments(make("RandomUniform", "{\"minval\":1,\"maxval\":3}", shape), 2, 1 / sqrt3, 1.8, 1);
  check_moments(make("TruncatedNormal", "{\"mean\":1,\"stddev\":2}", shape), 1, 2 * kCut, kCutKurtosis, 4);
  const Moments normal = moments(make("RandomNormal", "{\"mean\":-1,\"stddev\":2}", shape));
  CHECK(std::abs(normal.mean + 1) < 0.02 && std::abs(normal.deviation - 2) < 0.02 &&
        std::abs(normal.fourth - 3) < 0.08);
  CHECK(normal.high > 6 && normal.high < 12 && normal.low < -8 && normal.low > -14);
  CHECK(std::abs(moments(make("RandomNormal", "{}", shape)).deviation - 0.05) < 0.0005);

  // A normal's share below some quantiles, by erfc.
  std::vector<float> sorted = make("RandomNormal", "{\"stddev\":1}", {1000000});
  std::sort(sorted.begin(), sorted.end());
  for (const double z : {-3.5, -2.0, -1.0, -0.5, 0.0, 0.3, 1.5, 2.5, 3.2}) {
    const double share =
        static_cast<double>(std::lower_bound(sorted.begin(), sorted.end(), static_cast<float>(z)) - sorted.begin()) /
        1e6;
    const double p = 0.5 * std::erfc(-z / std::sqrt(2.0));
    CHECK(std::abs(share - p) < 5 * std::sqrt(p * (1 - p) / 1e6));
  }
}

void test_fans() {
  struct {
    const char* name;
    const char* config;
    Shape shape;
    double variance;
    bool uniform;
  } const cases[] = {
      {"GlorotUniform", "{}", {500, 500}, 2.0 / 1000, true},
      {"GlorotUniform", "{}", {100, 2500}, 2.0 / 2600, true},
      {"GlorotNormal", "{}", {100, 2500}, 2.0 / 2600, false},
      {"HeUniform", "{}", {100, 2500}, 2.0 / 100, true},
      {"HeNormal", "{\"seed\":null}", {100, 2500}, 2.0 / 100, false},
      {"LecunUniform", "{}", {100, 2500}, 1.0 / 100, true},
      {"LecunNormal", "{}", {100, 2500}, 1.0 / 100, false},
      {"LecunNormal", "{}", {250000}, 1.0 / 250000, false},
      {"GlorotUniform", "{}", {5, 5, 100, 100}, 2.0 / 5000, true},
      {"HeNormal", "{}", {5, 10, 50, 100}, 2.0 / 2500, false},
      {"VarianceScaling", "{}", {100, 2500}, 1.0 / 100, false},
      {"VarianceScaling", R"({"scale":3,"mode":"fan_out","distribution":"uniform"})", {100, 2500}, 3.0 / 2500, true},
      {"VarianceScaling", R"({"scale":0.5,"mode":"fan_avg","distribution":"normal"})", {100, 2500}, 0.5 / 1300, false},
  };
  for (const auto& c : cases) {
    const double deviation = std::sqrt(c.variance);
    check_moments(make(c.name, c.config, c.shape), 0, deviation, c.uniform ? 1.8 : kCutKurtosis,
                  deviation * (c.uniform ? std::sqrt(3.0) : 2 / kCut));
  }
  const Moments plain = moments(make("VarianceScaling", "{\"distribution\":\"untruncated_normal\"}", {100, 2500}));
  CHECK(std::abs(plain.deviation - 0.1) < 0.001 && plain.high > 0.35);
}

void test_orthogonal() {
  struct {
    Shape shape;
    double gain;
  } const cases[] = {{{1, 1}, 1},   {{2, 2}, 1},    {{1, 5}, 1},    {{5, 1}, 2},    {{7, 9}, 1},    {{8, 8}, 1},
                     {{9, 7}, 0.5}, {{64, 256}, 1}, {{100, 33}, 1}, {{3, 4, 5}, 1}, {{130, 130}, 1}};
  for (const auto& c : cases) {
    const std::int64_t cols = c.shape.back(),
                       rows = std::accumulate(c.shape.begin(), c.shape.end() - 1, std::int64_t{1},
                                              [](auto a, auto b) { return a * b; });
    const std::vector<float> q = make("Orthogonal", "{\"gain\":" + std::to_string(c.gain) + "}", c.shape);
    const bool wide = rows < cols;
    double worst = 0;
    for (std::int64_t i = 0; i < std::min(rows, cols); ++i) {
      for (std::int64_t j = 0; j <= i; ++j) {
        double dot = 0;
        for (std::int64_t k = 0; k < std::max(rows, cols); ++k) {
          const auto at = [&](std::int64_t v) { return static_cast<std::size_t>(wide ? v * cols + k : k * cols + v); };
          dot += double{q[at(i)]} * q[at(j)];
        }
        worst = std::max(worst, std::abs(dot - (i == j ? c.gain * c.gain : 0)));
      }
    }
    CHECK(worst < 5e-7);
  }
  // Keras's Q has R's diagonal positive: for one column it is the normalised normal vector itself.
  const std::vector<float> q = make("Orthogonal", "{}", {50, 1}), a = make("RandomNormal", "{\"stddev\":1}", {50, 1});
  double norm = 0;
  for (const float v : a) norm += double{v} * v;
  for (std::size_t i = 0; i < q.size(); ++i) CHECK(std::abs(q[i] - a[i] / std::sqrt(norm)) < 1e-6);
  // Spread evenly: entries of a random rotation have mean 0, also on the diagonal.
  double trace = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const std::vector<float> r = make("Orthogonal", "{}", {4, 4}, seed);
    trace += double{r[0]} + r[5] + r[10] + r[15];
  }
  CHECK(std::abs(trace / 1600) < 0.05);
}

// What kernels.h says of `reflect`, element by element.
void reflect_plainly(const ReflectArgs& a) {
  for (std::int64_t k = 0; k < a.columns; ++k) {
    double* const c = a.c + k * a.column;
    const std::int64_t step = a.first <= a.last ? 1 : -1;
    const double* v = a.v;
    for (std::int64_t j = a.first; j != a.last + step; j += step, v += step * a.column) {
      double lane[kReflectLanes] = {};
      for (std::int64_t i = 0; i < a.rows; ++i) lane[i % kReflectLanes] += c[i] * v[i];
      for (std::int64_t half = kReflectLanes / 2; half > 0; half /= 2)
        for (std::int64_t l = 0; l < half; ++l) lane[l] += lane[l + half];
      for (std::int64_t i = 0; i < a.rows; ++i) c[i] -= lane[0] * v[i];
    }
  }
}

void test_reflections() {
  std::uint64_t drawn = 0;
  const Philox stream{3, 0};
  const auto numbers = [&](std::int64_t n) {
    std::vector<double> x(static_cast<std::size_t>(n));
    for (double& value : x) value = static_cast<double>(stream.word(drawn++)) * 0x1p-31 - 1;
    return x;
  };
  for (const char* isa : available_isas()) {
    const Kernels& k = *kernels_for(isa);
    for (const std::int64_t rows : {8, 16, 40})
      for (const std::int64_t columns : {0, 1, 2, 3, 4, 5, 7, 8})
        for (const auto& [first, last] :
             {std::pair<int, int>{0, 0}, {0, 5}, {5, 0}, {7, 7}, {3, 7}, {7, 2}, {6, 9}, {9, 6}}) {
          if (std::max(first, last) >= rows) continue;
          const std::int64_t ld = rows + 8, count = std::abs(last - first) + 1;
          std::vector<double> v = numbers(ld * count), c = numbers(ld * (columns + 1));
          for (std::int64_t j = 0; j < count; ++j)  // number min + j is zero before its row
            std::fill_n(v.begin() + j * ld, std::min(first, last) + j, 0.0);
          std::vector<double> plain = c;
          const double* const from = v.data() + (first <= last ? 0 : (count - 1) * ld);
          k.reflect({rows, ld, c.data(), columns, from, first, last});
          reflect_plainly({rows, ld, plain.data(), columns, from, first, last});
          CHECK(c == plain);
        }
    const std::vector<double> x = numbers(24);
    double lane[kReflectLanes];
    for (std::size_t l = 0; l < 8; ++l) lane[l] = x[l] * x[l] + x[l + 8] * x[l + 8] + x[l + 16] * x[l + 16];
    CHECK(k.squared_norm(24, x.data()) ==
          ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])));
    CHECK(k.squared_norm(0, nullptr) == 0);
  }
}

void test_one_order() {
  for (const char* name : {"Orthogonal", "GlorotUniform", "HeNormal"}) {
    set_num_threads(1);
    const std::vector<float> one = make(name, "{}", {100, 300});
    for (const int threads : {2, 3, 7}) {
      set_num_threads(threads);
      CHECK(make(name, "{}", {100, 300}) == one);
    }
    CHECK(make(name, "{}", {100, 300}, 2) != one);
    CHECK(make(name, "{\"seed\":1}", {100, 300}, 99) == one);
    CHECK(make(name, "{\"seed\":-1}", {100, 300}, 1) == make(name, "{}", {100, 300}, ~std::uint64_t{0}));
  }
  // An entry depends on (seed, index) alone, not on the shape's other sizes.
  const std::vector<float> small = make("RandomNormal", "{}", {10}), large = make("RandomNormal", "{}", {1000});
  CHECK(std::equal(small.begin(), small.end(), large.begin()));
  // RandomUniform: pairs of words, 52 bits, rounded once.
  const Philox stream{mix_seed(1, 0x696E6974), 0};
  const std::vector<float> u = make("RandomUniform", "{\"minval\":0,\"maxval\":1}", {9});
  for (std::uint64_t i = 0; i < 9; ++i) {
    const double bits = static_cast<double>((std::uint64_t{stream.word(2 * i + 1)} << 32 | stream.word(2 * i)) >> 12);
    CHECK(u[i] == static_cast<float>((bits + 0.5) / 4503599627370496.0));
  }
}

void test_bad_configs() {
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "expected an object"},
      {"{}", "class_name must be a string"},
      {"{\"class_name\":1}", "class_name must be a string"},
      {"{\"class_name\":\"Xavier\"}", "unknown class_name 'Xavier'"},
      {"{\"class_name\":\"zeros\"}", "unknown class_name 'zeros'"},
      {"{\"class_name\":\"Zeros\",\"x\":1}", "unknown key 'x'"},
      {"{\"class_name\":\"Zeros\",\"config\":1}", "initializer Zeros: config must be an object"},
      {"{\"class_name\":\"Zeros\",\"config\":{\"seed\":1}}", "initializer Zeros: unknown key 'seed'; it takes none"},
      {"{\"class_name\":\"RandomNormal\",\"config\":{\"std\":1}}", "unknown key 'std'; it takes mean, stddev, seed"},
      {R"({"class_name":"RandomNormal","config":{"stddev":"1"}})", "stddev: expected a number, found a string '1'"},
      {"{\"class_name\":\"RandomNormal\",\"config\":{\"stddev\":null}}", "stddev: expected a number, found null"},
      {"{\"class_name\":\"RandomNormal\",\"config\":{\"seed\":0.5}}", "seed: expected an integer, found a number 0.5"},
      {"{\"class_name\":\"Constant\",\"config\":{\"value\":true}}", "value: expected a number, found a boolean"},
      {"{\"class_name\":\"VarianceScaling\",\"config\":{\"scale\":0}}", "scale must be above 0, got 0"},
      {"{\"class_name\":\"VarianceScaling\",\"config\":{\"mode\":\"fan\"}}", "mode must be fan_in, fan_out or fan_avg"},
      {"{\"class_name\":\"VarianceScaling\",\"config\":{\"distribution\":\"x\"}}", "distribution must be uniform"},
      {"{\"class_name\":\"GlorotUniform\",\"config\":{\"scale\":1}}", "unknown key 'scale'; it takes seed"},
  };
  float out = 777;
  for (const auto& bad : cases)
    CHECK_SAYS(std::invalid_argument, bad.second, initialize(Json::parse(bad.first), {1}, 1, &out));
  CHECK(make("Orthogonal", "{\"seed\":null}", {2, 2}) == make("Orthogonal", "{}", {2, 2}));
  CHECK_SAYS(std::invalid_argument, "Orthogonal: needs two axes or more, got 1", make("Orthogonal", "{}", {1}));
  CHECK_SAYS(std::invalid_argument, "Identity: needs two axes, got 3", make("Identity", "{}", {1, 1, 1}));
  CHECK(out == 777);
}

}  // namespace

int main() {
  test_plain();
  test_distributions();
  test_fans();
  test_orthogonal();
  test_reflections();
  test_one_order();
  test_bad_configs();
  return check::report();
}
