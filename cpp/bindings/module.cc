// The extension's table of contents.
#include <system_error>

#include "arrays.h"
#include "base/parallel.h"
#include "kernels/dispatch.h"

namespace seqcore::bindings {

namespace {

unsigned long signal_thread = 0;  // the one that Python's handlers run on

py::dict show_config() {
  py::dict d;
  d["version"] = SEQCORE_VERSION;
  d["isa"] = kernels().isa;
  d["available_isas"] = available_isas();
  d["bfloat16"] = kernels().dot.bfloat16_by;
  d["int8"] = kernels().dot.int8_by;
  d["width"] = kernels().width;
  d["threads"] = num_threads();
  d["openmp"] = parallel_backend();
#if defined(__clang__)
  d["compiler"] = "clang " __clang_version__;
#else
  d["compiler"] = "gcc " __VERSION__;
#endif
  return d;
}

}  // namespace

bool Signals::operator()() {
  if (PyThread_get_thread_ident() != signal_thread) return false;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < std::chrono::milliseconds(20)) return false;
  last_ = now;
  const py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

}  // namespace seqcore::bindings

PYBIND11_MODULE(_core, m) {
  using namespace seqcore::bindings;
  m.doc() = "seqcore's compiled engine. Private: use the package seqcore.";
  m.attr("__version__") = SEQCORE_VERSION;
  signal_thread = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const std::system_error& e) {
      const py::object error = py::handle(PyExc_OSError)(e.code().value(), e.what());
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
    }
  });
  m.def("show_config", &show_config);
  m.def("set_num_threads", &seqcore::set_num_threads, py::arg("n"));
  m.def("get_num_threads", &seqcore::num_threads);
  bind_functions(m);
  bind_files(m);
  bind_model(m);
  bind_optimizer(m);
  bind_stream(m);
}
