#include "model/optimizers.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "layers/config.h"

namespace seqcore {

namespace {

double power(double base, std::int64_t n) {  // libm's pow differs by machine
  double result = 1;
  for (; n > 0; n >>= 1, base *= base)
    if (n & 1) result *= base;
  return result;
}

bool finite(const float* x, std::int64_t n) {
  bool all = true;
  for (std::int64_t i = 0; i < n; i++) all &= std::isfinite(x[i]);
  return all;
}

// k.sum_squares, its blocks shared out and added in the same order.
double sum_squares(std::int64_t n, const float* x, const Run& run) {
  constexpr double kCost = 5;  // flops an element
  if (run.workers(kCost * static_cast<double>(n)) == 1) return run.k.sum_squares(n, x);
  constexpr std::int64_t kAtOnce = 1024;
  double sums[kAtOnce], total = 0;
  for (const float* const end = x + n; x < end; x += kAtOnce * kSumBlock) {
    const std::int64_t left = std::min(end - x, kAtOnce * kSumBlock), blocks = (left + kSumBlock - 1) / kSumBlock;
    run.rows(blocks, kCost * kSumBlock, 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t i = from; i < to; i++)
        sums[i] = run.k.sum_squares(std::min(kSumBlock, left - i * kSumBlock), x + i * kSumBlock);
    });
    total = std::accumulate(sums, sums + blocks, total);
  }
  return total;
}

}  // namespace

Optimizer::Optimizer(const Json& description) {
  static constexpr std::pair<const char*, Kind> kOptimizers[] = {
      {"Adadelta", Kind::adadelta}, {"Adagrad", Kind::adagrad}, {"Adam", Kind::adam}, {"AdamW", Kind::adam},
      {"Adamax", Kind::adamax},     {"Ftrl", Kind::ftrl},       {"Lion", Kind::lion}, {"Nadam", Kind::nadam},
      {"RMSprop", Kind::rmsprop},   {"SGD", Kind::sgd},
  };
  Config c(description);
  const std::string& name = c.class_name();
  bool known = false;
  std::string all;
  for (const auto& [each, kind] : kOptimizers) {
    all += std::string(all.empty() ? "" : ", ") + each;
    if (name == each) {
      kind_ = kind;
      known = true;
    }
  }
  if (!known) throw std::invalid_argument("unknown optimizer '" + name + "'; expected one of: " + all);
  const auto unit = [&](const char* key, double fallback) {
    const double value = c.number(key, fallback);
    if (!(value >= 0 && value < 1)) c.fail(key, "in [0, 1)");
    return value;
  };
  const auto positive = [&](const char* key) {
    if (c.any(key).is_null()) return 0.0;
    const double value = c.number(key, 0);
    if (!(value > 0)) c.fail(key, "positive");
    return value;
  };
  learning_rate = c.number("learning_rate", kind_ == Kind::sgd ? 0.01 : 0.001);
  if (averages()) {
    beta_1_ = unit("beta_1", 0.9);
    beta_2_ = unit("beta_2", kind_ == Kind::lion ? 0.99 : 0.999);
  }
  if (kind_ == Kind::adam) amsgrad_ = c.boolean("amsgrad", false);
  if (kind_ == Kind::sgd || kind_ == Kind::rmsprop) {
    momentum_ = c.number("momentum", 0);
    if (!(momentum_ >= 0 && momentum_ <= 1)) c.fail("momentum", "in [0, 1]");
  }
  if (kind_ == Kind::sgd) nesterov_ = c.boolean("nesterov", false);
  if (kind_ != Kind::sgd && kind_ != Kind::lion && kind_ != Kind::ftrl) epsilon_ = c.number("epsilon", 1e-7);
  if (kind_ == Kind::rmsprop) {
    rho_ = unit("rho", 0.9);
    centered_ = c.boolean("centered", false);
  }
  if (kind_ == Kind::adamax) velocity_name_ = "norm";
  if (kind_ == Kind::adagrad || kind_ == Kind::ftrl) {
    velocity_name_ = "accumulator";
    initial_accumulator_ = c.not_negative("initial_accumulator_value", 0.1);
  }
  if (kind_ == Kind::ftrl) {
    power_ = -c.number("learning_rate_power", -0.5);
    if (!(power_ >= 0)) c.fail("learning_rate_power", "0 or less");
    l1_ = c.not_negative("l1_regularization_strength", 0);
    l2_ = c.not_negative("l2_regularization_strength", 0);
    shrinkage_ = c.not_negative("l2_shrinkage_regularization_strength", 0);
    beta_ = c.not_negative("beta", 0);
  }
  if (kind_ == Kind::adadelta) {
    velocity_name_ = "accumulated_grad";
    rho_ = unit("rho", 0.95);
  }
  weight_decay_ = c.number("weight_decay", name == "AdamW" ? 0.004 : 0);
  clipnorm_ = positive("clipnorm");
  clipvalue_ = positive("clipvalue");
  global_clipnorm_ = positive("global_clipnorm");
  if ((clipnorm_ > 0) + (clipvalue_ > 0) + (global_clipnorm_ > 0) > 1)
    throw std::invalid_argument(name + ": only one of clipnorm, clipvalue and global_clipnorm may be set");
  use_ema_ = c.boolean("use_ema", false);
  ema_momentum_ = c.number("ema_momentum", 0.99);
  if (!(ema_momentum_ >= 0 && ema_momentum_ <= 1)) c.fail("ema_momentum", "in [0, 1]");
  ema_overwrite_frequency_ = c.integer("ema_overwrite_frequency", 0);
  accumulation_steps_ = c.integer("gradient_accumulation_steps", 1);
  if (accumulation_steps_ < 1) c.fail("gradient_accumulation_steps", "at least 1");
  c.ignore({"loss_scale_factor"});  // a scale of float32 losses that is taken back changes nothing
  c.done();
}

