// Stream: one step of one row as fast as Python lets, everything else as usual.
#include "stream/stream.h"

#include "arrays.h"
#include "stream/floor.h"

namespace seqcore::bindings {

namespace {

// A step of at least so many flops, some 20 microseconds, lets other Python threads run; less is not worth the handover.
constexpr double kReleaseFlops = 4e5;

constexpr const char* kCapsule = "seqcore.Stream";

// What the function step needs, in the capsule that is its self.
struct Stepper {
  std::shared_ptr<Stream> stream;
  py::object convert;           // to what step takes: an array or an int
  py::object float32, float64;  // NumPy's own dtypes, which nearly every array of them has
  bool release;
};

// The data of an array, if it is an aligned vector of n elements of that dtype side by side.
template <class T>
T* vector_of(const py::object& dtype, PyObject* o, std::int64_t n, bool write) {
  if (!py::isinstance<py::array>(o)) return nullptr;
  const auto* a = py::detail::array_proxy(o);
  const int flags = py::detail::npy_api::NPY_ARRAY_ALIGNED_ | (write ? py::detail::npy_api::NPY_ARRAY_WRITEABLE_ : 0);
  const bool fits = a->descr == dtype.ptr() && a->nd == 1 && a->dimensions[0] == n &&
                    (n == 1 || a->strides[0] == sizeof(T)) && (a->flags & flags) == flags;
  return fits ? reinterpret_cast<T*>(a->data) : nullptr;
}

// The float32 row of a float64 vector or of a list of floats, in `row` if it fits there; null where x is neither.
constexpr std::int64_t kRow = 1024;
const float* narrowed(const Stepper& self, PyObject* x, std::int64_t n, float* row) {
  if (n > kRow) return nullptr;
  if (const auto* values = vector_of<double>(self.float64, x, n, false)) {
    for (std::int64_t i = 0; i < n; i++) row[i] = static_cast<float>(values[i]);
    return row;
  }
  if (!PyList_CheckExact(x) || PyList_GET_SIZE(x) != n) return nullptr;
  for (std::int64_t i = 0; i < n; i++) {
    PyObject* const item = PyList_GET_ITEM(x, i);
    if (!PyFloat_CheckExact(item)) return nullptr;
    row[i] = static_cast<float>(PyFloat_AS_DOUBLE(item));
  }
  return row;
}

std::string shape_text(const py::array& a) { return py::str(a.attr("shape")).cast<std::string>(); }

// `out`, or the error that tells what is wrong with it.
float* output_of(const py::handle& o, const std::vector<std::int64_t>& shape) {
  if (!py::isinstance<py::array>(o))
    throw py::type_error("`out`: expected a float32 array, got " + std::string(Py_TYPE(o.ptr())->tp_name));
  auto a = py::reinterpret_borrow<py::array>(o);
  data_of<float>(a, "`out`", "float32");
  if (shape_of(a) != shape)
    throw std::invalid_argument("`out`: expected shape " + text(shape) + ", got " + shape_text(a));
  if (!a.writeable()) throw std::invalid_argument("`out`: the array is read-only");
  return static_cast<float*>(a.mutable_data());
}

std::int32_t id_of(const Stream& stream, PyObject* x) {
  int overflow = 0;
  const long id = PyLong_AsLongAndOverflow(x, &overflow);
  if (id == -1 && PyErr_Occurred()) throw py::error_already_set();
  if (overflow || id < 0 || id >= stream.vocabulary())
    throw std::invalid_argument("`x`: expected an id in [0, " + std::to_string(stream.vocabulary()) + "), got " +
                                py::str(x).cast<std::string>());
  return static_cast<std::int32_t>(id);
}

py::object step(const Stepper& self, PyObject* x, PyObject* out) {
  Stream& stream = *self.stream;
  std::int32_t id = 0;
  const float* values = nullptr;
  float row[kRow];
  py::object converted;
  if (stream.takes_ids()) {
    if (!PyLong_CheckExact(x)) {
      converted = self.convert(py::handle(x));
      x = converted.ptr();
    }
    id = id_of(stream, x);
  } else if (!(values = vector_of<float>(self.float32, x, stream.features(), false)) &&
             !(values = narrowed(self, x, stream.features(), row))) {
    converted = self.convert(py::handle(x));
    values = vector_of<float>(self.float32, converted.ptr(), stream.features(), false);
    if (!values) throw py::type_error("`x`: cannot be read as a float32 vector");
  }
  py::object result;
  float* y;
  if (!out || out == Py_None) {
    result = py::array(py::reinterpret_borrow<py::dtype>(self.float32), stream.outputs());
    y = reinterpret_cast<float*>(py::detail::array_proxy(result.ptr())->data);
  } else {
    result = py::reinterpret_borrow<py::object>(out);
    y = vector_of<float>(self.float32, out, stream.outputs(), true);
    if (!y) y = output_of(out, {stream.outputs()});
  }
  bool done;
  if (self.release) {
    const std::shared_ptr<Stream> keep = self.stream;
    PyThreadState* const state = PyEval_SaveThread();
    done = stream.step(values, stream.takes_ids() ? &id : nullptr, y);
    PyEval_RestoreThread(state);
  } else {
    done = stream.step(values, stream.takes_ids() ? &id : nullptr, y);
  }
  if (!done) throw Busy();
  return result;
}

// step(x, out=None), called by the fastest protocol that Python has.
PyObject* step_call(PyObject* capsule, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  const auto* self = static_cast<const Stepper*>(PyCapsule_GetPointer(capsule, kCapsule));
  const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
  PyObject *x = n > 0 ? args[0] : nullptr, *out = n > 1 ? args[1] : nullptr;
  for (Py_ssize_t i = 0; i < named; i++) {
    PyObject* const name = PyTuple_GET_ITEM(names, i);
    PyObject** const to = PyUnicode_CompareWithASCIIString(name, "out") == 0 ? &out
                          : PyUnicode_CompareWithASCIIString(name, "x") == 0 ? &x
                                                                             : nullptr;
    if (!to) return PyErr_Format(PyExc_TypeError, "step() got an unexpected keyword argument '%U'", name);
    if (*to) return PyErr_Format(PyExc_TypeError, "step() got multiple values for argument '%U'", name);
    *to = args[n + i];
  }
  if (n > 2 || !x)
    return PyErr_Format(PyExc_TypeError, "step() takes x and, optionally, out: %zd arguments given", n + named);
  try {
    return step(*self, x, out).release().ptr();
  } catch (py::error_already_set& e) {
    e.restore();
  } catch (const py::builtin_exception& e) {
    e.set_error();
  } catch (const std::invalid_argument& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
  return nullptr;
}

PyMethodDef step_method = {"step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(step_call)),
                           METH_FASTCALL | METH_KEYWORDS, "step(x, out=None)"};

py::object make_step(const std::shared_ptr<Stream>& stream, py::object convert) {
  auto* stepper = new Stepper{stream, std::move(convert), py::dtype::of<float>(), py::dtype::of<double>(),
                              stream->flops() >= kReleaseFlops};
  const py::capsule self(stepper, kCapsule, [](PyObject* capsule) {
    delete static_cast<Stepper*>(PyCapsule_GetPointer(capsule, kCapsule));
  });
  return py::reinterpret_steal<py::object>(PyCFunction_New(&step_method, self.ptr()));
}

struct Which {
  const std::int64_t* rows = nullptr;
  std::int64_t count = 0;
};
Which which_of(const std::optional<py::array>& which) {
  if (!which) return {};
  Which w{data_of<std::int64_t>(*which, "which", "int64"), which->size()};
  if (which->ndim() != 1) throw std::invalid_argument("which: expected a vector, got shape " + shape_text(*which));
  return w;
}

}  // namespace

void bind_stream(py::module_& m) {
  using Maybe = std::optional<py::array>;
  m.def("measure_read", &measure_read, py::arg("bytes"), py::call_guard<py::gil_scoped_release>());
  py::class_<Stream, std::shared_ptr<Stream>>(m, "Stream")
      .def(py::init([](const Model& model, const std::string& precision, std::int64_t streams, int threads) {
             const Precision p = parse_precision(precision);
             return run([&](const Poll&) {
               return std::shared_ptr<Stream>(std::make_unique<Stream>(model.snapshot(), p, streams, threads));
             });
           }),
           py::arg("model"), py::arg("precision"), py::arg("streams"), py::arg("threads"))
      .def_property_readonly("features", &Stream::features)
      .def_property_readonly("outputs", &Stream::outputs)
      .def_property_readonly("weight_bytes", &Stream::weight_bytes)
      .def_property_readonly("takes_ids", &Stream::takes_ids)
      .def("copy", [](const Stream& self) { return std::shared_ptr<Stream>(self.copy()); })
      .def("make_step", &make_step, py::arg("convert"))
      .def(
          "run",
          [](Stream& self, const py::array& x, const Maybe& which, const py::object& out) {
            const Input in = input_of(x, "x");
            const Which w = which_of(which);
            const std::int64_t count = which ? w.count : self.streams();
            const bool ids = self.takes_ids();
            std::vector<std::int64_t> shape = in.shape;
            const bool features = ids || (!shape.empty() && shape.back() == self.features());
            if (!ids && !shape.empty()) shape.pop_back();
            const bool joined = shape.size() == 1;
            if ((in.ids != nullptr) != ids || !features || (!joined && (shape.size() != 2 || shape[1] != count)) ||
                (joined && count > 0 && shape[0] % count != 0))
              throw std::invalid_argument("x: expected " + std::string(ids ? "int32" : "float32") +
                                          " of shape (steps, streams, features), got shape " + shape_text(x));
            const std::int64_t steps = !joined ? shape[0] : count > 0 ? shape[0] / count : 0;
            shape.push_back(self.outputs());
            py::object result = out.is_none() ? py::array_t<float>(shape) : out;
            float* const y = output_of(result, shape);
            seqcore::bindings::run([&](const Poll& poll) {
              self.run(in.values, in.ids, steps, w.rows, count, y, poll);
              return 0;
            });
            return result;
          },
          py::arg("x"), py::arg("which"), py::arg("out"))
      .def(
          "reset",
          [](Stream& self, const Maybe& which) {
            const Which w = which_of(which);
            self.reset(w.rows, w.count);
          },
          py::arg("which"))
      .def("get_state",
           [](const Stream& self) {
             py::list all;
             std::vector<float*> to;
             for (const Stream::StateArray& state : self.state_arrays()) {
               py::array_t<float> a({self.streams(), state.units});
               to.push_back(a.mutable_data());
               all.append(a);
             }
             self.get_state(to);
             return all;
           })
      .def(
          "set_state",
          [](Stream& self, const std::vector<py::array>& arrays) {
            const auto& expected = self.state_arrays();
            if (arrays.size() != expected.size())
              throw std::invalid_argument("state: expected " + std::to_string(expected.size()) + " arrays, got " +
                                          std::to_string(arrays.size()));
            std::vector<const float*> values;
            for (std::size_t i = 0; i < arrays.size(); i++) {
              values.push_back(data_of<float>(arrays[i], "state", "float32"));
              const std::vector<std::int64_t> shape = {self.streams(), expected[i].units};
              if (shape_of(arrays[i]) != shape)
                throw std::invalid_argument("state: array " + std::to_string(i) + ": expected shape " + text(shape) +
                                            ", got " + shape_text(arrays[i]));
            }
            self.set_state(values);
          },
          py::arg("arrays"));
}

}  // namespace seqcore::bindings
