// The law of one order as one number: a hash over the bytes of initial weights, predictions, gradients and ten training
// steps of a fixed set of models. It must be the same for every ISA, number of threads, compiler and architecture.
//
//   law [--threads N] [--each]     prints the hash; --each prints one per model instead. SEQCORE_ISA chooses the ISA.
//   law --isas                     prints the ISAs that this machine can run
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "base/philox.h"
#include "kernels/dispatch.h"
#include "model/model.h"

namespace {

using namespace seqcore;

class Hash {  // FNV-1a
 public:
  void add(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < size; ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3u;
  }
  template <class A>
  void add(const std::vector<float, A>& values) {
    for (const float v : values)
      if (!std::isfinite(v)) throw std::runtime_error("a result is not finite: the bits of NaNs are not promised");
    add(values.data(), values.size() * sizeof(float));
  }
  void add(double value) { add(&value, sizeof value); }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

std::string layer(const std::string& name, const std::string& config) {
  return R"({"class_name": ")" + name + R"(", "config": {)" + config + "}}";
}
std::string dense(int units, const std::string& activation) {
  return layer("Dense", R"("units": )" + std::to_string(units) + R"(, "activation": ")" + activation + "\"");
}
// Every activation in a Dense layer, one after the other.
std::string every_activation() {
  std::string chain;
#define X(name) chain += dense(19, #name) + ", ";
  SEQCORE_ACTIVATIONS(X)
#undef X
  return chain;
}

struct Case {
  const char* name;
  std::vector<std::int64_t> x;  // shape; ids if there are two axes, below 11
  std::string layers;
  const char* loss;  // its name, and its config
  const char* loss_config;
  const char* optimizer;  // its name, and its config
  const char* optimizer_config;
};

// Sizes are odd where an ISA has to finish a vector, and large enough for several threads and blocks of gradients.
std::vector<Case> cases() {
  const auto rnn = [](const char* cell, int units, const char* config) {
    return layer(cell, R"("units": )" + std::to_string(units) + ", " + config);
  };
  return {
      {"tutorial SimpleRNN",
       {64, 10, 8},
       rnn("SimpleRNN", 64, R"("activation": "relu")") + ", " + dense(2, "softmax"),
       "SparseCategoricalCrossentropy",
       "",
       "Adam",
       ""},
      {"tutorial LSTM",
       {64, 10, 8},
       rnn("LSTM", 64, R"("activation": "relu")") + ", " + dense(2, "softmax"),
       "SparseCategoricalCrossentropy",
       "",
       "Adam",
       ""},
      {"masked GRU, both forms",
       {37, 9, 5},
       layer("Masking", R"("mask_value": 0.0)") + ", " +
           rnn("GRU", 35, R"("return_sequences": true, "zero_output_for_mask": true, "dropout": 0.25)") + ", " +
           rnn("GRU", 21, R"("activation": "gelu", "reset_after": false, "recurrent_dropout": 0.25)") + ", " +
           dense(3, "softmax"),
       "CategoricalCrossentropy",
       R"("label_smoothing": 0.1)",
       "Adam",
       R"("clipnorm": 0.5, "amsgrad": true)"},
      {"embedding, bidirectional LSTM with dropout",
       {33, 13},
       layer("Embedding", R"("input_dim": 11, "output_dim": 9, "mask_zero": true)") + ", " +
           layer("Bidirectional",
                 R"("merge_mode": "concat", "layer": )" +
                     rnn("LSTM", 17, R"("return_sequences": true, "dropout": 0.2, "recurrent_dropout": 0.3)")) +
           ", " + layer("LayerNormalization", "") + ", " + layer("Dropout", R"("rate": 0.25)") + ", " +
           layer("TimeDistributed", R"("layer": )" + dense(6, "silu")) + ", " +
           rnn("LSTM", 40, R"("activation": "silu", "recurrent_activation": "hard_sigmoid", "return_sequences": true,
                              "go_backwards": true)") +
           ", " + dense(11, "softmax"),
       "SparseCategoricalCrossentropy",
       "",
       "Adam",
       R"("global_clipnorm": 1.0, "use_ema": true)"},
      {"regression over a sequence",
       {29, 20, 3},
       layer("Bidirectional",
             R"("merge_mode": "sum", "layer": )" +
                 rnn("SimpleRNN", 50, R"("activation": "gelu", "return_sequences": true, "use_bias": false)")) +
           ", " + rnn("GRU", 16, R"("return_sequences": true, "activation": "softsign",
                             "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.01}})") +
           ", " + dense(1, "linear"),
       "MeanSquaredError",
       "",
       "SGD",
       R"("learning_rate": 0.01, "momentum": 0.9, "nesterov": true)"},
      {"batch statistics, of all steps and step by step",
       {37, 19, 5},
       layer("Masking", R"("mask_value": 0.0)") + ", " + rnn("GRU", 35, R"("return_sequences": true)") + ", " +
           layer("BatchNormalization", R"("momentum": 0.5)") + ", " +
           layer("TimeDistributed", R"("layer": )" + layer("BatchNormalization", "")) + ", " +
           rnn("LSTM", 21, R"("use_bias": false)") + ", " + layer("BatchNormalization", R"("scale": false)") + ", " +
           dense(3, "softmax"),
       "SparseCategoricalCrossentropy",
       "",
       "Adam",
       ""},
      {"regression, RMSprop",
       {31, 5, 3},
       rnn("LSTM", 18, R"("use_bias": false)") + ", " + dense(2, "linear"),
       "MeanSquaredError",
       "",
       "RMSprop",
       R"("learning_rate": 0.01, "momentum": 0.5, "centered": true, "weight_decay": 0.004)"},
      {"regression, Nadam",
       {31, 5, 3},
       rnn("GRU", 18, R"("use_bias": false)") + ", " + dense(2, "linear"),
       "LogCosh",
       "",
       "Nadam",
       R"("learning_rate": 0.01, "weight_decay": 0.004)"},
      {"regression, softmax inside",
       {300, 4, 6},
       rnn("LSTM", 20, R"("activation": "softmax", "unit_forget_bias": false, "recurrent_dropout": 0.1)") + ", " +
           dense(7, "tanh"),
       "Huber",
       "",
       "Adam",
       R"("weight_decay": 0.004, "clipvalue": 0.1)"},
      {"binary",
       {45, 6, 4},
       rnn("LSTM", 31, R"("activation": "mish", "recurrent_activation": "silu")") + ", " + dense(1, "sigmoid"),
       "BinaryCrossentropy",
       "",
       "Adam",
       ""},
      {"few rows, wide: threads share the units",
       {5, 9, 40},
       rnn("LSTM", 200, R"("return_sequences": true)") + ", " + rnn("GRU", 150, R"("return_sequences": true)") + ", " +
           rnn("SimpleRNN", 333, R"("go_backwards": true)") + ", " + dense(3, "softmax"),
       "SparseCategoricalCrossentropy",
       "",
       "Adam",
       ""},
      {"every activation",
       {70, 3, 4},
       layer("Flatten", "") + ", " + every_activation() + layer("LayerNormalization", "") + ", " + dense(5, "linear"),
       "MeanAbsoluteError",
       "",
       "Adam",
       ""},
  };
}

// Ten training steps and what leads up to them; fails if the split into batches shows.
std::uint64_t run(const Case& c) {
  std::string shape = "null";
  std::int64_t n = c.x[0], size = n;
  for (std::size_t i = 1; i < c.x.size(); ++i) {
    shape += ", " + std::to_string(c.x[i]);
    size *= c.x[i];
  }
  const bool ids = c.x.size() == 2;
  Model model(R"({"input": {"shape": [)" + shape + R"(], "dtype": ")" + (ids ? "int32" : "float32") +
                  R"("}, "layers": [)" + c.layers + "]}",
              7);
  model.compile(R"({"optimizer": )" + layer(c.optimizer, c.optimizer_config) + R"(, "loss": )" +
                layer(c.loss, c.loss_config) + R"(, "metrics": [], "weighted_metrics": [], "trainable": [)" +
                [&] {
                  std::string all;
                  for (std::size_t i = 0; i < model.weights().size(); ++i) all += i ? ", true" : "true";
                  return all;
                }() +
                "]}");

  const Philox random{1, 2};
  std::vector<float> values(static_cast<std::size_t>(size));
  std::vector<std::int32_t> numbers(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = random.uniform(i) * 4 - 2;
    numbers[i] = static_cast<std::int32_t>(random.word(i) % 11);
    // Some steps masked, at the ends and in the middle.
    const std::size_t features = ids ? 1 : static_cast<std::size_t>(c.x[2]);
    if (random.word(1000000 + i / features) % 4 == 0) values[i] = 0, numbers[i] = 0;
  }
  Batch batch;
  batch.x.shape = c.x;
  if (ids) {
    batch.x.ids = numbers.data();
  } else {
    batch.x.values = values.data();
  }
  batch.count = n;

  Hash hash;
  const auto add_weights = [&] {
    for (std::size_t i = 0; i < model.weights().size(); ++i) {
      std::vector<float> w(static_cast<std::size_t>(model.weights()[i].spec->size()));
      model.get_weight(static_cast<int>(i), w.data());
      hash.add(w);
    }
  };
  add_weights();
  const Output whole = model.predict(batch.x, n);
  hash.add(whole.values);
  for (const std::int64_t split : {std::int64_t{1}, n / 2 + 1})
    if (model.predict(batch.x, split).values != whole.values)
      throw std::runtime_error("predictions depend on the batch size");

  // Targets that suit any loss: labels, or numbers in [0, 1] that are 0 or 1 for the cross-entropies.
  std::vector<std::int64_t> y_shape = whole.shape;
  const std::int64_t outputs = y_shape.back();
  std::vector<float> targets(whole.values.size());
  std::vector<std::int32_t> labels(targets.size() / static_cast<std::size_t>(outputs));
  const std::string loss = c.loss;
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = static_cast<std::int32_t>(random.word(2000000 + i) % static_cast<std::uint64_t>(outputs));
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const std::size_t row = i / static_cast<std::size_t>(outputs), column = i % static_cast<std::size_t>(outputs);
    targets[i] = loss == "CategoricalCrossentropy"
                     ? static_cast<float>(labels[row] == static_cast<std::int32_t>(column))
                 : loss == "BinaryCrossentropy" ? static_cast<float>(random.word(3000000 + i) % 2)
                                                : random.uniform(3000000 + i);
  }
  if (model.loss_takes_labels()) {
    y_shape.pop_back();
    batch.y.ids = labels.data();
  } else {
    batch.y.values = targets.data();
  }
  batch.y.shape = y_shape;
  std::vector<float> sample_weight(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < sample_weight.size(); ++i) sample_weight[i] = random.uniform(4000000 + i) + 0.5f;
  batch.sample_weight = sample_weight.data();
  batch.weight_shape = {n};

  std::vector<std::vector<float>> gradients;
  hash.add(model.gradients(batch, &gradients));
  for (const auto& gradient : gradients) hash.add(gradient);
  for (int step = 0; step < 10; ++step) hash.add(model.train_on_batch(batch));
  if (model.skipped_steps != 0) throw std::runtime_error("a step was skipped");
  add_weights();
  for (const auto& [name, slot] : model.optimizer_variables()) hash.add(slot.values);
  return hash.value();
}

}  // namespace

int main(int argc, char** argv) try {
  bool each = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--isas") == 0) {
      for (const char* isa : seqcore::available_isas()) std::puts(isa);
      return 0;
    }
    if (std::strcmp(argv[i], "--each") == 0) {
      each = true;
    } else if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      seqcore::set_num_threads(std::atoi(argv[++i]));
    } else {
      std::fprintf(stderr, "usage: law [--threads N] [--each] | --isas\n");
      return 2;
    }
  }
  Hash all;
  for (const Case& c : cases()) {
    const std::uint64_t hash = run(c);
    if (each) std::printf("%016llx  %s\n", static_cast<unsigned long long>(hash), c.name);
    all.add(&hash, sizeof hash);
  }
  if (!each) std::printf("%016llx\n", static_cast<unsigned long long>(all.value()));
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "law: %s\n", error.what());
  return 1;
}
