// Model and Weight: argument checks that need Python's types, then the core.
#include "model/model.h"

#include "arrays.h"

namespace seqcore::bindings {

namespace {

struct Weight {
  int layer;
  std::string name;
  std::vector<std::int64_t> shape;
  bool statistic;
};

py::tuple tuple_of(const std::vector<std::int64_t>& shape) {
  py::tuple t(shape.size());
  for (std::size_t i = 0; i < shape.size(); i++)
    t[i] = shape[i] < 0 ? py::object(py::none()) : py::object(py::int_(shape[i]));
  return t;
}

const WeightSpec& spec_of(const Model& m, int index) {
  if (index < 0 || index >= static_cast<int>(m.weights().size()))
    throw py::index_error("weight " + std::to_string(index) + " of " + std::to_string(m.weights().size()));
  return *m.weights()[static_cast<std::size_t>(index)].spec;
}

void check_layer(const Model& m, int layer, bool all_allowed) {
  if (layer < (all_allowed ? -1 : 0) || layer >= static_cast<int>(m.output_shapes().size()))
    throw py::index_error("layer " + std::to_string(layer) + " of " + std::to_string(m.output_shapes().size()));
}

Batch batch_of(const py::array& x, const std::optional<py::array>& y, const std::optional<py::array>& sample_weight,
               const std::optional<py::array>& rows) {
  Batch b;
  b.x = input_of(x, "x");
  if (y) b.y = input_of(*y, "y");
  if (sample_weight) {
    const Input w = floats_of(*sample_weight, "sample_weight");
    b.sample_weight = w.values;
    b.weight_shape = w.shape;
  }
  if (rows) {
    b.rows = data_of<std::int64_t>(*rows, "rows", "int64");
    if (rows->ndim() != 1 || rows->size() == 0)
      throw std::invalid_argument("rows: expected a vector of at least one index");
    b.count = rows->size();
    const std::int64_t n = b.x.shape.empty() ? 0 : b.x.shape[0];
    for (std::int64_t i = 0; i < b.count; i++)
      if (b.rows[i] < 0 || b.rows[i] >= n)
        throw py::index_error("rows: " + std::to_string(b.rows[i]) + " of " + std::to_string(n) + " samples");
  }
  return b;
}

// (n, steps), or None.
py::object mask_of(const Model::Result& result, std::int64_t n) {
  if (!result.mask) return py::none();
  py::array_t<bool> array({n, static_cast<std::int64_t>(result.mask->size()) / n});
  std::copy(result.mask->begin(), result.mask->end(), array.mutable_data());
  return array;
}

}  // namespace

Precision parse_precision(const std::string& name) {
  for (int i = 0; i < 3; i++)
    if (name == kPrecisionNames[i]) return static_cast<Precision>(i);
  throw std::invalid_argument("precision: expected 'float32', 'bfloat16' or 'int8', got '" + name + "'");
}

void bind_model(py::module_& m) {
  m.attr("PRECISIONS") = std::vector<std::string>(std::begin(kPrecisionNames), std::end(kPrecisionNames));
  py::class_<Weight>(m, "Weight")
      .def_readonly("layer", &Weight::layer)
      .def_readonly("name", &Weight::name)
      .def_property_readonly("shape", [](const Weight& w) { return tuple_of(w.shape); })
      .def_readonly("statistic", &Weight::statistic);

  using Array = py::array;
  using Maybe = std::optional<py::array>;
  py::class_<Model>(m, "Model")
      .def(py::init([](const std::string& description, std::uint64_t seed) {
             return run([&](const Poll&) { return std::make_unique<Model>(description, seed); });
           }),
           py::arg("description"), py::arg("seed"))
      .def_property_readonly("output_shapes",
                             [](const Model& self) {
                               py::list all;
                               for (const auto& shape : self.output_shapes()) all.append(tuple_of(shape));
                               return all;
                             })
      .def_property_readonly("weights",
                             [](const Model& self) {
                               std::vector<Weight> all;
                               for (const Network::Weight& w : self.weights())
                                 all.push_back({w.layer, w.spec->name, w.spec->shape, w.spec->statistic});
                               return all;
                             })
      .def(
          "get_weight",
          [](const Model& self, int index) {
            const WeightSpec& spec = spec_of(self, index);
            std::vector<float> w(static_cast<std::size_t>(spec.size()));
            self.get_weight(index, w.data());
            return to_array(std::move(w), spec.shape);
          },
          py::arg("index"))
      .def(
          "set_weight",
          [](Model& self, int index, const Array& value) {
            const WeightSpec& spec = spec_of(self, index);
            const Input in = floats_of(value, "value");
            if (in.shape != spec.shape)
              throw std::invalid_argument("weight '" + spec.name + "': expected shape " +
                                          py::str(tuple_of(spec.shape)).cast<std::string>() + ", got " +
                                          py::str(tuple_of(in.shape)).cast<std::string>());
            self.set_weight(index, in.values);
          },
          py::arg("index"), py::arg("value"))
      .def(
          "initial_weight",
          [](const Model& self, int index) {
            const WeightSpec& spec = spec_of(self, index);
            std::vector<float> w(static_cast<std::size_t>(spec.size()));
            self.initial_weight(index, w.data());
            return to_array(std::move(w), spec.shape);
          },
          py::arg("index"))
      .def(
          "predict",
          [](const Model& self, const Array& x, std::int64_t batch_size, const std::string& precision) {
            const Input in = input_of(x, "x");
            const Precision p = parse_precision(precision);
            return to_array(run([&](const Poll& poll) { return self.predict(in, batch_size, p, poll); }));
          },
          py::arg("x"), py::arg("batch_size"), py::arg("precision") = kPrecisionNames[0])
      .def(
          "forward",
          [](Model& self, const Array& x, bool training, const Maybe& mask,
             const std::optional<std::vector<py::array>>& initial_state, const std::vector<bool>& trainable) {
            const Input in = input_of(x, "x");
            const std::uint8_t* valid = nullptr;
            if (mask) {
              if (mask->ndim() != 2 || x.ndim() < 2 || mask->shape(0) != x.shape(0) || mask->shape(1) != x.shape(1))
                throw std::invalid_argument("mask: expected shape (batch, steps) of x");
              valid = reinterpret_cast<const std::uint8_t*>(data_of<bool>(*mask, "mask", "bool"));
            }
            std::vector<Input> states;
            if (initial_state)
              for (const py::array& s : *initial_state) states.push_back(floats_of(s, "initial_state"));
            Model::Result result = run([&](const Poll& poll) {
              return self.forward(in, training, valid, initial_state ? &states : nullptr, trainable, poll);
            });
            py::list outputs;
            for (Output& out : result.outputs) outputs.append(to_array(std::move(out)));
            return py::make_tuple(outputs, mask_of(result, x.shape(0)));
          },
          py::arg("x"), py::arg("training"), py::arg("mask"), py::arg("initial_state"),
          py::arg("trainable") = std::vector<bool>())
      .def(
          "reset_states",
          [](Model& self, int layer) {
            check_layer(self, layer, true);
            self.reset_states(layer);
          },
          py::arg("layer"))
      .def(
          "get_states",
          [](const Model& self, int layer) {
            check_layer(self, layer, false);
            py::list all;
            for (Output& s : self.states(layer)) all.append(to_array(std::move(s)));
            return all;
          },
          py::arg("layer"))
      .def(
          "set_states",
          [](Model& self, int layer, const std::vector<py::array>& states) {
            check_layer(self, layer, false);
            std::vector<Input> in;
            for (const py::array& s : states) in.push_back(floats_of(s, "states"));
            self.set_states(layer, in);
          },
          py::arg("layer"), py::arg("states"))
      .def("compile", &Model::compile, py::arg("config"))
      .def(
          "train_on_batch",
          [](Model& self, const Array& x, const Array& y, const Maybe& sample_weight, const Maybe& rows) {
            const Batch batch = batch_of(x, y, sample_weight, rows);
            return run([&](const Poll& poll) { return self.train_on_batch(batch, poll); });
          },
          py::arg("x"), py::arg("y"), py::arg("sample_weight"), py::arg("rows"))
      .def(
          "test_on_batch",
          [](Model& self, const Array& x, const Array& y, const Maybe& sample_weight, const Maybe& rows) {
            const Batch batch = batch_of(x, y, sample_weight, rows);
            return run([&](const Poll& poll) { return self.test_on_batch(batch, poll); });
          },
          py::arg("x"), py::arg("y"), py::arg("sample_weight"), py::arg("rows"))
      .def(
          "see_batch",
          [](Model& self, const Array& x, const Array& y, const Maybe& sample_weight, const Maybe& rows, bool train) {
            const Batch batch = batch_of(x, y, sample_weight, rows);
            Model::Result seen;
            run([&](const Poll& poll) {
              return train ? self.train_on_batch(batch, poll, &seen) : self.test_on_batch(batch, poll, &seen);
            });
            const std::int64_t n = seen.outputs[0].shape[0];
            return py::make_tuple(to_array(std::move(seen.outputs[0])), mask_of(seen, n));
          },
          py::arg("x"), py::arg("y"), py::arg("sample_weight"), py::arg("rows"), py::arg("train"))
      .def(
          "gradients",
          [](Model& self, const Array& x, const Array& y, const Maybe& sample_weight) {
            const Batch batch = batch_of(x, y, sample_weight, std::nullopt);
            std::vector<std::vector<float>> grads;
            const double loss = run([&](const Poll& poll) { return self.gradients(batch, &grads, poll); });
            py::list all;
            for (std::size_t i = 0; i < grads.size(); i++)
              all.append(to_array(std::move(grads[i]), self.weights()[i].spec->shape));
            return py::make_tuple(loss, all);
          },
          py::arg("x"), py::arg("y"), py::arg("sample_weight"))
      .def(
          "check_data",
          [](const Model& self, const Array& x, const Maybe& y, const Maybe& sample_weight) {
            const Batch batch = batch_of(x, y, sample_weight, std::nullopt);
            run([&](const Poll&) {
              self.check_data(batch);
              return 0;
            });
          },
          py::arg("x"), py::arg("y"), py::arg("sample_weight"))
      .def("metric_results", &Model::metric_results)
      .def("reset_metrics", &Model::reset_metrics)
      .def_property_readonly("loss_mean", &Model::loss_mean)
      .def_readwrite("skipped_steps", &Model::skipped_steps)
      .def_property(
          "iterations", [](Model& self) { return self.optimizer().iterations; },
          [](Model& self, std::int64_t n) { self.optimizer().iterations = n; })
      .def_property(
          "accumulated", [](Model& self) { return self.optimizer().accumulated; },
          [](Model& self, std::int64_t n) { self.optimizer().accumulated = n; })
      .def_property(
          "learning_rate", [](Model& self) { return self.optimizer().learning_rate; },
          [](Model& self, double lr) { self.optimizer().learning_rate = lr; })
      .def("optimizer_variables",
           [](Model& self) {
             py::list all;
             for (auto& [name, value] : self.optimizer_variables())
               all.append(py::make_tuple(name, to_array(std::move(value))));
             return all;
           })
      .def(
          "set_optimizer_variables",
          [](Model& self, const std::vector<std::pair<std::string, py::array>>& values) {
            std::vector<std::pair<std::string, Input>> in;
            for (const auto& [name, value] : values) in.emplace_back(name, floats_of(value, name.c_str()));
            self.set_optimizer_variables(in);
          },
          py::arg("values"))
      .def("finalize_ema", &Model::finalize_ema)
      .def_readwrite("seed", &Model::seed)
      .def_readwrite("rng_counter", &Model::rng_counter);
}

}  // namespace seqcore::bindings
