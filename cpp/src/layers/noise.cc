// Dropout, SpatialDropout1D, GaussianDropout, GaussianNoise, AlphaDropout: random in training and nothing at inference.
#include <algorithm>
#include <cmath>

#include "layers/config.h"
#include "layers/factories.h"

namespace seqcore {

namespace {

// What is random in training and nothing at inference. Along the axes where noise_shape has a 1, one draw serves all
// entries.
//
//   Dropout           x times a mask's 0 or 1 / (1 - rate); SpatialDropout1D's draws serve all steps
//   GaussianDropout   x times a normal number of mean 1 and variance rate / (1 - rate)
//   GaussianNoise     x plus a normal number of mean 0
//   AlphaDropout      x, or where the mask has 0 what selu tends to, and then the map that makes of mean 0 and variance 1
//                     the same again (Klambauer and others, 2017)
class Noise final : public Layer {
 public:
  explicit Noise(const Json& description) {
    Config c(description);
    const std::string& name = c.class_name();
    kind_ = name == "GaussianNoise"     ? Kind::added
            : name == "GaussianDropout" ? Kind::gaussian
            : name == "AlphaDropout"    ? Kind::alpha
                                        : Kind::dropout;
    const char* const word = kind_ == Kind::added ? "stddev" : "rate";
    const double rate = c.rate(word);
    if (rate == 1 && (kind_ == Kind::gaussian || kind_ == Kind::alpha)) c.fail(word, "at least 0 and below 1");
    rate_ = static_cast<float>(rate);
    if (kind_ == Kind::gaussian) deviation_ = static_cast<float>(std::sqrt(rate / (1 - rate)));
    if (kind_ == Kind::alpha) {
      constexpr double kLow = -1.6732632423543772848 * 1.0507009873554804934;
      const double slope = 1 / std::sqrt((1 - rate) * (1 + rate * kLow * kLow));
      slope_ = static_cast<float>(slope);
      kept_ = static_cast<float>(-slope * kLow * rate);
      dropped_ = static_cast<float>(slope * kLow * (1 - rate));
    }
    seed_ = c.seed();
    spatial_ = name == "SpatialDropout1D";
    if (spatial_) noise_shape_ = Json(Json::Array{{}, std::int64_t{1}, {}});
    if (name == "Dropout" || kind_ == Kind::alpha) noise_shape_ = c.any("noise_shape");
    if (!noise_shape_.is_null() && !noise_shape_.is_array()) c.fail("noise_shape", "a list of integers and nulls");
    name_ = name;
    c.done();
  }

  Dims build(const Dims& input) override {
    if (spatial_ && input.rank != 2)
      throw std::invalid_argument("SpatialDropout1D: expected input of shape (batch, steps, features), got " +
                                  to_string(input));
    if (noise_shape_.is_null()) return input;
    const Json::Array& noise = noise_shape_.as_array();
    bool fits = noise.size() == static_cast<std::size_t>(input.rank) + 1;
    for (std::size_t axis = 0; fits && axis < noise.size(); axis++) {
      if (noise[axis].is_null()) continue;
      const std::int64_t size = noise[axis].is_integer() ? noise[axis].as_integer() : 0;
      shared_[axis] = size == 1;
      fits = size == 1 || (axis > 0 && size == input.d[axis - 1]);
    }
    if (!fits)
      throw std::invalid_argument("noise_shape of " + name_ + ": expected for each axis of an input of shape " +
                                  to_string(input) + " 1, None or (but for the batch) its size, got " +
                                  noise_shape_.dump());
    return input;
  }

 private:
  // Which row of the noise serves row r: rows are counted as x's are, with one entry along shared axes.
  std::int64_t noise_row(const Tensor& x, std::int64_t r) const {
    if (noise_shape_.is_null()) return r;
    std::int64_t row = 0, place = 1;
    const auto take = [&](std::int64_t size, bool shared) {
      if (!shared) {
        row += r % size * place;
        place *= size;
      }
      r /= size;
    };
    for (int i = x.dims.rank - 2; i >= 1; i--) take(x.dims.d[i], shared_[i + 1]);
    take(x.batch, shared_[0]);
    if (x.dims.rank >= 2) take(x.steps(), shared_[1]);
    return row;
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    if (!run.training || rate_ == 0) {
      *cache = nullptr;
      return x;
    }
    Tensor y = make_tensor(run, x, x.features());
    const std::int64_t n = x.features(), ld = pad(n);
    const std::int64_t drawn = shared_[x.dims.rank] ? 1 : n;
    float* scale = kind_ == Kind::added ? y.data : run.arena->floats(x.rows() * ld);
    const std::uint64_t key = random_key(run, 0);
    run.rows(x.rows(), 20.0 * static_cast<double>(n), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t r = from; r < to; r++) {
        const float* const in = x.data + r * x.ld;
        float *const row = scale + r * ld, *const out = y.data + r * y.ld;
        draw(key, run, static_cast<std::uint64_t>(noise_row(x, r) * pad(drawn)), drawn, row);
        std::fill(row + drawn, row + n, row[0]);
        if (kind_ == Kind::alpha)
          for (std::int64_t i = 0; i < n; i++) {
            const bool kept = row[i] != 0;
            row[i] = kept ? slope_ : 0.0f;
            out[i] = kept ? slope_ * in[i] + kept_ : dropped_;
          }
        else
          (kind_ == Kind::added ? run.k.add : run.k.multiply)(n, in, row, out);
      }
    });
    *cache = kind_ == Kind::added ? nullptr : scale;
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool) const override {
    if (!cache) return dy;
    const auto* scale = static_cast<const float*>(cache);
    const std::int64_t n = dy.features(), ld = pad(n);
    run.rows(dy.rows(), static_cast<double>(n), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t r = from; r < to; r++)
        run.k.multiply(n, dy.data + r * dy.ld, scale + r * ld, dy.data + r * dy.ld);
    });
    return dy;
  }

  void draw(std::uint64_t key, const Run& run, std::uint64_t index, std::int64_t n, float* y) const {
    if (kind_ == Kind::added)
      run.k.normals(key, run.counter, index, n, 0, rate_, y);
    else if (kind_ == Kind::gaussian)
      run.k.normals(key, run.counter, index, n, 1, deviation_, y);
    else
      run.k.dropout_mask(key, run.counter, index, n, rate_, y);
  }

  enum class Kind { dropout, gaussian, added, alpha };

  std::string name_;
  Kind kind_;
  float rate_;  // GaussianNoise: its standard deviation
  float deviation_ = 0, slope_ = 0, kept_ = 0, dropped_ = 0;
  bool spatial_;
  Json noise_shape_;                      // or null
  bool shared_[Dims::kMaxRank + 1] = {};  // by axis, the batch first
};

}  // namespace

std::unique_ptr<Layer> make_noise(const Json& description) { return std::make_unique<Noise>(description); }

}  // namespace seqcore
