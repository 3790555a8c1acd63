#include "model/file.h"

#include <cstring>
#include <stdexcept>
#include <unordered_map>

#include "base/json_reader.h"
#include "base/safetensors.h"
#include "base/shape.h"
#include "base/utf8.h"

namespace seqcore {

namespace {

constexpr std::int64_t kFormat = 1;  // _saving.py's

const Json& member(const Json& object, const char* key, const char* where) {
  const Json* found = object.is_object() ? object.find(key) : nullptr;
  if (!found) throw std::invalid_argument(std::string("the description is damaged: no ") + key + " in " + where);
  return *found;
}

// Network's description from that of Keras's Sequential, whose first layer is its input.
Json network_description(const Json& header) {
  const Json& version = member(header, "format_version", "the metadata");
  if (!version.is_integer() || version.as_integer() != kFormat)
    throw std::invalid_argument("format_version " + version.dump() + " is not known to this version of seqcore (" +
                                SEQCORE_VERSION + "), which reads " + std::to_string(kFormat));
  const Json& config = member(member(header, "model", "the metadata"), "config", "the model");
  const Json::Array& layers = member(config, "layers", "the model's config").as_array();
  if (layers.empty() || member(layers.front(), "class_name", "the first layer").as_string() != "InputLayer")
    throw std::invalid_argument("the description is damaged: the first layer is no InputLayer");
  const Json& input = member(layers.front(), "config", "InputLayer");
  return Json::Object{{"input", Json::Object{{"shape", member(input, "batch_shape", "InputLayer")},
                                             {"dtype", member(input, "dtype", "InputLayer")}}},
                      {"layers", Json::Array(layers.begin() + 1, layers.end())}};
}

void copy_values(const StoredTensor& tensor, std::int64_t n, float* to) {
  if (tensor.dtype == "F32") {
    std::memcpy(to, tensor.data.data(), static_cast<std::size_t>(n) * sizeof(float));
  } else if (tensor.dtype == "F64") {
    for (std::int64_t i = 0; i < n; i++) {
      double value;
      std::memcpy(&value, tensor.data.data() + static_cast<std::size_t>(i) * sizeof(double), sizeof(double));
      to[i] = static_cast<float>(value);
    }
  } else {
    throw std::invalid_argument(tensor.name + ": expected floats, got " + tensor.dtype);
  }
}

std::shared_ptr<const Snapshot> make_model(const StoredFile& file) {
  const std::string* text_of = nullptr;
  for (const auto& [key, value] : file.metadata)
    if (key == "seqcore") text_of = &value;
  if (!text_of) throw std::invalid_argument("no seqcore model: the description is missing (a file of weights alone?)");
  const auto network = std::make_shared<const Network>(network_description(Json::parse(*text_of)));

  std::unordered_map<std::string, const StoredTensor*> tensors;
  for (const StoredTensor& tensor : file.tensors)
    if (tensor.name.rfind("layers/", 0) == 0) tensors.emplace(tensor.name, &tensor);
  if (tensors.size() != network->weights().size())
    throw std::invalid_argument("expected " + std::to_string(network->weights().size()) + " weights, found " +
                                std::to_string(tensors.size()));
  std::vector<const StoredTensor*> found;  // all seen to fit before memory is taken for them
  for (const Network::Weight& weight : network->weights()) {
    const std::string name = "layers/" + std::to_string(weight.layer) + "/" + weight.spec->name;
    const auto at = tensors.find(name);
    if (at == tensors.end()) throw std::invalid_argument(name + ": not in the file");
    if (at->second->shape != weight.spec->shape)
      throw std::invalid_argument(name + ": expected shape " + text(weight.spec->shape) + ", got " +
                                  text(at->second->shape));
    found.push_back(at->second);
  }
  Arena memory;
  float* const weights = memory.zeros(network->size());
  for (std::size_t i = 0; i < found.size(); i++) {
    const WeightSpec& spec = *network->weights()[i].spec;
    copy_values(*found[i], spec.size(), weights + spec.offset);
  }
  return std::make_shared<const Snapshot>(network, std::move(memory), weights);
}

}  // namespace

std::shared_ptr<const Snapshot> load_model(const std::string& path) {
  try {
    return make_model(read_safetensors(path));
  } catch (const std::invalid_argument& e) {
    throw std::invalid_argument(quoted(path, 300) + ": " + e.what());
  }
}

std::shared_ptr<const Snapshot> parse_model(const std::byte* data, std::size_t size) {
  return make_model(parse_safetensors(data, size));
}

}  // namespace seqcore
