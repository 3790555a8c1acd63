// Microbenchmarks of what serves: steps of one stream, steps of many, whole sequences, in every precision; and a suite of
// the sizes that the finance industry's LSTM benchmark is reported for (README.md). Beside the roofline of the same run;
// `x_floor` is the time beside that of reading the weights once.
//
//   build/bench/bench_steps [--benchmark_filter=step/LSTM | many | sequence | embedding | finance]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/model.h"
#include "models.h"
#include "roofline.h"
#include "stream/stream.h"

using namespace seqcore;
using namespace seqcore::bench;

namespace {

void beside_floor(benchmark::State& state, const Stream& stream, double best, double rows) {
  const auto bytes = static_cast<double>(stream.weight_bytes());
  report(state, peak(stream.network().kernels(), stream.precision()), best, stream.flops() * rows, bytes);
  if (rows == 1) state.counters["x_floor"] = best / read_time(bytes, true);
}

void one_step(benchmark::State& state, const Shape& s, Precision precision, int threads) {
  Stream stream(make_model(s), precision, 1, threads);
  Numbers x(s.input, 0.5f), y(s.units);
  constexpr int kSteps = 64;  // so that the clock does not count
  double best = 1e9;
  for (auto _ : state) {
    const double start = now();
    for (int i = 0; i < kSteps; ++i) stream.step(x.data, nullptr, y.data);
    best = std::min(best, (now() - start) / kSteps);
  }
  beside_floor(state, stream, best, 1);
}

void many_steps(benchmark::State& state, const Shape& s, Precision precision, int threads, std::int64_t count) {
  set_num_threads(threads);
  Stream stream(make_model(s), precision, count, threads);
  Numbers x(count * s.input, 0.5f), y(count * s.units);
  double best = 1e9;
  for (auto _ : state) {
    const double start = now();
    stream.run(x.data, nullptr, 1, nullptr, count, y.data);
    best = std::min(best, now() - start);
  }
  beside_floor(state, stream, best, static_cast<double>(count));
}

void sequence(benchmark::State& state, const Shape& s, Precision precision, int threads, std::int64_t batch,
              std::int64_t steps) {
  set_num_threads(threads);
  const auto model = make_model(s);
  Numbers x(batch * steps * s.input, 0.5f), y(batch * steps * s.units);
  const Input in{x.data, nullptr, {batch, steps, s.input}};
  double flops = 0;
  for (const Network::Weight& w : model->network().weights())
    if (w.spec->shape.size() == 2) flops += 2.0 * static_cast<double>(w.spec->size() * batch * steps);
  measure(state, peak(model->network().kernels(), precision), flops,
          4.0 * static_cast<double>(batch * steps * (s.input + s.units)),
          [&] { model->predict(in, batch, precision, y.data); });
}

constexpr std::int64_t kIds = 10000, kEmbedded = 128, kWords = 3200;  // rows of the table, their length, rows looked up

std::vector<std::int32_t> some_ids() {
  std::vector<std::int32_t> ids(kWords);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * 7919 % kIds);
  return ids;
}

Json embedding_model() {
  const Json config = Json::Object{{"input_dim", kIds}, {"output_dim", kEmbedded}};
  const Json layer = Json::Object{{"class_name", "Embedding"}, {"config", config}};
  const Json input = Json::Object{{"shape", Json::Array{nullptr, nullptr}}, {"dtype", "int32"}};
  return Json::Object{{"input", input}, {"layers", Json::Array{layer}}};
}

// What is looked up is read and written, and the answer copied to the caller.
void embedding(benchmark::State& state) {
  set_num_threads(1);
  const Model model(embedding_model().dump(), 1);
  const auto ids = some_ids();
  const auto snapshot = model.snapshot();
  Numbers y(kWords * kEmbedded);
  measure(state, 0, 0, 4.0 * 2 * kWords * kEmbedded, [&] {
    snapshot->predict({nullptr, ids.data(), {32, kWords / 32}}, 32, Precision::float32, y.data);
  });
}

