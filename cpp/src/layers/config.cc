#include "layers/config.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace seqcore {

namespace {

bool is_integral(const Json& j) {
  if (!j.is_number()) return false;
  const double value = j.as_number();
  return j.is_integer() || (value == std::floor(value) && std::abs(value) < 0x1p63);
}

}  // namespace

const Json Config::kEmpty = Json(Json::Object{});

Config::Config(const Json& description) : object_(&kEmpty) {
  if (!description.is_object())
    throw std::invalid_argument("expected {\"class_name\": …, \"config\": {…}}, got no object");
  for (const auto& [key, value] : description.as_object()) {
    if (key == "class_name")
      class_name_ = value.as_string();
    else if (key == "config")
      object_ = &value;
    else
      throw std::invalid_argument("unknown key '" + key + "' beside class_name and config");
  }
  if (class_name_.empty()) throw std::invalid_argument("class_name is missing");
  if (!object_->is_object()) throw std::invalid_argument(class_name_ + ": config must be an object");
}

void Config::fail(const std::string& key, const std::string& expected) const {
  const Json* found = object_->find(key);
  throw std::invalid_argument(class_name_ + ": " + key + " must be " + expected + ", got " +
                              (found ? found->dump() : std::string("nothing")));
}

const Json* Config::take(const std::string& key) {
  taken_.push_back(key);
  const Json* found = object_->find(key);
  return found && found->is_null() ? nullptr : found;
}

bool Config::has(const char* key) {
  taken_.emplace_back(key);
  return object_->find(key) != nullptr;
}

std::int64_t Config::integer(const char* key, std::int64_t fallback) {
  const Json* j = take(key);
  if (!j) return fallback;
  if (!is_integral(*j)) fail(key, "an integer");
  return j->as_integer();
}

std::int64_t Config::positive(const char* key) {
  const std::int64_t n = integer(key, 0);
  if (n <= 0 || n > (1 << 30)) fail(key, "a positive integer (at most 2^30)");
  return n;
}

double Config::number(const char* key, double fallback) {
  const Json* j = take(key);
  if (!j) return fallback;
  if (!j->is_number() || !std::isfinite(j->as_number())) fail(key, "a finite number");
  return j->as_number();
}

double Config::not_negative(const char* key, double fallback) {
  const double value = number(key, fallback);
  if (!(value >= 0)) fail(key, "at least 0");
  return value;
}

double Config::rate(const char* key) {
  const double r = number(key, 0);
  if (!(r >= 0 && r <= 1)) fail(key, "in [0, 1]");
  return r;
}

bool Config::boolean(const char* key, bool fallback) {
  const Json* j = take(key);
  if (!j) return fallback;
  if (!j->is_bool()) fail(key, "true or false");
  return j->as_bool();
}

std::string Config::string(const char* key, const char* fallback) {
  const Json* j = take(key);
  if (!j) return fallback;
  if (!j->is_string()) fail(key, "a string");
  return j->as_string();
}

Activation Config::activation(const char* key, const char* fallback) { return parse_activation(string(key, fallback)); }

Json Config::any(const std::string& key) {
  const Json* j = take(key);
  return j ? *j : Json();
}

std::int64_t Config::axis() {
  const Json given = any("axis");
  if (given.is_null()) return -1;
  if (given.is_array() && given.as_array().size() != 1) fail("axis", "the last axis");
  const Json& axis = given.is_array() ? given.as_array()[0] : given;
  if (!is_integral(axis)) fail("axis", "an integer");
  return axis.as_integer();
}

Json Config::initializer(const std::string& key, const char* fallback) {
  Json j = any(key);
  if (!j.is_null()) return j;
  return Json(Json::Object{{"class_name", Json(fallback)}, {"config", Json(Json::Object{})}});
}

Penalty Config::penalty(const std::string& key) {
  const Penalty p = parse_penalty(any(key));
  if (p.orthogonal != 0 && key == "activity_regularizer") fail(key, "L1, L2 or L1L2");
  return p;
}

WeightSpec Config::weight(const std::string& name, const char* initializer_fallback, const char* stem) {
  const std::string of = stem ? stem : name;
  return {name,
          {},
          initializer(of + "_initializer", initializer_fallback),
          penalty(of + "_regularizer"),
          any(of + "_constraint")};
}

WeightSpec Config::statistic(const std::string& name, const char* initializer_fallback) {
  WeightSpec spec{name, {}, initializer(name + "_initializer", initializer_fallback), {}, {}};
  spec.statistic = true;
  return spec;
}

