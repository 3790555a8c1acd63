// MaxPooling1D and AveragePooling1D: the largest or the mean of the steps in each window. What lies in the padding does not
// count, and a mask is not looked at and ends here, as in Keras. A mean is a sum in the order of the steps, times the rounded
// inverse of their number. Of steps that share the maximum the first has the gradient.
#include <algorithm>
#include <cstring>

#include "layers/factories.h"
#include "layers/window.h"

namespace seqcore {

namespace {

class WindowPooling final : public Layer {
 public:
  WindowPooling(const Json& description, bool average) : WindowPooling(Config(description), average) {}

  Dims build(const Dims& input) override { return window_.build(input, input.features()); }
  std::int64_t output_steps(std::int64_t input) const override { return window_.steps(input); }
  const char* stream_refusal() const override { return "its windows need several steps"; }

 private:
  struct Cache {
    Tensor x, y;
  };
  struct Steps {  // of the input, [begin, end)
    std::int64_t begin, end;
  };

  WindowPooling(Config c, bool average) : average_(average), window_(c, "pool_size", false) { c.done(); }

  Steps seen(const Tensor& x, std::int64_t t, std::int64_t before) const {
    const std::int64_t begin = t * window_.stride - before;
    return {std::max<std::int64_t>(0, begin), std::min(x.steps(), begin + window_.size)};
  }
  static float share(Steps steps) { return 1.0f / static_cast<float>(steps.end - steps.begin); }
  double cost(const Tensor& x) const { return 4 * static_cast<double>(window_.size * x.features()); }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    Dims dims = x.dims;
    dims.d[0] = window_.steps(x.steps());
    const Tensor y = make_tensor(run, dims, x.batch);
    const std::int64_t n = x.features(), before = window_.before(x.steps());
    run.rows(y.rows(), cost(x), 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; r++) {
        const Steps steps = seen(x, r / x.batch, before);
        float* const to = y.data + r * y.ld;
        const auto row = [&](std::int64_t t) { return x.data + (t * x.batch + r % x.batch) * x.ld; };
        std::memcpy(to, row(steps.begin), static_cast<std::size_t>(n) * sizeof(float));
        for (std::int64_t t = steps.begin + 1; t < steps.end; t++) {
          const float* const from = row(t);
          if (average_) {
            run.k.add(n, to, from, to);
            continue;
          }
          for (std::int64_t i = 0; i < n; i++) to[i] = from[i] > to[i] || from[i] != from[i] ? from[i] : to[i];
        }
        if (average_) run.k.scale(n, share(steps), to, to);
      }
    });
    auto* c = run.arena->allocate<Cache>(1);
    *c = {x, y};
    *cache = c;
    return y;
  }

  // Windows may share steps: each thread has samples of its own, whose windows follow one another.
  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    if (!need_dx) return {};
    const Cache& c = *static_cast<const Cache*>(cache);
    const Tensor& x = c.x;
    Tensor dx = make_zeros(run, x, x.features());
    dx.mask = nullptr;
    const std::int64_t n = x.features(), before = window_.before(x.steps());
    run.rows(x.batch, cost(x) * static_cast<double>(dy.steps()), 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t b = begin; b < end; b++)
        for (std::int64_t t = 0; t < dy.steps(); t++) {
          const Steps steps = seen(x, t, before);
          const std::int64_t r = t * x.batch + b;
          const float *const g = dy.data + r * dy.ld, *const y = c.y.data + r * c.y.ld;
          if (average_) {
            for (std::int64_t s = steps.begin; s < steps.end; s++)
              run.k.axpy(n, share(steps), g, dx.data + (s * x.batch + b) * dx.ld);
            continue;
          }
          for (std::int64_t i = 0; i < n; i++) {
            std::int64_t s = steps.begin;
            while (s + 1 < steps.end && x.data[(s * x.batch + b) * x.ld + i] != y[i]) s++;
            dx.data[(s * x.batch + b) * dx.ld + i] += g[i];
          }
        }
    });
    return dx;
  }

  bool average_;
  Window window_;
};

}  // namespace

std::unique_ptr<Layer> make_average_pooling(const Json& description) {
  return std::make_unique<WindowPooling>(description, true);
}
std::unique_ptr<Layer> make_max_pooling(const Json& description) {
  return std::make_unique<WindowPooling>(description, false);
}

}  // namespace seqcore