// With the gradient of the whole table: it is cleared, the rows looked up are added, and it is copied to the caller.
void embedding_gradient(benchmark::State& state) {
  set_num_threads(1);
  Model model(embedding_model().dump(), 1);
  model.compile(R"({"optimizer": null, "loss": {"class_name": "MeanSquaredError", "config": {}}, "metrics": [],
                    "weighted_metrics": []})");
  const auto ids = some_ids();
  Numbers y(kWords * kEmbedded);
  Batch batch;
  batch.x = {nullptr, ids.data(), {32, kWords / 32}};
  batch.y = {y.data, nullptr, {32, kWords / 32, kEmbedded}};
  std::vector<std::vector<float>> gradients;
  measure(state, 0, 0, 4.0 * (6 * kWords + 3 * kIds) * kEmbedded, [&] { model.gradients(batch, &gradients); });
}

// Each call timed: percentiles. window 0: a new row a step, the state carried over. Else each new row is answered by
// running the last `window` rows from zero state.
void finance(benchmark::State& state, const Shape& s, Precision precision, int threads, std::int64_t window) {
  set_num_threads(threads);
  Stream stream(make_model(s), precision, 1, threads);
  const std::int64_t rows = std::max<std::int64_t>(window, 1);
  Numbers x(rows * s.input, 0.5f), y(rows * s.units);
  std::vector<double> times;
  for (auto _ : state) {
    const double start = now();
    if (window == 0) {
      stream.step(x.data, nullptr, y.data);
    } else {
      stream.reset(nullptr, 0);
      stream.run(x.data, nullptr, rows, nullptr, 1, y.data);
    }
    times.push_back(now() - start);
  }
  std::sort(times.begin(), times.end());
  const auto n = static_cast<double>(times.size());
  for (const auto& [name, q] : {std::pair<const char*, double>{"p50_us", 0.5}, {"p99_us", 0.99}, {"p99.9_us", 0.999}})
    if (n * (1 - q) >= 1) state.counters[name] = 1e6 * times[static_cast<std::size_t>(q * n)];  // else too few to tell
  if (window == 0 && !times.empty())
    state.counters["x_floor"] = times[times.size() / 2] / read_time(static_cast<double>(stream.weight_bytes()), true);
}

template <class F>
void add(const std::string& kind, const Shape& s, F f) {
  for (const Precision precision : {Precision::float32, Precision::bfloat16, Precision::int8})
    for (const int threads : {1, 2}) {
      if (threads > default_threads()) continue;
      const std::string name = kind + "/" + name_of(s) + "/" + kPrecisionNames[static_cast<int>(precision)] +
                               "/threads:" + std::to_string(threads);
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { f(state, s, precision, threads); })
          ->Unit(benchmark::kMicrosecond)
          ->UseRealTime();
    }
}

}  // namespace

int main(int argc, char** argv) {
  allow_tiles();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const Shape& s :
       {Shape{"LSTM", 8, 16}, Shape{"LSTM", 8, 32}, Shape{"LSTM", 8, 64}, Shape{"LSTM", 13, 100},
        Shape{"LSTM", 64, 128}, Shape{"LSTM", 64, 256}, Shape{"LSTM", 512, 512}, Shape{"LSTM", 512, 1024},
        Shape{"GRU", 64, 128}, Shape{"GRU", 64, 256}, Shape{"SimpleRNN", 8, 64}, Shape{"SimpleRNN", 64, 256}})
    add("step", s, one_step);
  for (const std::int64_t count : {8, 64})
    for (const Shape& s : {Shape{"LSTM", 8, 64}, Shape{"LSTM", 64, 256}})
      add("many" + std::to_string(count), s,
          [count](benchmark::State& state, const Shape& shape, Precision p, int threads) {
            many_steps(state, shape, p, threads, count);
          });
  for (const Shape& s : {Shape{"LSTM", 64, 256}, Shape{"GRU", 64, 128}})
    add("sequence_B32_T100", s, [](benchmark::State& state, const Shape& shape, Precision p, int threads) {
      sequence(state, shape, p, threads, 32, 100);
    });
  benchmark::RegisterBenchmark("embedding/predict", embedding)->Unit(benchmark::kMicrosecond);
  benchmark::RegisterBenchmark("embedding/gradient", embedding_gradient)->Unit(benchmark::kMicrosecond);
  for (const std::int64_t window : {0, 100})
    for (const Shape& s : {Shape{"LSTM", 128, 128, 2}, Shape{"LSTM", 256, 256, 3}, Shape{"LSTM", 480, 480, 3}})
      add(window == 0 ? "finance" : "finance_window" + std::to_string(window), s,
          [window](benchmark::State& state, const Shape& shape, Precision p, int threads) {
            finance(state, shape, p, threads, window);
          });
  add_context();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
