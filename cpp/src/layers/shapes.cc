// The layers that only move numbers: Reshape and Flatten, Permute, RepeatVector. A mask ends at each of them.
#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <vector>

#include "layers/config.h"
#include "layers/factories.h"

namespace seqcore {

namespace {

constexpr const char* kWholeSequence = "it needs the whole sequence";

// Floats from a sample to the next, and along each axis of a sample.
struct Strides {
  std::int64_t sample, axis[Dims::kMaxRank];
  explicit Strides(const Tensor& x) : sample(x.inner() * x.ld), axis{} {
    const int last = x.dims.rank - 1;
    axis[last] = 1;
    std::int64_t stride = x.ld;
    for (int i = last - 1; i > 0; stride *= x.dims.d[i--]) axis[i] = stride;
    if (last > 0) axis[0] = x.batch * sample;
  }
};

std::int64_t sample_size(const Dims& dims) {
  return std::accumulate(dims.d, dims.d + dims.rank, std::int64_t{1}, std::multiplies<>());
}

// A sample's numbers keep the order that they have in the batch-major array. Flatten's shape is one axis.
class Reshape final : public Layer {
 public:
  Reshape(std::string name, std::vector<std::int64_t> target) : name_(std::move(name)), target_(std::move(target)) {
    if (std::count(target_.begin(), target_.end(), -1) > 1)
      throw std::invalid_argument(name_ + ": target_shape: expected at most one -1");
    if (target_.size() > static_cast<std::size_t>(Dims::kMaxRank))
      throw std::invalid_argument(name_ + ": too many dimensions");
  }

  // Of an unknown number of steps another one may be made. Whether the numbers come out even is seen with the data.
  Dims build(const Dims& input) override {
    if (input.d[0] < 0 && std::count(target_.begin() + (target_.size() > 1), target_.end(), -1) > 0)
      throw std::invalid_argument(name_ + ": every dimension must be known, got " + to_string(input));
    input_ = input;
    const Dims dims = input.d[0] < 0 ? target(-1) : shape(input);
    identity_ = input.rank == 1 && dims.rank == 1;
    return dims;
  }

  std::int64_t output_steps(std::int64_t input) const override {
    Dims dims = input_;
    dims.d[0] = input;
    return shape(dims).d[0];
  }

  const char* stream_refusal() const override { return identity_ ? nullptr : kWholeSequence; }

 private:
  struct Cache {
    Dims dims;
  };

  Dims target(std::int64_t unknown) const {
    Dims dims;
    dims.rank = static_cast<int>(target_.size());
    for (int i = 0; i < dims.rank; i++) {
      const std::int64_t n = target_[static_cast<std::size_t>(i)];
      dims.d[i] = n < 0 ? unknown : n;
    }
    return dims;
  }

  Dims shape(const Dims& input) const {
    const std::int64_t size = sample_size(input), known = sample_size(target(1));
    const bool free = std::count(target_.begin(), target_.end(), -1) > 0;
    if (free ? size % known != 0 : size != known)
      throw std::invalid_argument(name_ + ": the total size must stay: target_shape " + to_string(target(-1)) +
                                  " does not fit input of shape " + to_string(input));
    return target(size / known);
  }

  static void copy(const Tensor& from, const Tensor& to, Run& run) {
    const std::int64_t size = sample_size(from.dims), from_n = from.features(), to_n = to.features();
    const auto row = [](const Tensor& x, std::int64_t b, std::int64_t i) {
      const std::int64_t inner = x.inner();
      return x.data + ((i / inner * x.batch + b) * inner + i % inner) * x.ld;
    };
    run.rows(from.batch, Cost::copy(static_cast<double>(size)), 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t b = begin; b < end; b++)
        for (std::int64_t at = 0; at < size;) {
          const std::int64_t i = at % from_n, j = at % to_n, n = std::min(from_n - i, to_n - j);
          std::memcpy(row(to, b, at / to_n) + j, row(from, b, at / from_n) + i,
                      static_cast<std::size_t>(n) * sizeof(float));
          at += n;
        }
    });
  }

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    if (identity_) return x;
    const Tensor y = make_tensor(run, shape(x.dims), x.batch);
    copy(x, y, run);
    auto* c = run.arena->allocate<Cache>(1);
    c->dims = x.dims;
    *cache = c;
    return y;
  }

  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const override {
    if (!need_dx) return {};
    if (identity_) return dy;
    const Tensor dx = make_tensor(run, static_cast<const Cache*>(cache)->dims, dy.batch);
    copy(dy, dx, run);
    return dx;
  }

  std::string name_;
  std::vector<std::int64_t> target_;
  Dims input_;
  bool identity_ = false;
};

// Axis i of a sample's output is axis dims[i] of its input, counted from 1.
class Permute final : public Layer {
 public:
  explicit Permute(const Json& description) {
    Config c(description);
    const Json dims = c.any("dims");
    rank_ = dims.is_array() ? static_cast<int>(dims.as_array().size()) : 0;
    bool found[Dims::kMaxRank] = {};
    bool valid = rank_ > 0 && rank_ <= Dims::kMaxRank;
    for (int i = 0; valid && i < rank_; i++) {
      const Json& at = dims.as_array()[static_cast<std::size_t>(i)];
      const std::int64_t axis = at.is_integer() ? at.as_integer() - 1 : -1;
      valid = axis >= 0 && axis < rank_ && !found[axis];
      if (valid) found[axis] = true;
      axis_[i] = static_cast<int>(axis);
      back_[valid ? axis : 0] = i;
    }
    if (!valid) c.fail("dims", "the numbers from 1 to the number of axes, each once");
    c.done();
  }

