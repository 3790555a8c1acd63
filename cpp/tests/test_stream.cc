// Streams: the same bits however a step is run, and nothing in the way of one: no allocation, lock, system call or thread.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/json.h"
#include "hot_path.h"
#include "model/snapshot.h"
#include "says.h"
#include "stream/floor.h"
#include "stream/stream.h"

using namespace seqcore;

namespace {

constexpr Precision kPrecisions[] = {Precision::float32, Precision::bfloat16, Precision::int8};

Json layer(const char* name, Json::Object config) {
  return Json::Object{{"class_name", name}, {"config", Json(std::move(config))}};
}
Json units(std::int64_t n, bool sequences = true) {
  return Json::Object{{"units", n}, {"return_sequences", sequences}};
}
Json recurrent(const char* name, std::int64_t n) { return layer(name, units(n).as_object()); }

struct Case {
  std::string name;
  std::int64_t features;  // 0: ids
  Json::Array layers;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* kind : {"LSTM", "GRU", "SimpleRNN"})
    for (const std::int64_t n : {1, 7, 16, 33, 64, 130})
      all.push_back({kind + std::to_string(n), n % 2 ? 5 : 16, {recurrent(kind, n)}});
  all.push_back(
      {"before", 9, {layer("GRU", {{"units", std::int64_t{21}}, {"return_sequences", true}, {"reset_after", false}})}});
  all.push_back(
      {"stack",
       13,
       {layer("Dense", {{"units", std::int64_t{11}}, {"activation", "relu"}}), recurrent("LSTM", 40),
        layer("LayerNormalization", {}), layer("Dropout", {{"rate", 0.5}}), recurrent("GRU", 19),
        layer("BatchNormalization", {}), layer("Activation", {{"activation", "gelu"}}), recurrent("SimpleRNN", 17),
        layer("Dense", {{"units", std::int64_t{3}}, {"activation", "softmax"}})}});
  const Json cells =
      Json::Array{layer("LSTMCell", {{"units", std::int64_t{40}}}),
                  layer("StackedRNNCells", {{"cells", Json::Array{layer("GRUCell", {{"units", std::int64_t{19}}})}}}),
                  layer("SimpleRNNCell", {{"units", std::int64_t{3}}})};
  all.push_back({"cells",
                 7,
                 {layer("RNN", {{"cell", layer("StackedRNNCells", {{"cells", cells}})}, {"return_sequences", true}})}});
  all.push_back({"ids",
                 0,
                 {layer("Embedding", {{"input_dim", std::int64_t{23}}, {"output_dim", std::int64_t{12}}}),
                  recurrent("LSTM", 31), layer("Dense", {{"units", std::int64_t{23}}})}});
  return all;
}

std::shared_ptr<const Snapshot> make_model(const Case& c) {
  const Json input = c.features
                         ? Json::Object{{"shape", Json::Array{nullptr, nullptr, c.features}}, {"dtype", "float32"}}
                         : Json::Object{{"shape", Json::Array{nullptr, nullptr}}, {"dtype", "int32"}};
  auto network = std::make_shared<const Network>(Json(Json::Object{{"input", input}, {"layers", c.layers}}));
  Arena memory;
  float* const w = memory.floats(network->size());
  for (std::int64_t i = 0; i < network->size(); ++i) w[i] = 0.4f * std::sin(0.7f * static_cast<float>(i) + 1);
  return std::make_shared<const Snapshot>(std::move(network), std::move(memory), w);
}

// Rows for `samples` samples of `steps` steps, and predict's answers.
struct Data {
  std::int64_t samples, steps, features, outputs;
  std::vector<float> x, y;
  std::vector<std::int32_t> ids;
  const float* row(std::int64_t b, std::int64_t t) const {
    return ids.empty() ? &x[static_cast<std::size_t>((b * steps + t) * features)] : nullptr;
  }
  const std::int32_t* id(std::int64_t b, std::int64_t t) const {
    return ids.empty() ? nullptr : &ids[static_cast<std::size_t>(b * steps + t)];
  }
  bool is(const float* out, std::int64_t b, std::int64_t t, std::int64_t count = 1) const {
    return std::memcmp(out, &y[static_cast<std::size_t>((b * steps + t) * outputs)],
                       static_cast<std::size_t>(count * outputs) * sizeof(float)) == 0;
  }
};

Data make_data(const Snapshot& model, const Case& c, Precision precision, std::int64_t samples, std::int64_t steps) {
  Data d{samples, steps, c.features, model.network().output().features(), {}, {}, {}};
  for (std::int64_t i = 0; i < samples * steps * std::max<std::int64_t>(c.features, 1); ++i)
    if (c.features)
      d.x.push_back(std::cos(1.3f * static_cast<float>(i)));
    else
      d.ids.push_back(static_cast<std::int32_t>(i * 7 % 23));
  Input in{c.features ? d.x.data() : nullptr, c.features ? nullptr : d.ids.data(), {samples, steps}};
  if (c.features) in.shape.push_back(c.features);
  d.y.resize(static_cast<std::size_t>(samples * steps * d.outputs));
  model.predict(in, 2, precision, d.y.data());
  return d;
}

