// The stateless computations: the same code that models use, on single arrays.
#include "arrays.h"
#include "base/flush_guard.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "base/shape.h"
#include "kernels/dispatch.h"
#include "layers/config.h"
#include "model/constraints.h"
#include "model/initializers.h"
#include "model/losses.h"
#include "model/model.h"
#include "model/penalties.h"

namespace seqcore::bindings {

namespace {

using Array = py::array;
__extension__ using Wide = unsigned __int128;

std::int64_t columns_of(const std::vector<std::int64_t>& shape) { return shape.empty() ? 1 : shape.back(); }

py::array_t<float> activation(const std::string& name, const Array& array) {
  const Activation a = parse_activation(name);
  const Input x = floats_of(array, "x");
  const std::int64_t n = columns_of(x.shape), rows = n == 0 ? 0 : elements(x.shape) / n;
  std::vector<float> y(static_cast<std::size_t>(rows * n));
  {
    const py::gil_scoped_release release;
    const FlushGuard guard;
    kernels().activate(a, rows, n, x.values, n, y.data(), n);
  }
  return to_array(std::move(y), x.shape);
}

py::array_t<float> activation_gradient(const std::string& name, const Array& array, const Array& gradient) {
  const Activation a = parse_activation(name);
  const Input x = floats_of(array, "x"), dy = floats_of(gradient, "dy");
  if (x.shape != dy.shape) throw std::invalid_argument("dy must have the shape of x");
  const std::int64_t n = columns_of(x.shape), rows = n == 0 ? 0 : elements(x.shape) / n;
  std::vector<float> dx(static_cast<std::size_t>(rows * n)), cache(x.values, x.values + rows * n);
  {
    const py::gil_scoped_release release;
    const FlushGuard guard;
    if (!needs_input(a)) kernels().activate(a, rows, n, x.values, n, cache.data(), n);
    kernels().activate_backward(a, rows, n, cache.data(), n, dy.values, n, dx.data(), n);
  }
  return to_array(std::move(dx), x.shape);
}

py::array_t<float> loss(const std::string& config, const py::array& y_true, const Array& y_pred) {
  const Loss loss(Json::parse(config));
  const Input pred = floats_of(y_pred, "y_pred");
  const Input target = loss.takes_labels() ? input_of(y_true, "y_true") : floats_of(y_true, "y_true");
  if (pred.shape.empty() || elements(pred.shape) == 0)
    throw std::invalid_argument("y_pred: expected at least one row, got an empty array");
  std::vector<std::int64_t> shape(pred.shape.begin(), pred.shape.end() - 1);
  if (loss.takes_labels() ? !target.ids || target.shape != shape : target.shape != pred.shape)
    throw std::invalid_argument("y_true: expected " + std::string(loss.takes_labels()
                                                                      ? "int32 labels, one a row of y_pred"
                                                                      : "the shape of y_pred"));
  const std::int64_t n = pred.shape.back(), rows = elements(shape);
  loss.check_classes(n);
  std::vector<std::uint8_t> skip;
  if (loss.takes_labels())
    for (std::int64_t i = 0; i < rows; i++) {
      const bool ignored = loss.ignores(target.ids[i]);
      if (!ignored && (target.ids[i] < 0 || target.ids[i] >= n))
        throw std::invalid_argument("y_true: expected labels in [0, " + std::to_string(n) + "), got " +
                                    std::to_string(target.ids[i]));
      skip.push_back(ignored);
    }
  std::vector<float> each(static_cast<std::size_t>(rows));
  run([&](const Poll& poll) {
    Run r(kernels(), threads_now());
    r.poll = poll;
    Tensor p;
    p.data = const_cast<float*>(pred.values);
    p.dims.rank = 1;
    p.dims.d[0] = p.ld = n;
    p.batch = rows;
    loss.rows(p, {target.values, n, target.ids}, nullptr, loss.ignores() ? skip.data() : nullptr, loss.from_logits(),
              each.data(), nullptr, r);
    return 0;
  });
  return to_array(std::move(each), shape);
}

py::array_t<float> initialize_array(const std::string& config, const std::vector<std::int64_t>& shape,
                                    std::uint64_t seed) {
  for (const std::int64_t d : shape)
    if (d < 0) throw std::invalid_argument("shape: dimensions must not be negative, got " + std::to_string(d));
  std::vector<float> w(static_cast<std::size_t>(elements(shape)));
  const Json json = Json::parse(config);
  run([&](const Poll&) {
    initialize(json, shape, seed, w.data());
    return 0;
  });
  return to_array(std::move(w), shape);
}

py::array_t<float> constrain_array(const std::string& config, const Array& array) {
  const Input in = floats_of(array, "w");
  std::vector<float> w(in.values, in.values + elements(in.shape));
  const Json description = Json::parse(config);
  check_constraint(description, in.shape.size());
  constrain(description, in.shape, w.data());
  return to_array(std::move(w), in.shape);
}

double regularize(const std::string& config, const Array& array) {
  const Input in = floats_of(array, "w");
  const Penalty p = parse_penalty(Json::parse(config));
  check_penalty(p, in.shape.size());
  return run([&](const Poll& poll) {
    Run call(kernels(), num_threads());
    call.poll = poll;
    return penalize(p, in.shape, in.values, nullptr, call);
  });
}

// Fisher-Yates from the last place down; a draw is the high word of word * n, whose bias (n / 2^64) nobody can see.
py::array_t<std::int64_t> permutation(std::int64_t n, std::uint64_t seed, std::uint64_t counter) {
  if (n < 0) throw std::invalid_argument("n must not be negative, got " + std::to_string(n));
  std::vector<std::int64_t> p(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; i++) p[static_cast<std::size_t>(i)] = i;
  const Philox random{seed, counter};
  for (std::int64_t i = n - 1; i > 0; i--) {
    const Philox::Block b = random.block(static_cast<std::uint64_t>(i));
    const std::uint64_t word = (std::uint64_t{b.word[0]} << 32) | b.word[1];
    const auto j = static_cast<std::size_t>((static_cast<Wide>(word) * static_cast<std::uint64_t>(i + 1)) >> 64);
    std::swap(p[static_cast<std::size_t>(i)], p[j]);
  }
  return to_array(std::move(p), {n});
}

py::array_t<float> random_uniform(std::int64_t n, std::uint64_t seed, std::uint64_t counter) {
  if (n < 0) throw std::invalid_argument("n must not be negative, got " + std::to_string(n));
  std::vector<float> u(static_cast<std::size_t>(n));
  const Philox random{seed, counter};
  for (std::int64_t i = 0; i < n; i++) u[static_cast<std::size_t>(i)] = random.uniform(static_cast<std::uint64_t>(i));
  return to_array(std::move(u), {n});
}

}  // namespace

void bind_functions(py::module_& m) {
  std::vector<std::string> names;
#define X(name) names.emplace_back(#name);
  SEQCORE_ACTIVATIONS(X)
#undef X
  m.attr("ACTIVATIONS") = names;
  m.def("activation", &activation, py::arg("name"), py::arg("x"));
  m.def("activation_gradient", &activation_gradient, py::arg("name"), py::arg("x"), py::arg("dy"));
  m.def("loss", &loss, py::arg("config"), py::arg("y_true"), py::arg("y_pred"));
  m.def("initialize", &initialize_array, py::arg("config"), py::arg("shape"), py::arg("seed"));
  m.def("constrain", &constrain_array, py::arg("config"), py::arg("w"));
  m.def("regularize", &regularize, py::arg("config"), py::arg("w"));
  m.def("permutation", &permutation, py::arg("n"), py::arg("seed"), py::arg("counter"));
  m.def("random_uniform", &random_uniform, py::arg("n"), py::arg("seed"), py::arg("counter"));
}

}  // namespace seqcore::bindings
