// Files: tensors by name in and out of one safetensors file; any other content written as atomically.
#include <cstring>
#include <map>

#include "arrays.h"
#include "base/files.h"
#include "base/safetensors.h"

namespace seqcore::bindings {

namespace {

constexpr std::pair<const char*, const char*> kTypes[] = {{"F32", "float32"}, {"F64", "float64"}, {"I32", "int32"},
                                                          {"I64", "int64"},   {"U64", "uint64"},  {"U8", "uint8"}};

void write(const std::string& path, const py::dict& tensors, const std::map<std::string, std::string>& metadata) {
  StoredFile file;
  file.metadata.assign(metadata.begin(), metadata.end());
  for (const auto& [name, value] : tensors) {
    const auto array = py::cast<py::array>(value);
    const auto dtype = py::str(array.dtype()).cast<std::string>();
    StoredTensor t;
    t.name = name.cast<std::string>();
    for (const auto& [stored, numpy] : kTypes)
      if (dtype == numpy) t.dtype = stored;
    if (t.dtype.empty() || !(array.flags() & py::array::c_style))
      throw py::type_error("tensors['" + t.name + "']: expected a C-contiguous array of a storable dtype, got " +
                           dtype);
    t.shape = shape_of(array);
    t.data.resize(static_cast<std::size_t>(array.nbytes()));
    if (!t.data.empty()) std::memcpy(t.data.data(), array.data(), t.data.size());
    file.tensors.push_back(std::move(t));
  }
  const py::gil_scoped_release release;
  write_safetensors(path, file);
}

void write_bytes(const std::string& path, const py::buffer& content) {
  const py::buffer_info info = content.request();
  if (info.itemsize != 1 || info.ndim != 1 || info.strides[0] != 1) throw py::type_error("content: expected bytes");
  const py::gil_scoped_release release;
  write_file(path, {{info.ptr, static_cast<std::size_t>(info.size)}});
}

py::tuple read(const std::string& path) {
  StoredFile file;
  {
    const py::gil_scoped_release release;
    file = read_safetensors(path);
  }
  py::dict tensors, metadata;
  for (const StoredTensor& t : file.tensors) {
    const char* dtype = nullptr;
    for (const auto& [stored, numpy] : kTypes)
      if (t.dtype == stored) dtype = numpy;
    if (!dtype) throw std::invalid_argument("tensor '" + t.name + "': dtype " + t.dtype + " is not supported");
    const py::array array(py::dtype(dtype), t.shape);
    if (!t.data.empty()) std::memcpy(const_cast<void*>(array.data()), t.data.data(), t.data.size());
    tensors[py::str(t.name)] = array;
  }
  for (const auto& [key, value] : file.metadata) metadata[py::str(key)] = value;
  return py::make_tuple(tensors, metadata);
}

}  // namespace

void bind_files(py::module_& m) {
  m.def("write_file", &write_bytes, py::arg("path"), py::arg("content"));
  m.def("write_safetensors", &write, py::arg("path"), py::arg("tensors"), py::arg("metadata"));
  m.def("read_safetensors", &read, py::arg("path"));
}

}  // namespace seqcore::bindings