void the_same_bits() {
  for (const Case& c : cases()) {
    const auto model = make_model(c);
    for (const Precision precision : kPrecisions) {
      constexpr std::int64_t kSamples = 5, kSteps = 9;
      const Data d = make_data(*model, c, precision, kSamples, kSteps);
      const std::string what = c.name + " " + kPrecisionNames[static_cast<int>(precision)];
      std::vector<float> out(static_cast<std::size_t>(kSamples * kSteps * d.outputs));
      for (const int threads : {1, 2, 3}) {
        Stream stream(model, precision, 1, threads);
        bool right = true;
        for (std::int64_t t = 0; t < kSteps; ++t)
          right &= stream.step(d.row(0, t), d.id(0, t), out.data()) && d.is(out.data(), 0, t);
        CHECK_THAT(right, what + ": steps");
        stream.reset(nullptr, 0);
        stream.run(d.row(0, 0), d.id(0, 0), 4, nullptr, 1, out.data());
        const auto copy = stream.copy();
        right = d.is(out.data(), 0, 0, 4);
        stream.run(d.row(0, 4), d.id(0, 4), 5, nullptr, 1, out.data());
        right &= d.is(out.data(), 0, 4, 5);
        right &= copy->step(d.row(0, 4), d.id(0, 4), out.data()) && d.is(out.data(), 0, 4);
        CHECK_THAT(right, what + ": blocks");
      }
      // Every stream at its own step: a subset at a time.
      Stream many(model, precision, kSamples, 1);
      std::vector<std::int64_t> at(kSamples, 0);
      bool right = true;
      for (std::int64_t round = 1; round < 32; ++round) {
        std::vector<std::int64_t> which;
        for (std::int64_t b = kSamples - 1; b >= 0; --b)
          if (round >> b & 1 && at[static_cast<std::size_t>(b)] < kSteps) which.push_back(b);
        std::vector<float> x;
        std::vector<std::int32_t> ids;
        for (const std::int64_t b : which) {
          const std::int64_t t = at[static_cast<std::size_t>(b)];
          if (c.features)
            x.insert(x.end(), d.row(b, t), d.row(b, t) + c.features);
          else
            ids.push_back(*d.id(b, t));
        }
        if (which.empty()) continue;
        many.run(c.features ? x.data() : nullptr, c.features ? nullptr : ids.data(), 1, which.data(),
                 static_cast<std::int64_t>(which.size()), out.data());
        for (std::size_t i = 0; i < which.size(); ++i)
          right &= d.is(out.data() + static_cast<std::int64_t>(i) * d.outputs, which[i],
                        at[static_cast<std::size_t>(which[i])]++);
      }
      CHECK_THAT(right, what + ": subsets");
    }
  }
}

void errors_change_nothing() {
  const Case c{"lstm", 5, {recurrent("LSTM", 7)}};
  const auto model = make_model(c);
  Stream many(model, Precision::float32, 3, 1);
  std::vector<float> x(15, 0.3f), y(21), before(21), after(21);
  many.run(x.data(), nullptr, 1, nullptr, 3, y.data());
  std::vector<float> c_state(21);
  many.get_state({before.data(), c_state.data()});
  const std::int64_t out[] = {0, 3}, twice[] = {1, 1}, negative[] = {-1};
  CHECK_SAYS(std::invalid_argument, "got 3", many.run(x.data(), nullptr, 1, out, 2, y.data()));
  CHECK_SAYS(std::invalid_argument, "listed twice", many.run(x.data(), nullptr, 1, twice, 2, y.data()));
  CHECK_SAYS(std::invalid_argument, "got -1", many.run(x.data(), nullptr, 1, negative, 1, y.data()));
  CHECK_SAYS(std::invalid_argument, "got 3", many.reset(out, 2));
  CHECK_THROWS(many.run(x.data(), nullptr, 1, nullptr, 3, y.data(), [] { return true; }), Cancelled);
  many.get_state({after.data(), c_state.data()});
  CHECK(before == after);

  // One stream, whose steps keep where its states are: after a cancelled run the next step goes on from before it.
  Stream one(model, Precision::float32, 1, 1);
  const std::vector<float> block(1500, 0.3f);
  std::vector<float> answers(2100), got(7), want(7);
  CHECK(one.step(x.data(), nullptr, y.data()));
  const auto twin = one.copy();
  CHECK_THROWS(one.run(block.data(), nullptr, 300, nullptr, 1, answers.data(), [] { return true; }), Cancelled);
  CHECK(one.step(x.data(), nullptr, got.data()) && twin->step(x.data(), nullptr, want.data()) && got == want);

  const Case ids = cases().back();
  Stream words(make_model(ids), Precision::float32, 2, 1);
  std::vector<float> to(46);
  const std::int32_t bad[] = {1, 23};
  CHECK_SAYS(std::invalid_argument, "got 23", words.run(nullptr, bad, 1, nullptr, 2, to.data()));

  const auto refused = [&](Json::Array layers, std::int64_t count, int threads, const char* text) {
    const auto m = make_model({"", 5, std::move(layers)});
    CHECK_SAYS(std::invalid_argument, text, Stream(m, Precision::float32, count, threads));
  };
  refused({layer("Bidirectional", {{"layer", recurrent("LSTM", 3)}})}, 1, 1, "Bidirectional");
  refused({layer("LSTM", {{"units", std::int64_t{3}}, {"go_backwards", true}})}, 1, 1, "cannot run step by step");
  refused({recurrent("LSTM", 3)}, 0, 1, "streams");
  refused({recurrent("LSTM", 3)}, 1, 0, "threads");
}