Json Config::seed() {
  Json seed = any("seed");
  if (!seed.is_null() && !is_integral(seed)) fail("seed", "an integer");
  return seed;
}

void Config::ignore(std::initializer_list<const char*> keys) {
  for (const char* key : keys) taken_.emplace_back(key);
}

void Config::done() {
  ignore({"name", "trainable", "dtype"});  // Python's matters, in every Keras config
  for (const auto& [key, value] : object_->as_object())
    if (std::find(taken_.begin(), taken_.end(), key) == taken_.end())
      throw std::invalid_argument(class_name_ + ": unknown key '" + key + "' in its config");
}

Activation parse_activation(const std::string& name) {
  static constexpr std::pair<const char*, Activation> kNames[] = {
#define X(name) {#name, Activation::name},
      SEQCORE_ACTIVATIONS(X)
#undef X
      // Keras's other names for the same functions
      {"swish", Activation::silu},
      {"hard_swish", Activation::hard_silu},
      {"celu", Activation::elu},
  };
  for (const auto& [known, activation] : kNames)
    if (name == known) return activation;
  std::string all;
  for (const auto& [known, activation] : kNames) all += std::string(all.empty() ? "" : ", ") + known;
  throw std::invalid_argument("unknown activation '" + name + "'; expected one of: " + all);
}

Penalty parse_penalty(const Json& description) {
  Penalty p;
  if (description.is_null()) return p;
  Config c(description);
  const std::string& name = c.class_name();
  if (name == "OrthogonalRegularizer") {
    p.orthogonal = c.not_negative("factor", 0.01);
    const std::string mode = c.string("mode", "rows");
    if (mode != "rows" && mode != "columns") c.fail("mode", "rows or columns");
    p.of_columns = mode == "columns";
  } else {
    if (name != "L1" && name != "L2" && name != "L1L2")
      throw std::invalid_argument("unknown regularizer '" + name + "'; expected L1, L2, L1L2 or OrthogonalRegularizer");
    if (name != "L2") p.l1 = c.number("l1", name == "L1" ? 0.01 : 0);
    if (name != "L1") p.l2 = c.number("l2", name == "L2" ? 0.01 : 0);
  }
  c.done();
  return p;
}

void check_last_axis(const char* layer, std::int64_t axis, const Dims& input) {
  if (axis != -1 && axis != input.rank)
    throw std::invalid_argument(std::string(layer) + ": axis must be the last one (-1), got " + std::to_string(axis));
}

void check_penalty(const Penalty& penalty, std::size_t rank) {
  if (penalty.orthogonal != 0 && rank != 2)
    throw std::invalid_argument("OrthogonalRegularizer: expected a weight of 2 axes, got one of " +
                                std::to_string(rank));
}

void check_constraint(const Json& description, std::size_t rank) {
  if (description.is_null()) return;
  Config c(description);
  const std::string& name = c.class_name();
  if (name == "MaxNorm")
    c.ignore({"max_value", "axis"});
  else if (name == "MinMaxNorm")
    c.ignore({"min_value", "max_value", "rate", "axis"});
  else if (name == "UnitNorm")
    c.ignore({"axis"});
  else if (name != "NonNeg")
    throw std::invalid_argument("unknown constraint '" + name + "'; expected MaxNorm, MinMaxNorm, UnitNorm or NonNeg");
  c.done();
  constraint_axes(description, rank);
}

unsigned constraint_axes(const Json& description, std::size_t rank) {
  Config c(description);
  if (!c.has("axis")) return 1;
  if (rank > 31) throw std::invalid_argument("constraint: a weight of more than 31 axes");
  const Json given = c.any("axis");
  const auto all = static_cast<std::int64_t>(rank);
  if (given.is_null()) return (1u << rank) - 1;
  unsigned axes = 0;
  const auto add = [&](const Json& axis) {
    const std::int64_t at = axis.is_integer() ? axis.as_integer() : all;
    if (at < -all || at >= all)
      c.fail("axis", "integers from " + std::to_string(-all) + " to " + std::to_string(all - 1) + " for a weight of " +
                         std::to_string(rank) + " axes");
    axes |= 1u << (at < 0 ? at + all : at);
  };
  if (given.is_array())
    for (const Json& axis : given.as_array()) add(axis);
  else
    add(given);
  return axes;
}

}  // namespace seqcore
