#include "layers/projection.h"

#include <algorithm>
#include <utility>

namespace seqcore {

bool take_part(ProductArgs* args, const Kernels& k, const StepCall& call) {
  const std::int64_t panel = 2 * k.width, panels = (args->n + panel - 1) / panel;
  args->n_begin = panels * call.part / call.parts * panel;
  args->n_end = std::min(args->n, panels * (call.part + 1) / call.parts * panel);
  return args->n_begin < args->n_end;
}

Projection::Projection(Config& c, const char* units_key)
    : units_(c.positive(units_key)),
      activation_(c.activation("activation", "linear")),
      use_bias_(c.boolean("use_bias", true)) {
  kernel_spec_ = c.weight("kernel", "GlorotUniform");
  bias_spec_ = c.weight("bias", "Zeros");
  activity = c.penalty("activity_regularizer");
}

void Projection::add_weights(std::vector<std::int64_t> kernel_shape) {
  kernel_spec_.shape = std::move(kernel_shape);
  bias_spec_.shape = {units_};
  kernel_ = add_weight(kernel_spec_);
  if (use_bias_) bias_ = add_weight(bias_spec_);
}

Projection::Cache* Projection::make_cache(const Tensor& x, const Tensor& y, Run& run) const {
  const bool expose = hands_over_logits(run);
  auto* c = run.arena->allocate<Cache>(1);
  *c = {};
  c->x = x;
  c->y = y;
  if ((run.keep || expose) && (needs_input(activation_) || (expose && activation_ != Activation::linear))) {
    c->z = y;
    c->z.data = run.arena->floats(y.rows() * y.ld);
  }
  return c;
}

void Projection::begin_chain(ProductArgs* args, const float* weights) const {
  args->bias = use_bias_ ? weight(weights, bias_) : nullptr;
  args->init = use_bias_ ? Init::bias : Init::zero;
  args->activation = is_rowwise(activation_) ? Activation::linear : activation_;
}

void Projection::end_chain(ProductArgs* args, const Cache& c) const {
  const auto rows_of = [&](const Tensor& t) { return Rows{t.data, args->batch * t.ld, t.ld}; };
  const bool only_chains = c.z.data && is_rowwise(activation_);
  args->c = rows_of(only_chains ? c.z : c.y);
  if (c.z.data && !only_chains) args->z = rows_of(c.z);
}

void Projection::finish(Cache* c, Run& run) const {
  const Tensor& y = c->y;
  if (is_rowwise(activation_)) {
    const float* z = c->z.data ? c->z.data : y.data;
    run.rows(y.rows(), 40.0 * static_cast<double>(units_), 1, [&](std::int64_t from, std::int64_t to, int) {
      run.k.activate(activation_, to - from, units_, z + from * y.ld, y.ld, y.data + from * y.ld, y.ld);
    });
  }
  if (hands_over_logits(run) && activation_ == Activation::linear) c->z = y;
}

void Projection::activation_backward(const Tensor& dy, const Cache& c, Run& run) const {
  if (hands_over_logits(run) || activation_ == Activation::linear) return;
  const Tensor& from_cache = needs_input(activation_) ? c.z : c.y;
  run.rows(dy.rows(), 10.0 * static_cast<double>(units_), 1, [&](std::int64_t from, std::int64_t to, int) {
    float* g = dy.data + from * dy.ld;
    run.k.activate_backward(activation_, to - from, units_, from_cache.data + from * from_cache.ld, from_cache.ld, g,
                            dy.ld, g, dy.ld);
  });
}

}  // namespace seqcore
