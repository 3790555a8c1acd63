#include "model/initializers.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/flush_guard.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "base/shape.h"
#include "base/utf8.h"
#include "kernels/dispatch.h"

namespace seqcore {
namespace {

// ------------------------------------------------------------------------------------------------------- what is asked

enum class Kind { constant, uniform, normal, truncated_normal, variance_scaling, orthogonal, identity };
enum class Mode { fan_in, fan_out, fan_avg };

struct Spec {
  Kind kind;
  double a = 0, b = 0;  // value | low, high | mean, stddev | scale, - | gain
  Mode mode = Mode::fan_in;
  Kind distribution = Kind::truncated_normal;  // of variance_scaling
  const Json* seed = nullptr;
  const Json* values = nullptr;  // of constant, where they are several: nested lists
};

// The config of one initializer, read key by key; what nobody asked for is refused at the end.
class Config {
 public:
  Config(std::string who, const Json* config) : who_("initializer " + std::move(who)), config_(config) {
    if (config_ != nullptr && !config_->is_object()) throw std::invalid_argument(who_ + ": config must be an object");
  }
  const Json* find(std::string_view key) {
    known_.push_back(key);
    return config_ == nullptr ? nullptr : config_->find(key);
  }
  double number(std::string_view key, double otherwise) {
    return read(key, otherwise, [](const Json& json) { return json.as_number(); });
  }
  std::string string(std::string_view key, std::string otherwise) {
    return read(key, std::move(otherwise), [](const Json& json) { return json.as_string(); });
  }
  const Json* seed() {
    const Json* seed = find("seed");
    if (seed == nullptr || seed->is_null()) return nullptr;
    read("seed", std::int64_t{0}, [](const Json& json) { return json.as_integer(); });
    return seed;
  }
  void end() const {
    if (config_ == nullptr) return;
    for (const auto& member : config_->as_object()) {
      if (std::find(known_.begin(), known_.end(), member.first) != known_.end()) continue;
      std::string takes;
      for (const std::string_view key : known_) takes += (takes.empty() ? "" : ", ") + std::string(key);
      refuse("unknown key " + quoted(member.first) + "; it takes " + (takes.empty() ? "none" : takes));
    }
  }
  [[noreturn]] void refuse(const std::string& why) const { throw std::invalid_argument(who_ + ": " + why); }