void nothing_in_the_way() {
  for (const Case& c : cases()) {
    if (c.name != "stack" && c.name != "ids" && c.name != "before" && c.name.find("33") == std::string::npos) continue;
    const auto model = make_model(c);
    for (const Precision precision : kPrecisions) {
      Stream stream(model, precision, 1, 1);
      const std::vector<float> x(static_cast<std::size_t>(stream.features()), 0.25f);
      std::vector<float> y(static_cast<std::size_t>(stream.outputs()));
      const std::int32_t id = 3;
      bool right = true;
      hot_path::check(c.name + " " + kPrecisionNames[static_cast<int>(precision)], [&] {
        for (int i = 0; i < 300; ++i)
          right &= stream.step(c.features ? x.data() : nullptr, c.features ? nullptr : &id, y.data());
      });
      CHECK(right);
    }
  }
}

void helpers() {
  const Case c{"lstm", 16, {recurrent("LSTM", 130), recurrent("GRU", 64)}};
  const auto model = make_model(c);
  const Data d = make_data(*model, c, Precision::float32, 1, 50);
  const int before = hot_path::threads();
  {
    Stream stream(model, Precision::float32, 1, 2);
    CHECK(hot_path::threads() == before + 1);  // there before the first step
    std::vector<float> y(64);
    bool right = true;
    for (std::int64_t t = 0; t < 25; ++t) right &= stream.step(d.row(0, t), nullptr, y.data()) && d.is(y.data(), 0, t);
    CHECK(right && hot_path::threads() == before + 1);
    const auto rest_is_right = [&] {
      for (std::int64_t t = 25; t < 50; ++t)
        right &= stream.step(d.row(0, t), nullptr, y.data()) && d.is(y.data(), 0, t);
      return right;
    };
    if (!hot_path::emulated()) {
      const pid_t child = fork();
      if (child == 0) {  // alone, and the same bits
        alarm(20);
        Stream own(model, Precision::float32, 1, 2);
        right &= own.step(d.row(0, 0), nullptr, y.data()) && d.is(y.data(), 0, 0);
        _exit(rest_is_right() ? 0 : 1);
      }
      int status = -1;
      CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    }
    CHECK(rest_is_right());
  }
  CHECK(hot_path::threads() == before);
}

void subnormal_states() {
  const Case c{
      "rnn",
      4,
      {layer("SimpleRNN", {{"units", std::int64_t{20}}, {"return_sequences", true}, {"activation", "linear"}})}};
  Stream stream(make_model(c), Precision::float32, 1, 1);
  const std::vector<float> tiny(20, 1e-41f), x(12, 0.0f);
  std::vector<float> y(20), state(20);
  stream.set_state({tiny.data()});
#if defined(__x86_64__)
  const unsigned mode = __builtin_ia32_stmxcsr();
#endif
  CHECK(stream.step(x.data(), nullptr, y.data()));
  stream.run(x.data(), nullptr, 3, nullptr, 1, std::vector<float>(60).data());
#if defined(__x86_64__)
  CHECK(__builtin_ia32_stmxcsr() == mode);
#endif
  volatile float smallest = 1e-38f;
  CHECK(smallest / 4 > 0);  // subnormals are back
}

void floor_of_a_step() {
  CHECK(measure_read(1) > 0 && measure_read(1 << 20) > measure_read(1 << 10));
  CHECK_THROWS(measure_read(0), std::invalid_argument);
}

}  // namespace

int main() {
  the_same_bits();
  errors_change_nothing();
  nothing_in_the_way();
  helpers();
  subnormal_states();
  floor_of_a_step();
  return check::report();
}
