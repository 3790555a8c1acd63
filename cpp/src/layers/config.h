// Reading configs of layers, losses, optimizers: each key by name, unknown ones refused, errors that say whose it was.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "base/json.h"
#include "kernels/kernels.h"
#include "layers/tensor.h"
#include "layers/weight_spec.h"

namespace seqcore {

class Config {
 public:
  // {"class_name": …, "config": {…}}
  explicit Config(const Json& description);
  const std::string& class_name() const { return class_name_; }

  std::int64_t integer(const char* key, std::int64_t fallback);
  std::int64_t positive(const char* key);  // required
  double number(const char* key, double fallback);
  double not_negative(const char* key, double fallback);
  double rate(const char* key);  // in [0, 1], 0 if absent
  bool boolean(const char* key, bool fallback);
  std::string string(const char* key, const char* fallback);
  Activation activation(const char* key, const char* fallback);
  Json any(const std::string& key);  // null if absent
  std::int64_t axis();        // of layers that work along one: -1 or [-1], or another; checked by check_last_axis
  bool has(const char* key);  // if only as null
  Penalty penalty(const std::string& key);
  // A weight, its shape still open, from "<stem>_initializer", "<stem>_regularizer" and "<stem>_constraint"; without a stem
  // from its name.
  WeightSpec weight(const std::string& name, const char* initializer, const char* stem = nullptr);
  WeightSpec statistic(const std::string& name, const char* initializer);  // has an initializer alone
  Json seed();                                                             // an integer, or null
  void ignore(std::initializer_list<const char*> keys);
  void done();  // throws on keys that nobody asked for

  [[noreturn]] void fail(const std::string& key, const std::string& expected) const;

 private:
  const Json* take(const std::string& key);
  Json initializer(const std::string& key, const char* fallback);
  std::string class_name_;
  const Json* object_;
  std::vector<std::string> taken_;
  static const Json kEmpty;
};

Activation parse_activation(const std::string& name);  // throws std::invalid_argument with the list
Penalty parse_penalty(const Json& description);  // null, or {"class_name": L1 | L2 | L1L2 | OrthogonalRegularizer}
// Throws std::invalid_argument unless it is the input's last one; the batch counts as the first.
void check_last_axis(const char* layer, std::int64_t axis, const Dims& input);
// Null, or a known one that fits a weight of that many axes.
void check_penalty(const Penalty& penalty, std::size_t rank);
void check_constraint(const Json& description, std::size_t rank);
// Along which axes its norms are, a bit each. Null stands for all, nothing for the first.
unsigned constraint_axes(const Json& description, std::size_t rank);

}  // namespace seqcore
