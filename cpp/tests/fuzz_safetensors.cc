// safetensors: any bytes are refused or make tensors that hold together. See fuzz.h.
#include <cstdlib>
#include <stdexcept>

#include "base/safetensors.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    std::size_t bytes = 0;
    for (const auto& tensor : seqcore::parse_safetensors(reinterpret_cast<const std::byte*>(data), size).tensors) {
      std::size_t elements = 1;
      for (const std::int64_t n : tensor.shape) elements *= static_cast<std::size_t>(n);
      if (elements * (tensor.dtype == "U8" ? 1 : tensor.dtype[1] == '3' ? 4 : 8) != tensor.data.size()) std::abort();
      bytes += tensor.data.size();
    }
    if (bytes + 10 > size) std::abort();
  } catch (const std::invalid_argument&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  const auto file = [](std::string header, std::size_t data) {
    header.resize((header.size() + 7) / 8 * 8, ' ');
    return std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') + header + std::string(data, 'd');
  };
  const std::string two =
      R"({"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}})";
  return {file(two, 9), file(R"({"__metadata__":{"k":"v"},"a":{"dtype":"I64","shape":[0,7],"data_offsets":[0,0]}})", 0),
          file("{}", 0)};
}
