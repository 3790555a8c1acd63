// The C interface and the C++ header above it: what they compute, and that nothing a stranger hands in does harm.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "base/safetensors.h"
#include "check.h"
#include "hot_path.h"
#include "seqcore/seqcore.hpp"

namespace {

std::string folder;

// ------------------------------------------------------------------------------------------------------------- models

std::string layer(const std::string& name, const std::string& config) {
  return R"({"class_name": ")" + name + R"(", "config": {"name": "a", "trainable": true, "dtype": "float32")" +
         (config.empty() ? "" : ", " + config) + "}}";
}
std::string header(const std::string& input, const std::string& layers, const std::string& version = "1") {
  return R"({"format_version": )" + version + R"(, "model": {"class_name": "Sequential", "config": {"layers": [)" +
         R"({"class_name": "InputLayer", "config": {"name": "x", )" + input + "}}, " + layers + "]}}}";
}

seqcore::StoredTensor weight(const std::string& name, std::vector<std::int64_t> shape, bool doubles = false) {
  seqcore::StoredTensor t{name, doubles ? "F64" : "F32", shape, {}};
  std::size_t n = 1;
  for (const std::int64_t d : shape) n *= static_cast<std::size_t>(d);
  check::Random random{std::hash<std::string>()(name) | 1};
  t.data.resize(n * (doubles ? 8 : 4));
  for (std::size_t i = 0; i < n; i++) {
    const float value = static_cast<float>(static_cast<double>(random.next() >> 11) * 0x1p-53 - 0.5);
    const double wide = static_cast<double>(value);
    if (doubles)
      std::memcpy(t.data.data() + i * 8, &wide, 8);
    else
      std::memcpy(t.data.data() + i * 4, &value, 4);
  }
  return t;
}

constexpr std::int64_t kFeatures = 5, kUnits = 17, kOutputs = 3, kVocabulary = 11;
const char* const kSteps = R"("batch_shape": [null, null, 5], "dtype": "float32")";

// LSTM and Dense over any number of steps.
seqcore::StoredFile floats_file(const std::string& version = "1", bool doubles = false) {
  return {{weight("layers/0/kernel", {kFeatures, 4 * kUnits}, doubles),
           weight("layers/0/recurrent_kernel", {kUnits, 4 * kUnits}, doubles),
           weight("layers/0/bias", {4 * kUnits}, doubles), weight("layers/1/kernel", {kUnits, kOutputs}, doubles),
           weight("layers/1/bias", {kOutputs}, doubles), weight("optimizer/m/0", {2})},
          {{"format", "seqcore"},
           {"seqcore",
            header(kSteps,
                   layer("LSTM", R"("units": 17, "return_sequences": true)") + ", " + layer("Dense", R"("units": 3)"),
                   version)}}};
}
seqcore::StoredFile ids_file() {
  return {{weight("layers/0/embeddings", {kVocabulary, 4}), weight("layers/1/kernel", {4, 3 * 6}),
           weight("layers/1/recurrent_kernel", {6, 3 * 6}), weight("layers/1/bias", {2, 3 * 6})},
          {{"seqcore", header(R"("batch_shape": [null, null], "dtype": "int32")",
                              layer("Embedding", R"("input_dim": 11, "output_dim": 4)") + ", " +
                                  layer("GRU", R"("units": 6, "return_sequences": true)"))}}};
}

std::string written(const std::string& name, const seqcore::StoredFile& file) {
  const std::string path = folder + "/" + name;
  seqcore::write_safetensors(path, file);
  return path;
}
std::vector<unsigned char> bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
std::vector<float> numbers(std::size_t n, std::uint64_t seed = 1) {
  check::Random random{seed};
  std::vector<float> x(n);
  for (float& v : x) v = static_cast<float>(static_cast<double>(random.next() >> 11) * 0x1p-52 - 1);
  return x;
}
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The call failed so, and said so.
#define CHECK_FAILS(call, want, text)                                                                               \
  do {                                                                                                              \
    const seqcore_status got_ = (call);                                                                             \
    check::that(got_ == (want) && std::strstr(seqcore_last_error(), text) != nullptr, __FILE__, __LINE__,           \
                std::string(#call) + " gives " + seqcore_status_name(got_) + ", \"" + seqcore_last_error() + "\""); \
  } while (false)
#define CHECK_OK(call)                                                                                     \
  do {                                                                                                     \
    const seqcore_status got_ = (call);                                                                    \
    check::that(got_ == SEQCORE_OK, __FILE__, __LINE__, std::string(#call) + ": " + seqcore_last_error()); \
  } while (false)

// -------------------------------------------------------------------------------------------------------------- tests

void computes() {
  const seqcore::Model model = seqcore::Model::load(written("floats.safetensors", floats_file()));
  CHECK(!model.takes_ids() && model.info().parameters == 5 * 68 + 17 * 68 + 68 + 17 * 3 + 3);
  CHECK(model.info().input_rank == 2 && model.info().input_shape[0] == -1 && model.info().input_shape[1] == kFeatures);
  CHECK(model.info().output_rank == 2 && model.info().output_shape[0] == -1 &&
        model.info().output_shape[1] == kOutputs);
  constexpr std::size_t kBatch = 150, kLong = 7;  // more than predict takes at a time
  const std::vector<float> x = numbers(kBatch * kLong * kFeatures);
  for (const auto precision : {seqcore::Precision::float32, seqcore::Precision::bfloat16, seqcore::Precision::int8}) {
    const std::vector<float> y = model.predict(x, kBatch, kLong, precision);
    CHECK(y.size() == kBatch * kLong * kOutputs);
    for (const int threads : {1, 2}) {
      seqcore::Stream stream = model.stream(precision, threads);
      CHECK(stream.features() == kFeatures && stream.outputs() == kOutputs && !stream.takes_ids());
      std::vector<float> steps(kLong * kOutputs), block(steps.size()), again(steps.size());
      const seqcore::Span<const float> first(x.data(), kLong * kFeatures);
      for (std::size_t t = 0; t < kLong; t++)
        CHECK(stream.step({x.data() + t * kFeatures, kFeatures}, {steps.data() + t * kOutputs, kOutputs}).ok());
      CHECK(same(steps, {y.begin(), y.begin() + kLong * kOutputs}));
      const std::vector<float> end = stream.state();
      CHECK(end.size() == 2 * kUnits);
      CHECK(stream.reset().ok() && stream.run(first, block).ok() && same(block, steps) && same(stream.state(), end));

      const std::vector<float> middle = numbers(end.size(), 3);
      CHECK(stream.set_state(middle).ok() && same(stream.state(), middle));
      seqcore::Stream copy = stream.copy();
      CHECK(stream.run(first, block).ok() && copy.run(first, again).ok() && same(block, again));
    }
    seqcore::Streams many = model.streams(kBatch, precision, 2);
    std::vector<float> rows(kBatch * kFeatures), out(kBatch * kOutputs);
    for (std::size_t t = 0; t < kLong; t++) {
      for (std::size_t b = 0; b < kBatch; b++)
        std::memcpy(&rows[b * kFeatures], &x[(b * kLong + t) * kFeatures], kFeatures * sizeof(float));
      CHECK(many.step(rows, out).ok());
      bool equal = true;
      for (std::size_t b = 0; b < kBatch; b++)
        equal &= std::memcmp(&out[b * kOutputs], &y[(b * kLong + t) * kOutputs], kOutputs * sizeof(float)) == 0;
      CHECK(equal);
    }
    // A subset: the second of two restarts and runs alone.
    seqcore::Streams two = model.streams(2, precision);
    std::vector<float> pair(2 * kOutputs), one(kOutputs);
    const std::int64_t second[] = {1};
    const seqcore::Span<const float> both(x.data(), 2 * kFeatures);
    CHECK(two.step(both, pair).ok() && two.reset(second).ok());
    CHECK(two.step({x.data() + kFeatures, kFeatures}, second, one).ok());
    CHECK(same(one, {pair.begin() + kOutputs, pair.end()}) && two.size() == 2 && two.state_size() == 4 * kUnits);
  }
}

void takes_ids() {
  const seqcore::Model model = seqcore::Model::load(written("ids.safetensors", ids_file()));
  CHECK(model.takes_ids() && model.info().vocabulary == kVocabulary && model.info().input_rank == 1);
  const std::vector<std::int32_t> ids = {3, 10, 0, 7, 7, 1};
  const std::vector<float> y = model.predict(ids, 2, 3);
  seqcore::Stream stream = model.stream();
  std::vector<float> out(stream.outputs()), block(3 * stream.outputs());
  for (std::size_t t = 0; t < 3; t++) {
    CHECK(stream.step(ids[t], out).ok());
    CHECK(same(out, {y.begin() + static_cast<long>(t * 6), y.begin() + static_cast<long>(t * 6 + 6)}));
  }
  CHECK(stream.reset().ok() && stream.run(seqcore::Span<const std::int32_t>(ids.data(), 3), block).ok());
  CHECK(same(block, {y.begin(), y.begin() + 18}));
  const std::vector<float> before = stream.state();
  for (const std::int32_t id : {-1, 11, std::numeric_limits<std::int32_t>::max()}) {
    CHECK_FAILS(stream.step(id, out).code(), SEQCORE_INVALID_ARGUMENT, "expected one in [0, 11)");
    const std::vector<std::int32_t> bad = {1, id, 2};
    CHECK_FAILS(stream.run(bad, block).code(), SEQCORE_INVALID_ARGUMENT, "[0, 11)");
    CHECK_FAILS(model.predict(bad, 1, 3, block).code(), SEQCORE_INVALID_ARGUMENT, "[0, 11)");
  }
  CHECK_FAILS(stream.step(numbers(1), out).code(), SEQCORE_INVALID_ARGUMENT, "takes int32 token ids");
  CHECK_FAILS(model.predict(numbers(6), 2, 3, out).code(), SEQCORE_INVALID_ARGUMENT, "takes int32 token ids");
  CHECK(same(stream.state(), before));
}

void refuses_handles() {
  seqcore_model model = nullptr, other = nullptr;
  seqcore_stream stream = nullptr;
  CHECK_OK(seqcore_model_load(written("handles.safetensors", floats_file()).c_str(), &model));
  CHECK_OK(seqcore_stream_create(model, SEQCORE_FLOAT32, 1, 1, &stream));
  float x[kFeatures] = {}, y[kOutputs] = {};
  const auto step = [&](void* handle) {
    return seqcore_stream_step(static_cast<seqcore_stream>(handle), x, kFeatures, y, kOutputs);
  };
  CHECK_FAILS(step(model), SEQCORE_INVALID_HANDLE, "stream: no stream");
  CHECK_FAILS(step(nullptr), SEQCORE_INVALID_HANDLE, "stream");
  for (const std::uintptr_t forged : {std::uintptr_t{1}, ~std::uintptr_t{0}, reinterpret_cast<std::uintptr_t>(&x),
                                      reinterpret_cast<std::uintptr_t>(stream) + 1,
                                      reinterpret_cast<std::uintptr_t>(stream) + (std::uintptr_t{1} << 32),
                                      reinterpret_cast<std::uintptr_t>(stream) + (std::uintptr_t{2} << 32)})
    CHECK_FAILS(step(reinterpret_cast<void*>(forged)), SEQCORE_INVALID_HANDLE, "stream");
  seqcore_stream_info info;
  seqcore_model_info about;
  seqcore_stream made = nullptr;
  const auto no_model = reinterpret_cast<seqcore_model>(stream);
  const auto no_stream = reinterpret_cast<seqcore_stream>(model);
  const std::int32_t id = 1;
  CHECK_FAILS(seqcore_model_get_info(no_model, &about), SEQCORE_INVALID_HANDLE, "model: no model");
  CHECK_FAILS(seqcore_model_predict(no_model, SEQCORE_INT8, 1, 1, x, 5, y, 3), SEQCORE_INVALID_HANDLE, "model");
  CHECK_FAILS(seqcore_model_predict_ids(no_model, SEQCORE_INT8, 1, 1, &id, 1, y, 3), SEQCORE_INVALID_HANDLE, "model");
  CHECK_FAILS(seqcore_stream_create(no_model, SEQCORE_INT8, 1, 1, &made), SEQCORE_INVALID_HANDLE, "model");
  CHECK_FAILS(seqcore_model_free(no_model), SEQCORE_INVALID_HANDLE, "model");
  CHECK_FAILS(seqcore_stream_free(no_stream), SEQCORE_INVALID_HANDLE, "stream");
  CHECK_FAILS(seqcore_stream_copy(no_stream, &made), SEQCORE_INVALID_HANDLE, "stream");
  CHECK_FAILS(seqcore_stream_get_info(no_stream, &info), SEQCORE_INVALID_HANDLE, "stream");
  CHECK_FAILS(seqcore_stream_step_id(no_stream, 1, y, 3), SEQCORE_INVALID_HANDLE, "stream");
  CHECK_FAILS(seqcore_stream_run(no_stream, 1, nullptr, 0, x, 5, y, 3), SEQCORE_INVALID_HANDLE, "stream");
  CHECK_FAILS(seqcore_stream_run_ids(no_stream, 1, nullptr, 0, &id, 1, y, 3), SEQCORE_INVALID_HANDLE, "stream");
  CHECK_FAILS(seqcore_stream_reset(no_stream, nullptr, 0), SEQCORE_INVALID_HANDLE, "stream");
  CHECK_FAILS(seqcore_stream_get_state(no_stream, y, 3), SEQCORE_INVALID_HANDLE, "stream");
  CHECK_FAILS(seqcore_stream_set_state(no_stream, y, 3), SEQCORE_INVALID_HANDLE, "stream");
  CHECK(made == nullptr);

  CHECK_OK(seqcore_model_free(model));  // the stream lives on
  CHECK_FAILS(seqcore_model_get_info(model, &about), SEQCORE_INVALID_HANDLE, "model");
  CHECK_FAILS(seqcore_model_free(model), SEQCORE_INVALID_HANDLE, "model");
  CHECK_OK(step(stream));
  CHECK_OK(seqcore_model_load((folder + "/handles.safetensors").c_str(), &other));  // in the freed one's place
  CHECK(other != model);
  CHECK_FAILS(seqcore_model_get_info(model, &about), SEQCORE_INVALID_HANDLE, "model");
  CHECK_OK(seqcore_model_free(other));
  CHECK_OK(seqcore_stream_free(stream));
  CHECK_FAILS(seqcore_stream_free(stream), SEQCORE_INVALID_HANDLE, "stream");
  CHECK_FAILS(step(stream), SEQCORE_INVALID_HANDLE, "stream");
  CHECK_OK(seqcore_model_free(nullptr));
  CHECK_OK(seqcore_stream_free(nullptr));

  // More than a block of handles, each its own; all usable after a few have gone.
  CHECK_OK(seqcore_model_load((folder + "/handles.safetensors").c_str(), &model));
  std::vector<seqcore_stream> all(2100);
  for (seqcore_stream& s : all) CHECK_OK(seqcore_stream_create(model, SEQCORE_FLOAT32, 1, 1, &s));
  for (std::size_t i = 0; i < all.size(); i += 2) CHECK_OK(seqcore_stream_free(all[i]));
  for (std::size_t i = 0; i < all.size(); i++) CHECK(step(all[i]) == (i % 2 ? SEQCORE_OK : SEQCORE_INVALID_HANDLE));
  for (std::size_t i = 1; i < all.size(); i += 2) CHECK_OK(seqcore_stream_free(all[i]));
  CHECK_OK(seqcore_model_free(model));
}

void refuses_arguments() {
  seqcore_model model = nullptr;
  seqcore_stream stream = nullptr, many = nullptr;
  const std::string path = written("arguments.safetensors", floats_file());
  CHECK_FAILS(seqcore_model_load(nullptr, &model), SEQCORE_INVALID_ARGUMENT, "path: null");
  CHECK_FAILS(seqcore_model_load(path.c_str(), nullptr), SEQCORE_INVALID_ARGUMENT, "model: null");
  CHECK_FAILS(seqcore_model_parse(nullptr, 9, &model), SEQCORE_INVALID_ARGUMENT, "data: null");
  CHECK_FAILS(seqcore_model_parse(path.data(), 9, nullptr), SEQCORE_INVALID_ARGUMENT, "model: null");
  CHECK_OK(seqcore_model_load(path.c_str(), &model));
  CHECK_FAILS(seqcore_model_get_info(model, nullptr), SEQCORE_INVALID_ARGUMENT, "info: null");

  const auto create = [&](int precision, std::int64_t count, int threads, seqcore_stream* to) {
    return seqcore_stream_create(model, precision, count, threads, to);
  };
  CHECK_FAILS(create(0, 1, 1, nullptr), SEQCORE_INVALID_ARGUMENT, "stream: null");
  CHECK_FAILS(create(3, 1, 1, &stream), SEQCORE_INVALID_ARGUMENT, "precision");
  CHECK_FAILS(create(0, 0, 1, &stream), SEQCORE_INVALID_ARGUMENT, "streams");
  CHECK_FAILS(create(0, std::int64_t{1} << 60, 1, &stream), SEQCORE_INVALID_ARGUMENT, "streams");
  CHECK_FAILS(create(0, 1, 0, &stream), SEQCORE_INVALID_ARGUMENT, "threads");
  CHECK_FAILS(create(0, 1, 1 << 20, &stream), SEQCORE_INVALID_ARGUMENT, "threads");
  CHECK(stream == nullptr);
  CHECK_FAILS(seqcore_set_num_threads(0), SEQCORE_INVALID_ARGUMENT, "");
  CHECK(seqcore_num_threads() >= 1);
  CHECK_OK(seqcore_set_num_threads(2));
  CHECK(seqcore_num_threads() == 2);

  const std::vector<float> x = numbers(30);
  std::vector<float> y(30), before(2 * kUnits), after(2 * kUnits), two(4 * kUnits);
  const auto predict = [&](std::int64_t batch, std::int64_t steps, std::size_t n, std::size_t m) {
    return seqcore_model_predict(model, SEQCORE_FLOAT32, batch, steps, x.data(), n, y.data(), m);
  };
  CHECK_OK(predict(2, 3, 30, 18));
  CHECK_FAILS(predict(2, 3, 29, 18), SEQCORE_INVALID_ARGUMENT, "x: expected 30 elements, got 29");
  CHECK_FAILS(predict(2, 3, 30, 17), SEQCORE_INVALID_ARGUMENT, "y: expected 18 elements, got 17");
  CHECK_FAILS(predict(0, 3, 0, 0), SEQCORE_INVALID_ARGUMENT, "at least one sample");
  CHECK_FAILS(predict(2, 0, 0, 0), SEQCORE_INVALID_ARGUMENT, "one time step");
  CHECK_FAILS(predict(-2, 3, 30, 18), SEQCORE_INVALID_ARGUMENT, "at least one sample");
  CHECK_FAILS(predict(std::int64_t{1} << 62, 4, 30, 18), SEQCORE_INVALID_ARGUMENT, "too large");
  CHECK_FAILS(seqcore_model_predict(model, SEQCORE_FLOAT32, 2, 3, nullptr, 30, y.data(), 18), SEQCORE_INVALID_ARGUMENT,
              "x: null");
  CHECK_FAILS(seqcore_model_predict(model, SEQCORE_FLOAT32, 2, 3, x.data(), 30, nullptr, 18), SEQCORE_INVALID_ARGUMENT,
              "y: null");
  CHECK_FAILS(seqcore_model_predict(model, -1, 2, 3, x.data(), 30, y.data(), 18), SEQCORE_INVALID_ARGUMENT,
              "precision");

  CHECK_OK(create(0, 1, 1, &stream));
  CHECK_OK(create(0, 2, 1, &many));
  CHECK_OK(seqcore_stream_step(stream, x.data(), 5, y.data(), 3));
  CHECK_OK(seqcore_stream_get_state(stream, before.data(), before.size()));
  CHECK_FAILS(seqcore_stream_step(stream, x.data(), 4, y.data(), 3), SEQCORE_INVALID_ARGUMENT, "x: expected 5");
  CHECK_FAILS(seqcore_stream_step(stream, x.data(), 5, y.data(), 4), SEQCORE_INVALID_ARGUMENT, "y: expected 3");
  CHECK_FAILS(seqcore_stream_step(stream, nullptr, 5, y.data(), 3), SEQCORE_INVALID_ARGUMENT, "x: null");
  CHECK_FAILS(seqcore_stream_step(stream, x.data(), 5, nullptr, 3), SEQCORE_INVALID_ARGUMENT, "y: null");
  CHECK_FAILS(seqcore_stream_step_id(stream, 0, y.data(), 3), SEQCORE_INVALID_ARGUMENT, "takes float32");
  CHECK_FAILS(seqcore_stream_step(many, x.data(), 5, y.data(), 3), SEQCORE_INVALID_ARGUMENT, "seqcore_stream_run");
  const std::int64_t out[] = {2}, negative[] = {-1}, twice[] = {1, 1}, three[] = {0, 1, 0}, last[] = {1};
  const auto run = [&](std::int64_t steps, const std::int64_t* which, std::size_t count, std::size_t n, std::size_t m) {
    return seqcore_stream_run(many, steps, which, count, x.data(), n, y.data(), m);
  };
  CHECK_OK(run(1, last, 1, 5, 3));
  CHECK_OK(run(0, nullptr, 0, 0, 0));
  CHECK_OK(run(4, last, 0, 0, 0));
  CHECK_OK(seqcore_stream_run(many, 0, nullptr, 0, nullptr, 0, nullptr, 0));
  CHECK_OK(seqcore_stream_run(many, 4, last, 0, nullptr, 0, nullptr, 0));
  CHECK_FAILS(seqcore_stream_run(many, 0, nullptr, 0, nullptr, 5, nullptr, 0), SEQCORE_INVALID_ARGUMENT, "x: null");
  CHECK_FAILS(seqcore_stream_run(many, 1, nullptr, 0, nullptr, 0, nullptr, 0), SEQCORE_INVALID_ARGUMENT,
              "x: expected 10");
  CHECK_FAILS(seqcore_stream_run_ids(many, 0, nullptr, 0, nullptr, 0, nullptr, 0), SEQCORE_INVALID_ARGUMENT,
              "takes float32");
  CHECK_FAILS(run(1, out, 1, 5, 3), SEQCORE_INVALID_ARGUMENT, "which");
  CHECK_FAILS(run(1, negative, 1, 5, 3), SEQCORE_INVALID_ARGUMENT, "which");
  CHECK_FAILS(run(1, twice, 2, 10, 6), SEQCORE_INVALID_ARGUMENT, "twice");
  CHECK_FAILS(run(1, three, 3, 15, 9), SEQCORE_INVALID_ARGUMENT, "at most 2");
  CHECK_FAILS(run(1, nullptr, 1, 5, 3), SEQCORE_INVALID_ARGUMENT, "which: null");
  CHECK_FAILS(run(1, nullptr, 0, 5, 3), SEQCORE_INVALID_ARGUMENT, "x: expected 10");
  CHECK_FAILS(run(-1, nullptr, 0, 5, 3), SEQCORE_INVALID_ARGUMENT, "steps");
  CHECK_FAILS(run(std::int64_t{1} << 61, nullptr, 0, 5, 3), SEQCORE_INVALID_ARGUMENT, "steps");
  CHECK_FAILS(run(1, last, 1, 5, 2), SEQCORE_INVALID_ARGUMENT, "y: expected 3");
  CHECK_FAILS(seqcore_stream_reset(many, out, 1), SEQCORE_INVALID_ARGUMENT, "which");
  CHECK_FAILS(seqcore_stream_reset(many, nullptr, 1), SEQCORE_INVALID_ARGUMENT, "which: null");
  CHECK_FAILS(seqcore_stream_get_state(stream, after.data(), 3), SEQCORE_INVALID_ARGUMENT, "state: expected 34");
  CHECK_FAILS(seqcore_stream_set_state(stream, nullptr, 34), SEQCORE_INVALID_ARGUMENT, "state: null");
  CHECK_FAILS(seqcore_stream_set_state(stream, x.data(), 30), SEQCORE_INVALID_ARGUMENT, "state: expected 34");
  CHECK_FAILS(seqcore_stream_copy(stream, nullptr), SEQCORE_INVALID_ARGUMENT, "copy: null");
  CHECK_FAILS(seqcore_stream_get_info(stream, nullptr), SEQCORE_INVALID_ARGUMENT, "info: null");
  CHECK_OK(seqcore_stream_get_state(stream, after.data(), after.size()));
  CHECK(same(before, after));
  CHECK_OK(seqcore_stream_get_state(many, two.data(), two.size()));
  CHECK_OK(seqcore_stream_free(stream));
  CHECK_OK(seqcore_stream_free(many));
  CHECK_OK(seqcore_model_free(model));
}

// An empty list of streams is nobody, whatever its vector's address.
void nobody_is_not_all() {
  const seqcore::Model model = seqcore::Model::load(written("nobody.safetensors", floats_file()));
  seqcore::Streams many = model.streams(2);
  const std::vector<float> x = numbers(10);
  std::vector<float> y(6);
  CHECK(many.step(x, y).ok());
  const std::vector<float> state = many.state();
  const std::vector<std::int64_t> nobody;
  CHECK(many.reset(nobody).ok());
  CHECK(many.step(seqcore::Span<const float>(), nobody, seqcore::Span<float>()).ok());
  CHECK(same(many.state(), state));
  CHECK(many.step(x, nobody, y).code() == SEQCORE_INVALID_ARGUMENT);
  CHECK(same(many.state(), state));
  CHECK(many.reset().ok());
  CHECK(same(many.state(), std::vector<float>(state.size())));
  CHECK(model.stream().run(seqcore::Span<const float>(), seqcore::Span<float>()).ok());
}

void refuses_outputs_that_no_memory_holds() {
  const seqcore::Model model = seqcore::Model::load(written("large.safetensors", floats_file()));
  CHECK(model.output_size(SIZE_MAX / 2, 3) == SIZE_MAX && model.output_size(2, 3) == 18);
  const std::vector<float> x = numbers(30);
  try {
    model.predict(x, 1, SIZE_MAX / 2);
    CHECK(false);
  } catch (const seqcore::Error& e) {
    CHECK(e.code() == SEQCORE_INVALID_ARGUMENT);
  }
  try {
    model.predict(seqcore::Span<const float>(x.data(), SIZE_MAX), 1, SIZE_MAX / 2);
    CHECK(false);
  } catch (const std::bad_alloc&) {
  }
}

// Conv1D and MaxPooling1D make steps fewer: how many, what there is, and what is too short for them.
void makes_steps_fewer() {
  const seqcore::StoredFile file = {
      {weight("layers/0/kernel", {3, kFeatures, kOutputs}), weight("layers/0/bias", {kOutputs})},
      {{"seqcore", header(kSteps, layer("Conv1D", R"("filters": 3, "kernel_size": [3])") + ", " +
                                      layer("MaxPooling1D", R"("pool_size": [2])"))}}};
  const seqcore::Model model = seqcore::Model::load(written("fewer.safetensors", file));
  CHECK(model.info().output_shape[0] == -1 && model.info().output_shape[1] == kOutputs);
  std::int64_t steps = 0;
  for (const std::int64_t given : {4, 5, 6, 7, 100}) {
    CHECK_OK(seqcore_model_output_steps(model.handle(), given, &steps));
    CHECK(steps == (given - 2) / 2);
  }
  CHECK(model.output_size(2, 7) == 2 * 2 * kOutputs && model.output_size(2, 3) == 0);
  CHECK(model.output_size(2, SIZE_MAX) == SIZE_MAX && model.output_size(2, 0) == 0);
  CHECK_FAILS(seqcore_model_output_steps(model.handle(), 3, &steps), SEQCORE_INVALID_ARGUMENT,
              "MaxPooling1D: without padding its windows need at least 2 steps, got 1");
  CHECK_FAILS(seqcore_model_output_steps(model.handle(), 0, &steps), SEQCORE_INVALID_ARGUMENT, "steps: expected");
  CHECK_FAILS(seqcore_model_output_steps(model.handle(), 4, nullptr), SEQCORE_INVALID_ARGUMENT, "output_steps: null");
  CHECK_FAILS(seqcore_model_output_steps(nullptr, 4, &steps), SEQCORE_INVALID_HANDLE, "model");
  const std::vector<float> x = numbers(2 * 7 * kFeatures), y = model.predict(x, 2, 7);
  CHECK(y.size() == 2 * 2 * kOutputs);
  const auto number = [&](std::size_t tensor, std::int64_t i) {
    float value = 0;
    std::memcpy(&value, file.tensors[tensor].data.data() + i * 4, 4);
    return static_cast<double>(value);
  };
  for (std::int64_t i = 0; i < 2 * 2 * kOutputs; i++) {
    const std::int64_t b = i / (2 * kOutputs), t = i / kOutputs % 2, o = i % kOutputs;
    double largest = -1e9;
    for (std::int64_t s = 2 * t; s < 2 * t + 2; s++) {
      double sum = number(1, o);
      for (std::int64_t k = 0; k < 3 * kFeatures; k++)
        sum +=
            static_cast<double>(x[static_cast<std::size_t>((b * 7 + s) * kFeatures + k)]) * number(0, k * kOutputs + o);
      largest = std::max(largest, sum);
    }
    CHECK(std::abs(static_cast<double>(y[static_cast<std::size_t>(i)]) - largest) < 1e-5);
  }
  try {
    model.predict(numbers(2 * 3 * kFeatures), 2, 3);
    CHECK(false);
  } catch (const seqcore::Error& e) {
    CHECK(e.code() == SEQCORE_INVALID_ARGUMENT && std::strstr(e.what(), "too short") != nullptr);
  }
  try {
    model.stream();
    CHECK(false);
  } catch (const seqcore::Error& e) {
    CHECK(std::strstr(e.what(), "Conv1D") != nullptr && std::strstr(e.what(), "causal") != nullptr);
  }
}

void refuses_models_that_cannot_stream() {
  seqcore::StoredFile file = floats_file();
  file.metadata[1].second =
      header(kSteps, layer("LSTM", R"("units": 17, "return_sequences": true, "go_backwards": true)") + ", " +
                         layer("Dense", R"("units": 3)"));
  const seqcore::Model model = seqcore::Model::load(written("backwards.safetensors", file));
  CHECK(model.predict(numbers(30), 2, 3).size() == 18);
  try {
    model.stream();
    CHECK(false);
  } catch (const seqcore::Error& e) {
    CHECK(e.code() == SEQCORE_INVALID_ARGUMENT && std::strstr(e.what(), "cannot run step by step") != nullptr);
  }
}

void refuses_files() {
  seqcore_model model = nullptr;
  const auto load = [&](const std::string& path) { return seqcore_model_load(path.c_str(), &model); };
  CHECK_FAILS(load(folder + "/nothing.safetensors"), SEQCORE_SYSTEM_ERROR, "nothing.safetensors");
  CHECK_FAILS(load(folder), SEQCORE_SYSTEM_ERROR, folder.c_str());
  CHECK_FAILS(load(written("newer.safetensors", floats_file("2"))), SEQCORE_INVALID_FILE,
              "format_version 2 is not known");
  CHECK_FAILS(load(folder + "/newer.safetensors"), SEQCORE_INVALID_FILE, "newer.safetensors': ");

  CHECK_FAILS(load(written("\xff\n.safetensors", floats_file("2"))), SEQCORE_INVALID_FILE,  // a message is UTF-8
              "/\\xff\\x0a.safetensors': ");

  seqcore::StoredFile file = floats_file();
  file.metadata.pop_back();
  CHECK_FAILS(load(written("bad.safetensors", file)), SEQCORE_INVALID_FILE, "the description is missing");
  file = floats_file();
  file.tensors[1].name = "layers/0/other";
  CHECK_FAILS(load(written("bad.safetensors", file)), SEQCORE_INVALID_FILE,
              "layers/0/recurrent_kernel: not in the file");
  file = floats_file();
  file.tensors.erase(file.tensors.begin());
  CHECK_FAILS(load(written("bad.safetensors", file)), SEQCORE_INVALID_FILE, "expected 5 weights, found 4");
  file = floats_file();
  file.tensors[0] = weight("layers/0/kernel", {kFeatures + 1, 4 * kUnits});
  CHECK_FAILS(load(written("bad.safetensors", file)), SEQCORE_INVALID_FILE, "expected shape (5, 68), got (6, 68)");
  file = floats_file();
  file.tensors[0].dtype = "I32";
  CHECK_FAILS(load(written("bad.safetensors", file)), SEQCORE_INVALID_FILE, "expected floats, got I32");
  for (const char* text : {"", "[]", "{}", "null", R"({"format_version": 1})", R"({"format_version": true})",
                           R"({"format_version": 1, "model": []})", R"({"format_version": 1, "model": {"config": 3}})",
                           R"({"format_version": 1, "model": {"config": {"layers": []}}})",
                           R"({"format_version": 1, "model": {"config": {"layers": [1]}}})"}) {
    file = floats_file();
    file.metadata[1].second = text;
    CHECK_FAILS(load(written("bad.safetensors", file)), SEQCORE_INVALID_FILE, "bad.safetensors': ");
  }
  file = floats_file();  // sizes that no memory holds, which the tensors do not bear out
  file.metadata[1].second = header(kSteps, layer("LSTM", R"("units": 1073741824, "return_sequences": true)"));
  CHECK_FAILS(load(written("bad.safetensors", file)), SEQCORE_INVALID_FILE, "");

  // Cut anywhere, or with any byte changed: a model or an error, nothing else.
  const std::vector<unsigned char> whole = bytes_of(written("whole.safetensors", floats_file()));
  CHECK_OK(seqcore_model_parse(whole.data(), whole.size(), &model));
  CHECK_OK(seqcore_model_free(model));
  for (std::size_t n = 0; n < whole.size(); n += n < 2000 ? 7 : 97)
    CHECK(seqcore_model_parse(whole.data(), n, &model) == SEQCORE_INVALID_FILE);
  check::Random random{7};
  const std::size_t described = whole.size() - std::size_t{5 * 68 + 17 * 68 + 68 + 54 + 2} * 4;
  long loaded = 0;
  for (int i = 0; i < 3000; i++) {
    std::vector<unsigned char> changed = whole;
    for (std::uint64_t k = random.next() % 3 + 1; k > 0; k--)
      changed[random.next() % described] = static_cast<unsigned char>(random.next());
    const seqcore_status status = seqcore_model_parse(changed.data(), changed.size(), &model);
    CHECK(status == SEQCORE_INVALID_FILE || status == SEQCORE_OK);
    if (status != SEQCORE_OK) continue;
    loaded++;
    CHECK_OK(seqcore_model_free(model));
  }
  CHECK(loaded > 0);  // a name changed, say
}

void reads_doubles_and_outlives_its_file() {
  const std::string path = written("doubles.safetensors", floats_file("1", true));
  const seqcore::Model model = seqcore::Model::load(path);
  const seqcore::Model plain = seqcore::Model::load(written("plain.safetensors", floats_file()));
  const std::vector<float> x = numbers(30), y = plain.predict(x, 2, 3);
  CHECK(same(model.predict(x, 2, 3), y));
  std::ofstream(path, std::ios::trunc) << "gone";
  CHECK(same(model.predict(x, 2, 3), y) && unlink(path.c_str()) == 0 && same(model.predict(x, 2, 3), y));
  const std::vector<unsigned char> bytes = bytes_of(folder + "/plain.safetensors");
  CHECK(same(seqcore::Model::parse(bytes).predict(x, 2, 3), y));
}

void many_threads_share_a_model() {
  const seqcore::Model model = seqcore::Model::load(written("shared.safetensors", floats_file()));
  const std::vector<float> x = numbers(30 * 5), y = model.predict(x, 1, 30);
  std::vector<int> wrong(8);
  std::vector<std::thread> threads;
  for (int& w : wrong)
    threads.emplace_back([&] {
      for (int round = 0; round < 20; round++) {
        seqcore::Stream stream = model.stream();
        std::vector<float> out(y.size());
        for (std::size_t t = 0; t < 30; t++) w += !stream.step({&x[t * 5], 5}, {&out[t * 3], 3});
        w += !same(out, y) || !same(model.predict(x, 1, 30), y);
        const bool refused = !stream.step({&x[0], 4}, {&out[0], 3}) && seqcore_last_error()[0] == 'x';  // this thread's
        w += !refused;
      }
    });
  for (std::thread& t : threads) t.join();
  for (const int w : wrong) CHECK(w == 0);
}

// Every allocation of every call fails once: the call says so, and nothing has changed.
void runs_out_of_memory() {
  const std::string path = written("memory.safetensors", floats_file());
  const std::vector<unsigned char> bytes = bytes_of(path);
  constexpr std::int64_t kLong = 20, kStreams = 3;
  const std::vector<float> x = numbers(kStreams * kLong * kFeatures);
  const auto is_refused = [](seqcore_status s) {
    CHECK_THAT(s == SEQCORE_OUT_OF_MEMORY, std::string(seqcore_status_name(s)) + ", " + seqcore_last_error());
  };
  long refused = 0;

  seqcore_model model = nullptr;
  refused += hot_path::without_memory([&] { return seqcore_model_load(path.c_str(), &model); },
                                      [&](seqcore_status s) { CHECK(s != SEQCORE_OK && model == nullptr); });
  seqcore_model parsed = nullptr;
  refused += hot_path::without_memory([&] { return seqcore_model_parse(bytes.data(), bytes.size(), &parsed); },
                                      [&](seqcore_status s) { is_refused(s), CHECK(parsed == nullptr); });
  CHECK(model != nullptr && parsed != nullptr && refused > 20);

  std::vector<float> want(kLong * kOutputs), y(want.size());
  CHECK_OK(
      seqcore_model_predict(model, SEQCORE_FLOAT32, 1, kLong, x.data(), kLong * kFeatures, want.data(), want.size()));
  for (const int precision : {SEQCORE_FLOAT32, SEQCORE_BFLOAT16, SEQCORE_INT8}) {
    const auto predict = [&] {
      return seqcore_model_predict(parsed, precision, 1, kLong, x.data(), kLong * kFeatures, y.data(), y.size());
    };
    refused += hot_path::without_memory(predict, is_refused);
    CHECK((precision == SEQCORE_FLOAT32) == same(y, want));
    for (const std::int64_t count : {std::int64_t{1}, kStreams}) {
      seqcore_stream stream = nullptr, copy = nullptr;
      refused += hot_path::without_memory([&] { return seqcore_stream_create(parsed, precision, count, 1, &stream); },
                                          [&](seqcore_status s) { is_refused(s), CHECK(stream == nullptr); });
      std::vector<float> state(static_cast<std::size_t>(count) * 2 * kUnits), now(state.size());
      const std::size_t rows = static_cast<std::size_t>(count * kLong);
      std::vector<float> first(rows * kOutputs), again(first.size());
      const auto run = [&](seqcore_stream s, std::vector<float>& out) {
        return seqcore_stream_run(s, kLong, nullptr, 0, x.data(), rows * kFeatures, out.data(), out.size());
      };
      CHECK_OK(run(stream, first));
      CHECK_OK(seqcore_stream_get_state(stream, state.data(), state.size()));
      refused += hot_path::without_memory([&] { return seqcore_stream_copy(stream, &copy); },
                                          [&](seqcore_status s) { is_refused(s), CHECK(copy == nullptr); });
      CHECK_OK(run(copy, again));
      refused += hot_path::without_memory([&] { return run(stream, first); },
                                          [&](seqcore_status s) {
                                            is_refused(s);
                                            CHECK_OK(seqcore_stream_get_state(stream, now.data(), now.size()));
                                            CHECK(same(now, state));
                                          });
      CHECK(same(first, again));
      CHECK_OK(seqcore_stream_free(stream));
      CHECK_OK(seqcore_stream_free(copy));
    }
  }
  std::printf("%ld allocations failed\n", refused);
  CHECK_OK(seqcore_model_free(model));
  CHECK_OK(seqcore_model_free(parsed));
}

void nothing_in_the_way_of_a_step() {
  const seqcore::Model floats = seqcore::Model::load(written("hot.safetensors", floats_file()));
  const seqcore::Model ids = seqcore::Model::load(written("hot_ids.safetensors", ids_file()));
  seqcore::Stream stream = floats.stream(), words = ids.stream();
  float x[kFeatures] = {1, 2, 3, 4, 5}, y[kOutputs], z[6];
  bool right = true;
  hot_path::check("step through C", [&] {
    for (int i = 0; i < 300; ++i) right &= stream.step(x, y).ok() && words.step(i % 11, z).ok();
  });
  CHECK(right);
}

void moves() {
  seqcore::Model model = seqcore::Model::load(written("moves.safetensors", floats_file()));
  seqcore::Stream a = model.stream();
  float x[5] = {1, 2, 3, 4, 5}, y[3];
  seqcore::Stream b = std::move(a);
  CHECK(b.step(x, y).ok() && a.step(x, y).code() == SEQCORE_INVALID_HANDLE);
  a = model.stream();
  CHECK(a.step(x, y).ok());
  seqcore::Model other = std::move(model);
  CHECK(other.predict(numbers(5), 1, 1).size() == 3);
  try {
    model.stream();
    CHECK(false);
  } catch (const seqcore::Error& e) {
    CHECK(e.code() == SEQCORE_INVALID_HANDLE);
  }
  CHECK(std::strcmp(seqcore::version(), seqcore_version()) == 0 && seqcore::Status(SEQCORE_OK).message()[0] == '\0');
  CHECK(std::strcmp(seqcore::Status(SEQCORE_BUSY).name(), "SEQCORE_BUSY") == 0);
  static_assert(noexcept(b.step(x, y)) && !std::is_copy_constructible_v<seqcore::Stream>);
}

}  // namespace

int main() {
  char name[] = "/tmp/seqcore-capi-XXXXXX";
  if (mkdtemp(name) == nullptr) return 1;
  folder = name;
  computes();
  takes_ids();
  refuses_handles();
  refuses_arguments();
  nobody_is_not_all();
  refuses_outputs_that_no_memory_holds();
  makes_steps_fewer();
  refuses_models_that_cannot_stream();
  refuses_files();
  reads_doubles_and_outlives_its_file();
  many_threads_share_a_model();
  runs_out_of_memory();
  nothing_in_the_way_of_a_step();
  moves();
  if (std::system(("rm -r " + folder).c_str()) != 0) return 1;
  return check::report();
}