bool Optimizer::averages() const {
  return kind_ == Kind::adam || kind_ == Kind::nadam || kind_ == Kind::adamax || kind_ == Kind::lion;
}

void Optimizer::build(std::int64_t size) {
  const auto n = static_cast<std::size_t>(size);
  if (averages() || momentum_ != 0) momentum_slot_.assign(n, 0.0f);
  if (kind_ != Kind::sgd && kind_ != Kind::lion) velocity_slot_.assign(n, static_cast<float>(initial_accumulator_));
  if (kind_ == Kind::adadelta) delta_slot_.assign(n, 0.0f);
  if (kind_ == Kind::ftrl) linear_slot_.assign(n, 0.0f);
  if (amsgrad_) velocity_hat_slot_.assign(n, 0.0f);
  if (centered_) average_gradient_slot_.assign(n, 0.0f);
  if (use_ema_) average_slot_.assign(n, 0.0f);
  if (accumulation_steps_ > 1) accumulator_slot_.assign(n, 0.0f);
}

std::vector<std::pair<std::string, std::vector<float>*>> Optimizer::slots() {
  std::vector<std::pair<std::string, std::vector<float>*>> all;
  const auto add = [&](const char* name, std::vector<float>& slot) {
    if (!slot.empty()) all.emplace_back(name, &slot);
  };
  add("average", average_slot_);
  add("gradient_accumulator", accumulator_slot_);
  add("momentum", momentum_slot_);
  add(velocity_name_, velocity_slot_);
  add("accumulated_delta_var", delta_slot_);
  add("linear", linear_slot_);
  add("velocity_hat", velocity_hat_slot_);
  add("average_gradient", average_gradient_slot_);
  return all;
}

