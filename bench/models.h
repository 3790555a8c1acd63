// Models to run: recurrent layers with some weights.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/json.h"
#include "model/snapshot.h"
#include "roofline.h"

namespace seqcore::bench {

struct Shape {  // of layers on top of each other, all with as many units
  const char* layer;
  std::int64_t input, units;
  int layers = 1;
};

inline std::string name_of(const Shape& s) {
  return s.layer + std::string("/I") + std::to_string(s.input) + "_H" + std::to_string(s.units) +
         (s.layers > 1 ? "_L" + std::to_string(s.layers) : "");
}

inline std::shared_ptr<const Snapshot> make_model(const Shape& s) {
  const Json config = Json::Object{{"units", s.units}, {"return_sequences", true}};
  const Json::Array layers(static_cast<std::size_t>(s.layers),
                           Json::Object{{"class_name", std::string(s.layer)}, {"config", config}});
  const Json input = Json::Object{{"shape", Json::Array{nullptr, nullptr, s.input}}, {"dtype", "float32"}};
  const auto network = std::make_shared<const Network>(Json::Object{{"input", input}, {"layers", layers}});
  Arena memory;
  float* const weights = memory.floats(network->size());
  const Numbers values(network->size(), 0.1f);
  std::copy_n(values.data, network->size(), weights);
  return std::make_shared<const Snapshot>(network, std::move(memory), weights);
}

}  // namespace seqcore::bench
