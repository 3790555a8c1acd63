// Microbenchmarks of what serves: steps of one stream, steps of many, whole sequences, in every precision; and a suite of
// the sizes that the finance industry's LSTM benchmark is reported for (README.md). Beside the roofline of the same run;
// `x_floor` is the time beside that of reading the weights once.
//
//   build/bench/bench_steps [--benchmark_filter=step/lstm | many | sequence | finance]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/snapshot.h"
#include "roofline.h"
#include "stream/stream.h"

using namespace seqcore;
using namespace seqcore::bench;

namespace {

struct Shape {
  const char* layer;
  std::int64_t input, units;
  int layers = 1;
};

std::string name_of(const Shape& s) {
  return s.layer + std::string("/I") + std::to_string(s.input) + "_H" + std::to_string(s.units) +
         (s.layers > 1 ? "_L" + std::to_string(s.layers) : "");
}

std::shared_ptr<const Snapshot> make_model(const Shape& s) {
  const Json config = Json::Object{{"units", s.units}, {"return_sequences", true}};
  const Json::Array layers(static_cast<std::size_t>(s.layers),
                           Json::Object{{"class_name", std::string(s.layer)}, {"config", config}});
  const Json input = Json::Object{{"shape", Json::Array{nullptr, nullptr, s.input}}, {"dtype", "float32"}};
  const auto network = std::make_shared<const Network>(Json::Object{{"input", input}, {"layers", layers}});
  Arena memory;
  float* const weights = memory.floats(network->size());
  for (std::int64_t i = 0; i < network->size(); ++i) weights[i] = 0.1f * std::sin(static_cast<float>(i));
  return std::make_shared<const Snapshot>(network, std::move(memory), weights);
}

void beside_floor(benchmark::State& state, const Stream& stream, double best, double rows) {
  const auto bytes = static_cast<double>(stream.weight_bytes());
  const int width = stream.precision() == Precision::float32 ? stream.network().kernels().width : 0;
  report(state, width, best, stream.flops() * rows, bytes);
  state.counters["x_floor"] = best / read_time(bytes);
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
  measure(state, precision == Precision::float32 ? model->network().kernels().width : 0, flops,
          4.0 * static_cast<double>(batch * steps * (s.input + s.units)),
          [&] { model->predict(in, batch, precision, y.data); });
}

// A new row a step, each step timed: percentiles.
void finance(benchmark::State& state, const Shape& s, Precision precision, int threads) {
  Stream stream(make_model(s), precision, 1, threads);
  Numbers x(s.input, 0.5f), y(s.units);
  std::vector<double> times;
  for (auto _ : state) {
    const double start = now();
    stream.step(x.data, nullptr, y.data);
    times.push_back(now() - start);
  }
  std::sort(times.begin(), times.end());
  for (const auto& [name, q] : {std::pair<const char*, double>{"p50_us", 0.5}, {"p99_us", 0.99}, {"p99.9_us", 0.999}})
    state.counters[name] =
        1e6 * times[std::min(times.size() - 1, static_cast<std::size_t>(q * static_cast<double>(times.size())))];
  state.counters["x_floor"] = times[times.size() / 2] / read_time(static_cast<double>(stream.weight_bytes()));
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
  for (const Shape& s : {Shape{"LSTM", 128, 128, 2}, Shape{"LSTM", 256, 256, 3}, Shape{"LSTM", 480, 480, 3}})
    add("finance", s, finance);
  add_context();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
