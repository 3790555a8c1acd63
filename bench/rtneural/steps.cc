// One step of an LSTM by RTNeural and by a stream of seqcore, both from C++, in turns, with the same weights. Not part of
// the build: it needs a checkout of RTNeural (https://github.com/jatinchowdhury18/RTNeural, with Eigen in it).
//
//   cmake --preset bench && cmake --build --preset bench --target seqcore_core
//   g++ -std=c++17 -O3 -march=native -DNDEBUG -DRTNEURAL_USE_EIGEN=1 -DRTNEURAL_DEFAULT_ALIGNMENT=32
//     -isystem RTNEURAL -isystem RTNEURAL/modules/Eigen -Icpp/src -Ibench bench/rtneural/steps.cc
//     build/bench/libseqcore_core.a -lbenchmark -pthread -o rtneural_steps        (in one line)
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "RTNeural/RTNeural.h"

#include "models.h"
#include "roofline.h"
#include "stream/stream.h"

using namespace seqcore;
using namespace seqcore::bench;

namespace {

using Matrix = std::vector<std::vector<float>>;

Matrix matrix(const float* data, std::int64_t rows, std::int64_t columns) {
  Matrix result;
  for (std::int64_t i = 0; i < rows; ++i) result.emplace_back(data + i * columns, data + (i + 1) * columns);
  return result;
}

// Both have Keras's order of gates.
template <class Lstm>
void set_weights(Lstm& lstm, const Snapshot& model, const Shape& s) {
  const float* const all = model.weights(Precision::float32).canonical;
  const auto& weights = model.network().weights();
  lstm.setWVals(matrix(all + weights[0].spec->offset, s.input, 4 * s.units));
  lstm.setUVals(matrix(all + weights[1].spec->offset, s.units, 4 * s.units));
  lstm.setBVals(matrix(all + weights[2].spec->offset, 1, 4 * s.units)[0]);
}

// forward(x) makes a step and returns the output.
template <class Forward>
void compare(const char* sizes, const Shape& s, Forward forward) {
  constexpr int kRounds = 300, kSteps = 200;
  Stream stream(make_model(s), Precision::float32, 1, 1);
  const Numbers x(s.input, 0.5f);
  const Numbers y(s.units);
  const FlushGuard flush;  // RTNeural leaves this to its caller
  double theirs = 1e9, ours = 1e9;
  const float* out = nullptr;
  for (int round = 0; round < kRounds; ++round) {
    double start = now();
    for (int i = 0; i < kSteps; ++i) out = forward(x.data);
    theirs = std::min(theirs, (now() - start) / kSteps);
    start = now();
    for (int i = 0; i < kSteps; ++i) stream.step(x.data, nullptr, y.data);
    ours = std::min(ours, (now() - start) / kSteps);
  }
  float error = 0;
  for (std::int64_t i = 0; i < s.units; ++i) error = std::max(error, std::fabs(out[i] - y.data[i]));
  std::printf("| %lld→%lld | %s | %.4g | %.4g | %.2fx | %.1e |\n", static_cast<long long>(s.input),
              static_cast<long long>(s.units), sizes, theirs * 1e6, ours * 1e6, theirs / ours,
              static_cast<double>(error));
  if (!(error < 1e-4f)) std::exit(1);
}

template <int I, int H>
void fixed() {
  const Shape s{"LSTM", I, H};
  using Model = RTNeural::ModelT<float, I, H, RTNeural::LSTMLayerT<float, I, H>>;
  const auto model = std::make_unique<Model>();
  set_weights(model->template get<0>(), *make_model(s), s);
  model->reset();
  compare("compile time", s, [&](const float* x) {
    model->forward(x);
    return model->getOutputs();
  });
}

void free_sizes(const Shape& s) {
  RTNeural::LSTMLayer<float> lstm(static_cast<int>(s.input), static_cast<int>(s.units));
  set_weights(lstm, *make_model(s), s);
  lstm.reset();
  const Numbers out(s.units);
  compare("run time", s, [&](const float* x) {
    lstm.forward(x, out.data);
    return static_cast<const float*>(out.data);
  });
}

}  // namespace

int main() {
  std::printf("One step of an LSTM, float32, µs, the best of many\n\n");
  std::printf(
      "| I→H | RTNeural's sizes known at | RTNeural | seqcore | ratio | difference |\n|---|---|---|---|---|---|\n");
  fixed<8, 16>();
  fixed<8, 32>();
  fixed<8, 64>();
  free_sizes({"LSTM", 8, 64});
  free_sizes({"LSTM", 64, 256});
  return 0;
}
