// The layers' factories, one a layer; registry.cc lists them under their class names.
#pragma once

#include <memory>

#include "base/json.h"
#include "layers/layer.h"

namespace seqcore {

std::unique_ptr<Layer> make_recurrent(const Json& description);
std::unique_ptr<Layer> make_dense(const Json& description);
std::unique_ptr<Layer> make_embedding(const Json& description);
std::unique_ptr<Layer> make_masking(const Json& description);
std::unique_ptr<Layer> make_noise(const Json& description);
std::unique_ptr<Layer> make_activity_regularization(const Json& description);
std::unique_ptr<Layer> make_activation(const Json& description);
std::unique_ptr<Layer> make_rectifier(const Json& description);
std::unique_ptr<Layer> make_flatten(const Json& description);
std::unique_ptr<Layer> make_reshape(const Json& description);
std::unique_ptr<Layer> make_permute(const Json& description);
std::unique_ptr<Layer> make_repeat_vector(const Json& description);
std::unique_ptr<Layer> make_global_average_pooling(const Json& description);
std::unique_ptr<Layer> make_global_max_pooling(const Json& description);
std::unique_ptr<Layer> make_conv1d(const Json& description);
std::unique_ptr<Layer> make_average_pooling(const Json& description);
std::unique_ptr<Layer> make_max_pooling(const Json& description);
std::unique_ptr<Layer> make_layer_normalization(const Json& description);
std::unique_ptr<Layer> make_batch_normalization(const Json& description);
std::unique_ptr<Layer> make_bidirectional(const Json& description);
std::unique_ptr<Layer> make_time_distributed(const Json& description);

}  // namespace seqcore