  Dims build(const Dims& input) override {
    if (input.rank != rank_)
      throw std::invalid_argument("Permute: expected input of " + std::to_string(rank_ + 1) + " axes, got " +
                                  to_string(input));
    if (input.d[0] < 0 && axis_[0] != 0)
      throw std::invalid_argument("Permute: every dimension must be known, got " + to_string(input));
    return permuted(input, axis_);
  }

  const char* stream_refusal() const override { return rank_ == 1 ? nullptr : kWholeSequence; }

 private:
  Dims permuted(const Dims& from, const int* axis) const {
    Dims dims = from;
    for (int i = 0; i < rank_; i++) dims.d[i] = from.d[axis[i]];
    return dims;
  }

  static void walk(const Dims& dims, int i, const float* from, const std::int64_t* from_axis, float* to,
                   const std::int64_t* to_axis) {
    for (std::int64_t n = 0; n < dims.d[i]; n++, from += from_axis[i], to += to_axis[i]) {
      if (i + 1 < dims.rank)
        walk(dims, i + 1, from, from_axis, to, to_axis);
      else
        *to = *from;
    }
  }

  Tensor move(const Tensor& x, const int* axis, Run& run) const {
    const Tensor y = make_tensor(run, permuted(x.dims, axis), x.batch);
    const Strides from(x), to(y);
    std::int64_t from_axis[Dims::kMaxRank];
    for (int i = 0; i < rank_; i++) from_axis[i] = from.axis[axis[i]];
    const Cost cost = Cost::copy(static_cast<double>(sample_size(y.dims)));
    run.rows(x.batch, cost, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t b = begin; b < end; b++)
        walk(y.dims, 0, x.data + b * from.sample, from_axis, y.data + b * to.sample, to.axis);
    });
    return y;
  }

  Tensor do_forward(const Tensor& x, Run& run, void**) const override { return rank_ == 1 ? x : move(x, axis_, run); }
  Tensor do_backward(const Tensor& dy, void*, Run& run, bool need_dx) const override {
    if (!need_dx) return {};
    return rank_ == 1 ? dy : move(dy, back_, run);
  }

  int rank_ = 0;
  int axis_[Dims::kMaxRank] = {}, back_[Dims::kMaxRank] = {};
};

// (batch, F) → (batch, n, F).
class RepeatVector final : public Layer {
 public:
  explicit RepeatVector(const Json& description) {
    Config c(description);
    n_ = c.positive("n");
    c.done();
  }

  Dims build(const Dims& input) override {
    if (input.rank != 1)
      throw std::invalid_argument("RepeatVector: expected input of shape (batch, features), got " + to_string(input));
    return repeated(input);
  }

  const char* stream_refusal() const override { return "it makes a sequence of each vector"; }

 private:
  Dims repeated(const Dims& input) const {
    Dims dims;
    dims.rank = 2;
    dims.d[0] = n_;
    dims.d[1] = input.features();
    return dims;
  }

  Tensor do_forward(const Tensor& x, Run& run, void**) const override {
    const Tensor y = make_tensor(run, repeated(x.dims), x.batch);
    for (std::int64_t t = 0; t < n_; t++)
      for (std::int64_t b = 0; b < x.batch; b++)
        std::memcpy(y.data + (t * x.batch + b) * y.ld, x.data + b * x.ld,
                    static_cast<std::size_t>(x.features()) * sizeof(float));
    return y;
  }

  // The steps' gradients are added from the first to the last.
  Tensor do_backward(const Tensor& dy, void*, Run& run, bool need_dx) const override {
    if (!need_dx) return {};
    Dims dims;
    dims.rank = 1;
    dims.d[0] = dy.features();
    const Tensor dx = make_tensor(run, dims, dy.batch);
    for (std::int64_t b = 0; b < dx.batch; b++) {
      float* sum = dx.data + b * dx.ld;
      std::memcpy(sum, dy.data + b * dy.ld, static_cast<std::size_t>(dx.features()) * sizeof(float));
      for (std::int64_t t = 1; t < n_; t++) run.k.add(dx.features(), sum, dy.data + (t * dy.batch + b) * dy.ld, sum);
    }
    return dx;
  }

  std::int64_t n_;
};

}  // namespace

std::unique_ptr<Layer> make_flatten(const Json& description) {
  Config c(description);
  if (c.string("data_format", "channels_last") != "channels_last") c.fail("data_format", "channels_last");
  c.done();
  return std::make_unique<Reshape>("Flatten", std::vector<std::int64_t>{-1});
}
std::unique_ptr<Layer> make_reshape(const Json& description) {
  Config c(description);
  const Json shape = c.any("target_shape");
  std::vector<std::int64_t> target;
  bool valid = shape.is_array() && !shape.as_array().empty();
  for (std::size_t i = 0; valid && i < shape.as_array().size(); i++) {
    const Json& n = shape.as_array()[i];
    target.push_back(n.is_integer() ? n.as_integer() : 0);
    valid = target.back() > 0 || target.back() == -1;
  }
  if (!valid) c.fail("target_shape", "a list of positive integers and -1");
  c.done();
  return std::make_unique<Reshape>("Reshape", std::move(target));
}
std::unique_ptr<Layer> make_permute(const Json& description) { return std::make_unique<Permute>(description); }
std::unique_ptr<Layer> make_repeat_vector(const Json& description) {
  return std::make_unique<RepeatVector>(description);
}

}  // namespace seqcore
