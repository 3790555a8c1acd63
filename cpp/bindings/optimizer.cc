// Optimizer: the updates that training makes, on arrays of the caller's.
#include "model/optimizers.h"

#include "arrays.h"
#include "base/flush_guard.h"
#include "base/parallel.h"
#include "base/shape.h"
#include "kernels/dispatch.h"

namespace seqcore::bindings {

namespace {

class ArrayOptimizer {
 public:
  ArrayOptimizer(const std::string& config, std::vector<std::vector<std::int64_t>> shapes)
      : optimizer(Json::parse(config)), shapes_(std::move(shapes)) {
    for (const auto& shape : shapes_) {
      const std::int64_t n = elements(shape);
      variables_.push_back({size_, n});
      size_ += n;
    }
    optimizer.build(size_);
  }

  // The new values, in the order of `which`; none, with nothing changed, where a gradient is not finite.
  py::object apply(const std::vector<std::size_t>& which, const std::vector<py::array>& values,
                   const std::vector<py::array>& gradients, const std::vector<bool>& decays) {
    if (which.size() != values.size() || which.size() != gradients.size() || which.size() != decays.size())
      throw std::invalid_argument("which, values, gradients and decays must be equally many");
    std::vector<float> w(static_cast<std::size_t>(size_)), g(w.size());
    std::vector<Optimizer::Variable> chosen;
    for (std::size_t i = 0; i < which.size(); i++) {
      if (which[i] >= shapes_.size()) throw py::index_error("variable " + std::to_string(which[i]));
      Optimizer::Variable v = variables_[which[i]];
      v.decays = decays[i];
      for (const auto& [array, name, to] :
           {std::tuple{&values[i], "values", &w}, std::tuple{&gradients[i], "gradients", &g}}) {
        const Input in = floats_of(*array, name);
        if (in.shape != shapes_[which[i]])
          throw std::invalid_argument(std::string(name) + ": another shape than variable " + std::to_string(which[i]));
        std::copy_n(in.values, v.size, to->data() + v.offset);
      }
      chosen.push_back(v);
    }
    const bool done = run([&](const Poll&) {
      Run call(kernels(), num_threads());
      const FlushGuard guard;
      return optimizer.apply(w.data(), g.data(), chosen, call);
    });
    if (!done) return py::none();
    py::list fresh;
    for (std::size_t i = 0; i < which.size(); i++) fresh.append(part(w, chosen[i], shapes_[which[i]]));
    return std::move(fresh);
  }

  py::list variables() {
    py::list all;
    for (auto& [name, slot] : optimizer.slots())
      for (std::size_t i = 0; i < variables_.size(); i++)
        all.append(py::make_tuple(name + "/" + std::to_string(i), part(*slot, variables_[i], shapes_[i])));
    if (const float* product = optimizer.momentum_product())
      all.append(py::make_tuple("u_product", to_array(std::vector<float>{*product}, {})));
    return all;
  }

  Optimizer optimizer;

 private:
  static py::array_t<float> part(const std::vector<float>& all, const Optimizer::Variable& v,
                                 const std::vector<std::int64_t>& shape) {
    return to_array(std::vector<float>(all.data() + v.offset, all.data() + v.offset + v.size), shape);
  }

  std::vector<std::vector<std::int64_t>> shapes_;
  std::vector<Optimizer::Variable> variables_;
  std::int64_t size_ = 0;
};

}  // namespace

void bind_optimizer(py::module_& m) {
  using Self = ArrayOptimizer;
  py::class_<Self>(m, "Optimizer")
      .def(py::init<const std::string&, std::vector<std::vector<std::int64_t>>>(), py::arg("config"), py::arg("shapes"))
      .def("apply", &Self::apply, py::arg("which"), py::arg("values"), py::arg("gradients"), py::arg("decays"))
      .def("optimizer_variables", &Self::variables)
      .def_property(
          "iterations", [](Self& self) { return self.optimizer.iterations; },
          [](Self& self, std::int64_t n) { self.optimizer.iterations = n; })
      .def_property(
          "accumulated", [](Self& self) { return self.optimizer.accumulated; },
          [](Self& self, std::int64_t n) { self.optimizer.accumulated = n; })
      .def_property(
          "learning_rate", [](Self& self) { return self.optimizer.learning_rate; },
          [](Self& self, double rate) { self.optimizer.learning_rate = rate; });
}

}  // namespace seqcore::bindings
