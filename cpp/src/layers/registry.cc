// The registry: which class_name makes which layer.
#include <utility>

#include "layers/config.h"
#include "layers/factories.h"

namespace seqcore {

std::unique_ptr<Layer> make_layer(const Json& description) {
  using Factory = std::unique_ptr<Layer> (*)(const Json&);
  static constexpr std::pair<const char*, Factory> kLayers[] = {
      {"SimpleRNN", make_recurrent},
      {"LSTM", make_recurrent},
      {"GRU", make_recurrent},
      {"RNN", make_recurrent},
      {"Bidirectional", make_bidirectional},
      {"Dense", make_dense},
      {"Embedding", make_embedding},
      {"Masking", make_masking},
      {"Dropout", make_noise},
      {"SpatialDropout1D", make_noise},
      {"GaussianDropout", make_noise},
      {"GaussianNoise", make_noise},
      {"AlphaDropout", make_noise},
      {"ActivityRegularization", make_activity_regularization},
      {"Identity", make_activity_regularization},  // of nothing
      {"Activation", make_activation},
      {"Softmax", make_activation},
      {"ReLU", make_rectifier},
      {"LeakyReLU", make_rectifier},
      {"ELU", make_rectifier},
      {"Flatten", make_flatten},
      {"Reshape", make_reshape},
      {"Permute", make_permute},
      {"RepeatVector", make_repeat_vector},
      {"GlobalAveragePooling1D", make_global_average_pooling},
      {"GlobalMaxPooling1D", make_global_max_pooling},
      {"Conv1D", make_conv1d},
      {"AveragePooling1D", make_average_pooling},
      {"MaxPooling1D", make_max_pooling},
      {"LayerNormalization", make_layer_normalization},
      {"BatchNormalization", make_batch_normalization},
      {"TimeDistributed", make_time_distributed},
  };
  const std::string name = Config(description).class_name();
  for (const auto& [known, factory] : kLayers)
    if (name == known) return factory(description);
  std::string all;
  for (const auto& [known, factory] : kLayers) all += std::string(all.empty() ? "" : ", ") + known;
  throw std::invalid_argument("unknown layer '" + name + "'; expected one of: " + all);
}

}  // namespace seqcore
