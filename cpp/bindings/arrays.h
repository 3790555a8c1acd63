// NumPy arrays in and out, Ctrl-C, and errors: what every binding needs.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "model/model.h"

namespace seqcore::bindings {

namespace py = pybind11;

inline std::vector<std::int64_t> shape_of(const py::array& a) {
  return std::vector<std::int64_t>(a.shape(), a.shape() + a.ndim());
}

// The data of a C-contiguous array of exactly T, else TypeError naming the argument.
template <class T>
const T* data_of(const py::array& a, const char* name, const char* dtype) {
  if (!py::isinstance<py::array_t<T>>(a) || !(a.flags() & py::array::c_style))
    throw py::type_error(std::string(name) + ": expected a C-contiguous " + dtype + " array, got dtype " +
                         py::str(a.dtype()).cast<std::string>() + " with strides " +
                         py::str(a.attr("strides")).cast<std::string>());
  return static_cast<const T*>(a.data());
}

// float32, or int32 (ids, labels).
inline Input input_of(const py::array& a, const char* name) {
  Input in;
  in.shape = shape_of(a);
  if (py::isinstance<py::array_t<std::int32_t>>(a))
    in.ids = data_of<std::int32_t>(a, name, "int32");
  else
    in.values = data_of<float>(a, name, "float32");
  return in;
}

inline Input floats_of(const py::array& a, const char* name) {
  Input in;
  in.shape = shape_of(a);
  in.values = data_of<float>(a, name, "float32");
  return in;
}

// An array that owns the vector's memory.
template <class T, class A>
py::array_t<T> to_array(std::vector<T, A>&& values, const std::vector<std::int64_t>& shape) {
  auto* owned = new std::vector<T, A>(std::move(values));
  const py::capsule free(owned, [](void* p) { delete static_cast<std::vector<T, A>*>(p); });
  return py::array_t<T>(shape, owned->data(), free);
}
inline py::array_t<float> to_array(Output&& out) { return to_array(std::move(out.values), out.shape); }

// Whether Python has a signal to handle, asked at most every 20 ms and only on the thread that handles signals. A pending
// exception stays set; run() below raises it.
class Signals {
 public:
  bool operator()();

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// f(poll) without the GIL; Ctrl-C comes out as KeyboardInterrupt. Taking the GIL back ends the thread when the interpreter
// is shutting down, by unwinding the stack: no destructor may do it.
template <class F>
auto run(F&& f) {
  std::optional<decltype(f(Poll()))> result;
  std::exception_ptr error;
  PyThreadState* const state = PyEval_SaveThread();
  try {
    result.emplace(f(Poll(Signals())));
  } catch (...) {
    error = std::current_exception();
  }
  PyEval_RestoreThread(state);
  if (!error) return std::move(*result);
  try {
    std::rethrow_exception(error);
  } catch (const Cancelled&) {
    throw py::error_already_set();
  }
}

void bind_functions(py::module_& m);
void bind_files(py::module_& m);
void bind_model(py::module_& m);
void bind_optimizer(py::module_& m);
void bind_stream(py::module_& m);

Precision parse_precision(const std::string& name);

}  // namespace seqcore::bindings
