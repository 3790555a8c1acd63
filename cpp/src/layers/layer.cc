#include "layers/layer.h"

#include <limits>

#include "base/philox.h"
#include "layers/config.h"
#include "layers/step.h"

namespace seqcore {

// What watch keeps around do_forward's own cache.
struct Layer::Wrapped {
  void* inner;
  Tensor output;
};

Tensor Layer::forward(const Tensor& x, Run& run, void** cache) const {
  const Tensor y = do_forward(x, run, cache);
  watch(y, run, cache);
  return y;
}

Tensor Layer::backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const {
  const Tensor total = unwatch(dy, run, &cache);
  return do_backward(total, cache, run, need_dx);
}

void Layer::watch(const Tensor& y, Run& run, void** cache) const {
  if (!activity) return;
  auto* wrapped = run.arena->allocate<Wrapped>(1);
  *wrapped = {*cache, y};
  *cache = wrapped;
  const double share = 1.0 / static_cast<double>(run.batch);  // of a sample, as in Keras
  for (std::int64_t r = 0; r < y.rows(); r++) {
    if (activity.l1 != 0) run.penalty += share * activity.l1 * run.k.sum_abs(y.features(), y.data + r * y.ld);
    if (activity.l2 != 0) run.penalty += share * activity.l2 * run.k.sum_squares(y.features(), y.data + r * y.ld);
  }
}

Tensor Layer::unwatch(const Tensor& dy, const Run& run, void** cache) const {
  if (!activity) return dy;
  const auto* wrapped = static_cast<const Wrapped*>(*cache);
  *cache = wrapped->inner;
  const Tensor& y = wrapped->output;
  // Masked rows have outputs too, and Keras counts them: their gradient is no longer zero.
  Tensor total = dy;
  total.mask = nullptr;
  const double share = 1.0 / static_cast<double>(run.batch);
  const auto l1 = static_cast<float>(share * activity.l1), l2 = static_cast<float>(share * 2 * activity.l2);
  for (std::int64_t r = 0; r < y.rows(); r++) {
    float* g = total.data + r * total.ld;
    const float* v = y.data + r * y.ld;
    for (std::int64_t i = 0; i < y.features(); i++) {
      const float sign = v[i] > 0 ? l1 : v[i] < 0 ? -l1 : 0.0f;
      g[i] = g[i] + (sign + l2 * v[i]);
    }
  }
  return total;
}

void Layer::place(Place& at) {
  for (WeightSpec& spec : specs_) {
    spec.offset = at.weights;
    at.weights += pad(spec.size());
  }
  for (int copy = 0; copy < kCopies; copy++) {
    packed_at_[copy] = at.packed[copy];
    at.packed[copy] += pad(packed_size(at.k, static_cast<Copy>(copy)));
  }
  state_at_ = at.states;
  at.states += static_cast<int>(stream_states().size());
  stream_ = at.streams++;
}

std::unique_ptr<Step> Layer::make_step(const StepPlace&) const { return nullptr; }

std::vector<WeightSpec*> Layer::weights() {
  std::vector<WeightSpec*> all;
  for (WeightSpec& spec : specs_) all.push_back(&spec);
  return all;
}

void Layer::name_weights(const std::string& prefix) {
  for (WeightSpec& spec : specs_) spec.name = prefix + spec.name;
}

int Layer::add_weight(WeightSpec spec) {
  double size = 1;
  for (const std::int64_t d : spec.shape) size *= static_cast<double>(d);
  if (size > static_cast<double>(std::numeric_limits<std::int32_t>::max()))
    throw std::invalid_argument("weight '" + spec.name + "' would have more than 2^31 elements");
  check_penalty(spec.regularizer, spec.shape.size());
  check_constraint(spec.constraint, spec.shape.size());
  specs_.push_back(std::move(spec));
  return static_cast<int>(specs_.size()) - 1;
}

std::uint64_t Layer::random_key(const Run& run, std::uint64_t purpose) const {
  const std::uint64_t seed = seed_.is_null() ? mix_seed(run.seed, static_cast<std::uint64_t>(stream_))
                                             : static_cast<std::uint64_t>(seed_.as_integer());
  return mix_seed(seed, purpose);
}

}  // namespace seqcore