bool Optimizer::clip(float* grads, const std::vector<Variable>& variables, Run& run) const {
  double total = 0;
  for (const Variable& v : variables) {
    const double sum = sum_squares(v.size, grads + v.offset, run);
    if (!std::isfinite(sum) && !finite(grads + v.offset, v.size)) return false;
    total += sum;
    if (clipnorm_ > 0 && std::sqrt(sum) > clipnorm_)
      run.k.scale(v.size, static_cast<float>(clipnorm_ / std::sqrt(sum)), grads + v.offset, grads + v.offset);
    if (clipvalue_ > 0) {
      const auto limit = static_cast<float>(clipvalue_);
      run.k.clip(v.size, -limit, limit, grads + v.offset);
    }
  }
  if (global_clipnorm_ > 0 && std::sqrt(total) > global_clipnorm_)
    for (const Variable& v : variables)
      run.k.scale(v.size, static_cast<float>(global_clipnorm_ / std::sqrt(total)), grads + v.offset, grads + v.offset);
  return true;
}

// Of step t, as it rises to beta_1 (Dozat, 2016).
double Optimizer::nadam_momentum(std::int64_t t) const { return beta_1_ * (1 - 0.5 * power(0.96, t)); }

void Optimizer::step(float* weights, const float* grads, const Variable& v, Run& run) {
  const std::int64_t t = iterations + 1;
  run.rows(v.size, 20.0, 4096, [&](std::int64_t from, std::int64_t to, int) {
    const std::int64_t at = v.offset + from;
    const auto slot = [at](std::vector<float>& all) { return all.empty() ? nullptr : all.data() + at; };
    const auto begin = [&](auto& args) {
      args.n = to - from;
      args.p = weights + at;
      args.g = grads + at;
      args.decay = v.decays ? static_cast<float>(weight_decay_ * learning_rate) : 0.0f;
    };
    switch (kind_) {
      case Kind::sgd: {
        SgdArgs args{};
        begin(args);
        args.m = slot(momentum_slot_);
        args.lr = static_cast<float>(learning_rate);
        args.momentum = static_cast<float>(momentum_);
        args.nesterov = nesterov_;
        return run.k.sgd(args);
      }
      case Kind::adam: {
        AdamArgs args{};
        begin(args);
        args.m = slot(momentum_slot_);
        args.v = slot(velocity_slot_);
        args.vhat = slot(velocity_hat_slot_);
        args.alpha = static_cast<float>(learning_rate * std::sqrt(1 - power(beta_2_, t)) / (1 - power(beta_1_, t)));
        args.one_minus_beta1 = static_cast<float>(1 - beta_1_);
        args.one_minus_beta2 = static_cast<float>(1 - beta_2_);
        args.epsilon = static_cast<float>(epsilon_);
        return run.k.adam(args);
      }
      case Kind::nadam: {
        const double product = static_cast<double>(momentum_product_), next = nadam_momentum(t + 1);
        NadamArgs args{};
        begin(args);
        args.m = slot(momentum_slot_);
        args.v = slot(velocity_slot_);
        args.alpha_m = static_cast<float>(learning_rate * next / (1 - product * next));
        args.alpha_g = static_cast<float>(learning_rate * (1 - nadam_momentum(t)) / (1 - product));
        args.one_minus_beta1 = static_cast<float>(1 - beta_1_);
        args.one_minus_beta2 = static_cast<float>(1 - beta_2_);
        args.correction = static_cast<float>(1 / (1 - power(beta_2_, t)));
        args.epsilon = static_cast<float>(epsilon_);
        return run.k.nadam(args);
      }
      case Kind::adamax: {
        AdamaxArgs args{};
        begin(args);
        args.m = slot(momentum_slot_);
        args.norm = slot(velocity_slot_);
        args.alpha = static_cast<float>(learning_rate / (1 - power(beta_1_, t)));
        args.one_minus_beta1 = static_cast<float>(1 - beta_1_);
        args.beta2 = static_cast<float>(beta_2_);
        args.epsilon = static_cast<float>(epsilon_);
        return run.k.adamax(args);
      }
      case Kind::rmsprop: {
        RmspropArgs args{};
        begin(args);
        args.v = slot(velocity_slot_);
        args.mean = slot(average_gradient_slot_);
        args.m = slot(momentum_slot_);
        args.lr = static_cast<float>(learning_rate);
        args.momentum = static_cast<float>(momentum_);
        args.one_minus_rho = static_cast<float>(1 - rho_);
        args.epsilon = static_cast<float>(epsilon_);
        return run.k.rmsprop(args);
      }
      case Kind::adagrad: {
        AdagradArgs args{};
        begin(args);
        args.v = slot(velocity_slot_);
        args.lr = static_cast<float>(learning_rate);
        args.epsilon = static_cast<float>(epsilon_);
        return run.k.adagrad(args);
      }
      case Kind::adadelta: {
        AdadeltaArgs args{};
        begin(args);
        args.v = slot(velocity_slot_);
        args.d = slot(delta_slot_);
        args.lr = static_cast<float>(learning_rate);
        args.one_minus_rho = static_cast<float>(1 - rho_);
        args.epsilon = static_cast<float>(epsilon_);
        return run.k.adadelta(args);
      }
      case Kind::ftrl: {
        if (learning_rate == 0) return;  // which Keras divides by
        FtrlArgs args{};
        begin(args);
        args.v = slot(velocity_slot_);
        args.linear = slot(linear_slot_);
        args.lr = static_cast<float>(learning_rate);
        args.power = static_cast<float>(power_);
        args.l1 = static_cast<float>(l1_);
        args.l2 = static_cast<float>(2 * l2_ + beta_ / learning_rate);
        args.shrinkage = static_cast<float>(2 * shrinkage_);
        return run.k.ftrl(args);
      }
      case Kind::lion: {
        LionArgs args{};
        begin(args);
        args.m = slot(momentum_slot_);
        args.lr = static_cast<float>(learning_rate);
        args.one_minus_beta1 = static_cast<float>(1 - beta_1_);
        args.one_minus_beta2 = static_cast<float>(1 - beta_2_);
        return run.k.lion(args);
      }
    }
  });
}