 private:
  template <class T, class F>
  T read(std::string_view key, T otherwise, F&& as) {
    const Json* json = find(key);
    if (json == nullptr) return otherwise;
    try {
      return as(*json);
    } catch (const std::invalid_argument& error) {
      refuse(std::string(key) + ": " + error.what());
    }
  }
  std::string who_;
  const Json* config_;
  std::vector<std::string_view> known_;
};

Spec variance_scaling(double scale, Mode mode, Kind distribution) {
  Spec spec{Kind::variance_scaling, scale};
  spec.mode = mode;
  spec.distribution = distribution;
  return spec;
}

Spec read_spec(const Json& json) {
  if (!json.is_object()) throw std::invalid_argument("initializer: expected an object with class_name and config");
  for (const auto& member : json.as_object()) {
    if (member.first != "class_name" && member.first != "config") {
      throw std::invalid_argument("initializer: unknown key " + quoted(member.first) + "; it takes class_name, config");
    }
  }
  const Json* class_name = json.find("class_name");
  if (class_name == nullptr || !class_name->is_string()) {
    throw std::invalid_argument("initializer: class_name must be a string");
  }
  const std::string& name = class_name->as_string();
  Config config(name, json.find("config"));
  Spec spec{};
  bool random = true;
  if (name == "Zeros" || name == "Ones" || name == "Constant") {
    random = false;
    const Json* value = name == "Constant" ? config.find("value") : nullptr;
    spec = {Kind::constant};
    if (value && value->is_array())
      spec.values = value;
    else
      spec.a = name == "Constant" ? config.number("value", 0) : name == "Ones" ? 1.0 : 0.0;
  } else if (name == "RandomUniform") {
    spec = {Kind::uniform, config.number("minval", -0.05), config.number("maxval", 0.05)};
  } else if (name == "RandomNormal" || name == "TruncatedNormal") {
    spec = {name == "RandomNormal" ? Kind::normal : Kind::truncated_normal, config.number("mean", 0),
            config.number("stddev", 0.05)};
  } else if (name == "VarianceScaling") {
    const double scale = config.number("scale", 1);
    const std::string mode = config.string("mode", "fan_in");
    const std::string shape = config.string("distribution", "truncated_normal");
    if (!(scale > 0)) config.refuse("scale must be above 0, got " + Json(scale).dump());
    if (mode != "fan_in" && mode != "fan_out" && mode != "fan_avg") {
      config.refuse("mode must be fan_in, fan_out or fan_avg, got " + quoted(mode));
    }
    if (shape != "uniform" && shape != "normal" && shape != "truncated_normal" && shape != "untruncated_normal") {
      config.refuse("distribution must be uniform, truncated_normal or untruncated_normal, got " + quoted(shape));
    }
    spec = variance_scaling(scale,
                            mode == "fan_in"    ? Mode::fan_in
                            : mode == "fan_out" ? Mode::fan_out
                                                : Mode::fan_avg,
                            shape == "uniform"              ? Kind::uniform
                            : shape == "untruncated_normal" ? Kind::normal
                                                            : Kind::truncated_normal);
  } else if (name == "GlorotUniform") {
    spec = variance_scaling(1, Mode::fan_avg, Kind::uniform);
  } else if (name == "GlorotNormal") {
    spec = variance_scaling(1, Mode::fan_avg, Kind::truncated_normal);
  } else if (name == "HeUniform") {
    spec = variance_scaling(2, Mode::fan_in, Kind::uniform);
  } else if (name == "HeNormal") {
    spec = variance_scaling(2, Mode::fan_in, Kind::truncated_normal);
  } else if (name == "LecunUniform") {
    spec = variance_scaling(1, Mode::fan_in, Kind::uniform);
  } else if (name == "LecunNormal") {
    spec = variance_scaling(1, Mode::fan_in, Kind::truncated_normal);
  } else if (name == "Orthogonal") {
    spec = {Kind::orthogonal, config.number("gain", 1)};
  } else if (name == "Identity") {
    random = false;
    spec = {Kind::identity, config.number("gain", 1)};
  } else {
    throw std::invalid_argument("initializer: unknown class_name " + quoted(name));
  }
  if (random) spec.seed = config.seed();
  config.end();
  return spec;
}

// ------------------------------------------------------------------------------------ numbers without libm (sqrt only)

// Natural logarithm of a normal x > 0: x = m 2^e, m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m-1)/(m+1)).
double own_log(double x) {
  int exponent;
  double m = std::frexp(x, &exponent);
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1) / (m + 1), q = s * s;
  double sum = 0;
  for (int k = 25; k >= 1; k -= 2) sum = sum * q + 1.0 / k;
  return exponent * 0.69314718055994531 + 2 * s * sum;
}

double polynomial(const double (&c)[8], double x) {
  double sum = c[7];
  for (int i = 6; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

// The standard normal's quantile, p in (0, 1): Wichura, "Algorithm AS 241: The percentage points of the normal
// distribution", Applied Statistics 37 (1988), PPND16; relative error about 1e-16.
double normal_quantile(double p) {
  static constexpr double a[8] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
                                  1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
                                  3.3430575583588128105e4, 2.5090809287301226727e3};
  static constexpr double b[8] = {1.0,
                                  4.2313330701600911252e1,
                                  6.8718700749205790830e2,
                                  5.3941960214247511077e3,
                                  2.1213794301586595867e4,
                                  3.9307895800092710610e4,
                                  2.8729085735721942674e4,
                                  5.2264952788528545610e3};
  static constexpr double c[8] = {1.42343711074968357734e0,  4.63033784615654529590e0, 5.76949722146069140550e0,
                                  3.64784832476320460504e0,  1.27045825245236838258e0, 2.41780725177450611770e-1,
                                  2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static constexpr double d[8] = {1.0,
                                  2.05319162663775882187e0,
                                  1.67638483018380384940e0,
                                  6.89767334985100004550e-1,
                                  1.48103976427480074590e-1,
                                  1.51986665636164571966e-2,
                                  5.47593808499534494600e-4,
                                  1.05075007164441684324e-9};
  static constexpr double e[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,
                                  2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                  2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static constexpr double f[8] = {1.0,
                                  5.99832206555887937690e-1,
                                  1.36929880922735805310e-1,
                                  1.48753612908506148525e-2,
                                  7.86869131145613259100e-4,
                                  1.84631831751005468180e-5,
                                  1.42151175831644588870e-7,
                                  2.04426310338993978564e-15};
  const double q = p - 0.5;
  if (std::abs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(a, r) / polynomial(b, r);
  }
  const double r = std::sqrt(-own_log(q < 0 ? p : 1 - p));
  const double z =
      r <= 5 ? polynomial(c, r - 1.6) / polynomial(d, r - 1.6) : polynomial(e, r - 5) / polynomial(f, r - 5);
  return q < 0 ? -z : z;
}

// Cut at two deviations.
double truncated_quantile(double p) {
  constexpr double below = 0.022750131948179207;  // of a normal's mass below -2
  return normal_quantile(below + (1 - 2 * below) * p);
}

struct Sampler {
  Philox stream;

  // Of a block, the first or the second: in (0, 1), symmetric about 1/2, 52 bits.
  static double uniform(const Philox::Block& block, std::uint64_t half) {
    const std::uint32_t* word = block.word + 2 * half;
    const std::uint64_t bits = (std::uint64_t{word[1]} << 32 | word[0]) >> 12;
    return (static_cast<double>(bits) + 0.5) * 0x1p-52;
  }
  double uniform(std::uint64_t index) const { return uniform(stream.block(index / 2), index % 2); }

  // out[i] = value(uniform(i)) for i < n.
  template <class F>
  void each(std::int64_t n, float* out, F value) const {
    constexpr std::int64_t kPiece = 4096;  // some hundred microseconds; even, as two come from a block
    parallel_for((n + kPiece - 1) / kPiece, 0, [&](std::int64_t task, int) {
      const std::int64_t end = std::min(n, (task + 1) * kPiece);
      for (std::int64_t i = task * kPiece; i < end; i += 2) {
        const Philox::Block block = stream.block(static_cast<std::uint64_t>(i / 2));
        out[i] = static_cast<float>(value(uniform(block, 0)));
        if (i + 1 < end) out[i + 1] = static_cast<float>(value(uniform(block, 1)));
      }
    });
  }
};

// ---------------------------------------------------------------------------------------------------------- orthogonal

constexpr std::int64_t kGroup = 16;  // reflections applied while they are in the cache; no bit depends on it

// The Q of a normal m x n matrix (m >= n) with the signs that make R's diagonal positive, by Householder reflections
// I - v vT. Every column meets the reflections one by one in order, so neither kGroup nor the threads change a bit.
class Orthonormal {
 public:
  Orthonormal(const Sampler& sampler, std::int64_t m, std::int64_t n)
      : m_(m),
        n_(n),
        ld_((m + kReflectLanes - 1) / kReflectLanes * kReflectLanes),
        columns_(static_cast<std::size_t>(ld_ * n)) {
    std::vector<double> sign(static_cast<std::size_t>(n));
    each_group(0, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t k = from; k < to; ++k)
        for (std::int64_t r = 0; r < m; ++r)
          column(k)[r] = normal_quantile(sampler.uniform(static_cast<std::uint64_t>(r * n + k)));
    });
    for (std::int64_t begin = 0; begin < n; begin += kGroup) {
      const std::int64_t end = std::min(n, begin + kGroup);
      for (std::int64_t k = begin; k < end; ++k) {
        if (k > begin) reflect(k, k + 1, column(begin), begin, k - 1);
        sign[static_cast<std::size_t>(k)] = make_reflection(k);
      }
      each_group(end, [&](std::int64_t from, std::int64_t to) { reflect(from, to, column(begin), begin, end - 1); });
    }
    // Column k of Q is H_0 … H_k e_k (later reflections leave e_k alone); it takes the place of v_k, by then in `group`.
    std::vector<double> group(static_cast<std::size_t>(ld_ * kGroup));
    for (std::int64_t begin = (n - 1) / kGroup * kGroup; begin >= 0; begin -= kGroup) {
      const std::int64_t end = std::min(n, begin + kGroup);
      std::copy(column(begin), column(begin) + (end - begin) * ld_, group.data());
      std::fill(column(begin), column(begin) + (end - begin) * ld_, 0.0);
      const auto v = [&](std::int64_t k) { return group.data() + (k - begin) * ld_; };
      for (std::int64_t k = begin; k < end; ++k) {
        column(k)[k] = sign[static_cast<std::size_t>(k)];
        reflect(k, k + 1, v(k), k, begin);
      }
      each_group(end, [&](std::int64_t from, std::int64_t to) { reflect(from, to, v(end - 1), end - 1, begin); });
    }
  }
  double* column(std::int64_t k) { return columns_.data() + k * ld_; }

 private:
  // work(from, to) for kGroup columns at a time.
  template <class F>
  void each_group(std::int64_t begin, F&& work) const {
    parallel_for((n_ - begin + kGroup - 1) / kGroup, 0, [&](std::int64_t task, int) {
      const std::int64_t from = begin + task * kGroup;
      work(from, std::min(n_, from + kGroup));
    });
  }

  // Turns column k into the v (0 above row k, |v|^2 = 2) that takes it to R's column; returns the sign of R's diagonal.
  double make_reflection(std::int64_t k) {
    double* v = column(k);
    std::fill(v, v + k, 0.0);
    const double norm = std::sqrt(kernels().squared_norm(ld_, v));
    const double sign = v[k] > 0 ? -1 : 1;
    v[k] -= sign * norm;
    const double scale = norm > 0 ? 1 / std::sqrt(norm * std::abs(v[k])) : 0;
    for (std::int64_t i = k; i < m_; ++i) v[i] *= scale;
    return sign;
  }

  // Applies reflections first … last, upwards or downwards, to columns from .. to; `v` is the first.
  void reflect(std::int64_t from, std::int64_t to, const double* v, std::int64_t first, std::int64_t last) {
    kernels().reflect({ld_, ld_, column(from), to - from, v, first, last});
  }

  std::int64_t m_, n_, ld_;
  std::vector<double> columns_;
};

void orthogonal(const Sampler& sampler, double gain, std::int64_t rows, std::int64_t cols, float* out) {
  const bool wide = rows < cols;
  const std::int64_t m = std::max(rows, cols), n = std::min(rows, cols);
  Orthonormal q(sampler, m, n);
  for (std::int64_t k = 0; k < n; ++k) {
    for (std::int64_t i = 0; i < m; ++i) out[wide ? k * m + i : i * n + k] = static_cast<float>(gain * q.column(k)[i]);
  }
}

// ------------------------------------------------------------------------------------------------------------ sampling

std::pair<double, double> compute_fans(const std::vector<std::int64_t>& shape) {
  if (shape.empty()) return {1, 1};
  const auto last = static_cast<double>(shape.back());
  if (shape.size() == 1) return {last, last};
  double receptive = 1;
  for (std::size_t i = 0; i + 2 < shape.size(); ++i) receptive *= static_cast<double>(shape[i]);
  return {static_cast<double>(shape[shape.size() - 2]) * receptive, last * receptive};
}

Spec resolve(Spec spec, const std::vector<std::int64_t>& shape) {
  if (spec.kind != Kind::variance_scaling) return spec;
  const auto [fan_in, fan_out] = compute_fans(shape);
  const double fan = spec.mode == Mode::fan_in ? fan_in : spec.mode == Mode::fan_out ? fan_out : (fan_in + fan_out) / 2;
  const double variance = spec.a / std::max(1.0, fan);
  spec.kind = spec.distribution;
  spec.a = 0;
  spec.b = std::sqrt(variance);
  if (spec.kind == Kind::truncated_normal) spec.b /= 0.87962566103423978;  // the deviation left after the cut
  if (spec.kind == Kind::uniform) {
    spec.b = std::sqrt(3 * variance);
    spec.a = -spec.b;
  }
  return spec;
}

int depth(const Json& value) {
  return value.is_array() ? 1 + (value.as_array().empty() ? 0 : depth(value.as_array()[0])) : 0;
}

// Nested lists, `deep` of them, over `axes` axes, as NumPy broadcasts: the last axes meet, and a 1 serves a whole axis.
float* broadcast(const Json& value, int deep, const std::int64_t* shape, int axes, float* out) {
  if (deep > axes) throw std::invalid_argument("initializer Constant: value has more axes than the weight");
  if (axes == 0) {
    *out = static_cast<float>(value.as_number());
    return out + 1;
  }
  const auto size = static_cast<std::size_t>(shape[0]);
  const bool here = deep == axes;
  const std::size_t given = here ? value.as_array().size() : 1;
  if (given != 1 && given != size)
    throw std::invalid_argument("initializer Constant: value has " + std::to_string(given) +
                                " entries along an axis of the weight of size " + std::to_string(size));
  for (std::size_t i = 0; i < size; i++)
    out = broadcast(here ? value.as_array()[given == 1 ? 0 : i] : value, here ? deep - 1 : deep, shape + 1, axes - 1,
                    out);
  return out;
}

}  // namespace

void initialize(const Json& config, const std::vector<std::int64_t>& shape, std::uint64_t seed, float* out) {
  const FlushGuard flush;
  const Spec spec = resolve(read_spec(config), shape);
  if (spec.seed != nullptr) seed = static_cast<std::uint64_t>(spec.seed->as_integer());
  const Sampler sampler{{mix_seed(seed, 0x696E6974), 0}};  // "init": no other user's numbers
  const std::int64_t n = elements(shape);
  const auto axes = std::to_string(shape.size());
  switch (spec.kind) {
    case Kind::constant:
      if (spec.values != nullptr) {
        broadcast(*spec.values, depth(*spec.values), shape.data(), static_cast<int>(shape.size()), out);
        return;
      }
      std::fill_n(out, n, static_cast<float>(spec.a));
      return;
    case Kind::uniform:
      return sampler.each(n, out, [&](double u) { return spec.a + (spec.b - spec.a) * u; });
    case Kind::normal:
      return sampler.each(n, out, [&](double u) { return spec.a + spec.b * normal_quantile(u); });
    case Kind::variance_scaling:  // resolved
    case Kind::truncated_normal:
      return sampler.each(n, out, [&](double u) { return spec.a + spec.b * truncated_quantile(u); });
    case Kind::orthogonal:
      if (shape.size() < 2) throw std::invalid_argument("initializer Orthogonal: needs two axes or more, got " + axes);
      if (n > 0) orthogonal(sampler, spec.a, n / shape.back(), shape.back(), out);
      return;
    case Kind::identity: {
      if (shape.size() != 2) throw std::invalid_argument("initializer Identity: needs two axes, got " + axes);
      std::fill_n(out, n, 0.0f);
      for (std::int64_t i = 0; i < std::min(shape[0], shape[1]); ++i)
        out[i * (shape[1] + 1)] = static_cast<float>(spec.a);
      return;
    }
  }
}

}  // namespace seqcore
