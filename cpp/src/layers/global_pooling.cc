// GlobalAveragePooling1D, over the valid steps, and GlobalMaxPooling1D, over all of them. A mask ends here.
#include <cstring>

#include "layers/config.h"
#include "layers/factories.h"

namespace seqcore {

namespace {

class GlobalPooling final : public Layer {
 public:
  GlobalPooling(const Json& description, bool average) : average_(average) {
    Config c(description);
    name_ = c.class_name();
    keepdims_ = c.boolean("keepdims", false);
    if (c.string("data_format", "channels_last") != "channels_last") c.fail("data_format", "channels_last");
    c.done();
  }

  Dims build(const Dims& input) override {
    if (input.rank != 2)
      throw std::invalid_argument(name_ + ": expected input of shape (batch, steps, features), got " +
                                  to_string(input));
    return pooled(input);
  }

  const char* stream_refusal() const override { return "it needs the whole sequence"; }

 private:
  struct Cache {
    Tensor x;
  };

  Dims pooled(const Dims& input) const {
    Dims dims;
    dims.rank = keepdims_ ? 2 : 1;
    dims.d[0] = 1;
    dims.d[dims.rank - 1] = input.features();
    return dims;
  }

  // f(row of x) for each step of sample b that counts, in order.
  template <class F>
  void each_step(const Tensor& x, std::int64_t b, F&& f) const {
    for (std::int64_t t = 0; t < x.steps(); t++)
      if (!average_ || !x.mask || x.mask[t * x.batch + b]) f(x.data + (t * x.batch + b) * x.ld);
  }
  // What each step that counts has of the mean; without any the mean is 0.
  float share(const Tensor& x, std::int64_t b) const {
    std::int64_t count = 0;
    each_step(x, b, [&](const float*) { count++; });
    return count == 0 ? 0.0f : 1.0f / static_cast<float>(count);
  }
  static double cost(const Tensor& x) { return 4 * static_cast<double>(x.steps() * x.features()); }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    const Tensor y = make_tensor(run, pooled(x.dims), x.batch);
    const std::int64_t n = x.features();
    run.rows(x.batch, cost(x), 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t b = begin; b < end; b++) {
        float* to = y.data + b * y.ld;
        if (average_) {
          std::memset(to, 0, static_cast<std::size_t>(n) * sizeof(float));
          each_step(x, b, [&](const float* row) { run.k.add(n, to, row, to); });
          run.k.scale(n, share(x, b), to, to);
        } else {
          std::memcpy(to, x.data + b * x.ld, static_cast<std::size_t>(n) * sizeof(float));
          each_step(x, b, [&](const float* row) {
            for (std::int64_t i = 0; i < n; i++) to[i] = row[i] > to[i] ? row[i] : to[i];
          });
        }
      }
    });
    auto* c = run.arena->allocate<Cache>(1);
    c->x = x;
    *cache = c;
    return y;
  }

  // Steps that share the maximum share its gradient.
  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    if (!need_dx) return {};
    const Tensor& x = static_cast<const Cache*>(cache)->x;
    Tensor dx = make_zeros(run, x, x.features());
    if (!average_) dx.mask = nullptr;
    const std::int64_t n = x.features(), step = x.batch * x.ld;
    run.rows(x.batch, cost(x), 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t b = begin; b < end; b++) {
        const float* from = dy.data + b * dy.ld;
        if (average_) {
          const float mine = share(x, b);
          each_step(x, b, [&](const float* row) { run.k.scale(n, mine, from, dx.data + (row - x.data)); });
          continue;
        }
        for (std::int64_t i = 0; i < n; i++) {
          const float* const values = x.data + b * x.ld + i;
          float largest = values[0];
          for (std::int64_t t = 1; t < x.steps(); t++)
            largest = values[t * step] > largest ? values[t * step] : largest;
          int many = 0;
          for (std::int64_t t = 0; t < x.steps(); t++) many += values[t * step] == largest;
          for (std::int64_t t = 0; t < x.steps(); t++)
            if (values[t * step] == largest)
              dx.data[(t * x.batch + b) * dx.ld + i] = from[i] / static_cast<float>(many);
        }
      }
    });
    return dx;
  }

  bool average_, keepdims_;
  std::string name_;
};

}  // namespace

std::unique_ptr<Layer> make_global_average_pooling(const Json& description) {
  return std::make_unique<GlobalPooling>(description, true);
}
std::unique_ptr<Layer> make_global_max_pooling(const Json& description) {
  return std::make_unique<GlobalPooling>(description, false);
}

}  // namespace seqcore