bool Optimizer::apply(float* weights, float* grads, const std::vector<Variable>& variables, Run& run) {
  run.poll = nullptr;  // from here on weights change: all or nothing
  if (accumulation_steps_ > 1) {
    for (const Variable& v : variables)
      if (!finite(grads + v.offset, v.size)) return false;
    const bool last = ++accumulated == accumulation_steps_;
    const float share = 1.0f / static_cast<float>(accumulation_steps_);
    for (const Variable& v : variables) {
      float* sum = accumulator_slot_.data() + v.offset;
      run.k.add(v.size, sum, grads + v.offset, sum);
      if (last) {
        run.k.scale(v.size, share, sum, grads + v.offset);
        std::fill(sum, sum + v.size, 0.0f);
      }
    }
    if (!last) {
      average(weights, variables, run);
      return true;
    }
    accumulated = 0;
  }
  if (!clip(grads, variables, run)) return false;
  if (kind_ == Kind::nadam)
    momentum_product_ = static_cast<float>(static_cast<double>(momentum_product_) * nadam_momentum(iterations + 1));
  for (const Variable& v : variables) step(weights, grads, v, run);
  average(weights, variables, run);
  iterations++;
  return true;
}

void Optimizer::average(float* weights, const std::vector<Variable>& variables, Run& run) {
  if (!use_ema_) return;
  const auto momentum = static_cast<float>(iterations == 0 ? 0 : ema_momentum_);
  for (const Variable& v : variables) {
    float* mean = average_slot_.data() + v.offset;
    run.k.scale(v.size, momentum, mean, mean);
    run.k.axpy(v.size, 1 - momentum, weights + v.offset, mean);
  }
  if (ema_overwrite_frequency_ > 0 && (iterations + 1) % ema_overwrite_frequency_ == 0) overwrite(weights, variables);
}

void Optimizer::overwrite(float* weights, const std::vector<Variable>& variables) const {
  for (const Variable& v : variables) std::copy_n(average_slot_.data() + v.offset, v.size, weights + v.offset);
}

void Optimizer::finalize_ema(float* weights, const std::vector<Variable>& variables) const {
  if (use_ema_ && iterations + accumulated > 0) overwrite(weights, variables);
}

}  // namespace seqcore
