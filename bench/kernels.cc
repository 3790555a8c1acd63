// Microbenchmarks of the products and cells, one thread, per ISA: time, GFLOP/s of processor time, and percent of the
// FMA peak at the same vector width, measured in the same run (in assembly: no compiler stands between).
//
//   build/bench/bench_kernels [--benchmark_filter=avx512/lstm]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "kernels/dispatch.h"

using namespace seqcore;

namespace {

// 12 independent multiply-adds, so that their latency is hidden.
#if defined(__x86_64__)
#define SEQCORE_FMA12(r)                                                                 \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "0\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r \
  "1\n\t"                                                                                \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "2\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r \
  "3\n\t"                                                                                \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "4\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r \
  "5\n\t"                                                                                \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "6\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r \
  "7\n\t"                                                                                \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "8\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r \
  "9\n\t"                                                                                \
  "vfmadd231ps %%" r "12, %%" r "13, %%" r "10\n\tvfmadd231ps %%" r "12, %%" r "13, %%" r "11\n\t"
#define SEQCORE_CLOBBERS \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13"
#endif

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// FLOP/s; 0 where there is no such instruction.
double measure_peak(int width) {
  double best = 0.0;
  for (int repeat = 0; repeat < 7; ++repeat) {
    constexpr int kTimes = 300000;
    const double start = now();
#if defined(__x86_64__)
    __asm__ volatile("vxorps %%xmm12, %%xmm12, %%xmm12\n\tvxorps %%xmm13, %%xmm13, %%xmm13" ::: SEQCORE_CLOBBERS);
    for (int i = 0; i < kTimes; ++i) {
      if (width == 16) __asm__ volatile(SEQCORE_FMA12("zmm")::: SEQCORE_CLOBBERS);
      if (width == 8) __asm__ volatile(SEQCORE_FMA12("ymm")::: SEQCORE_CLOBBERS);
    }
    if (width < 8) return 0.0;
#else
    static_cast<void>(width);
    return 0.0;
#endif
    best = std::max(best, 2.0 * 12 * width * kTimes / (now() - start));
  }
  return best;
}

double peak(int width) {
  static const double wide = available_isas().back() == std::string("avx512") ? measure_peak(16) : 0.0;
  static const double half = available_isas().size() > 1 ? measure_peak(8) : 0.0;
  return width == 16 ? wide : width == 8 ? half : 0.0;
}

struct Floats {
  explicit Floats(std::int64_t n, float size = 0.05f) : memory(static_cast<std::size_t>(n) + 16) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    data = memory.data() + (64 - address % 64) % 64 / sizeof(float);
    for (std::int64_t i = 0; i < n; ++i) data[i] = size * std::sin(static_cast<float>(i));
  }
  std::vector<float> memory;
  float* data;
};

template <class F>
void measure(benchmark::State& state, const Kernels& k, double flops, F body) {
  const FlushGuard flush;
  double best = 1e9;
  for (auto _ : state) {
    const double start = now();
    body();
    best = std::min(best, now() - start);
  }
  const double rate = flops / best;
  state.counters["best_us"] = best * 1e6;
  state.counters["GFLOP/s"] = rate * 1e-9;
  if (peak(k.width) > 0) state.counters["%peak"] = rate / peak(k.width) * 100;
}

struct Shape {
  std::int64_t input, units, batch, steps;
};

enum class Pass { predict, forward, backward };

void cell(benchmark::State& state, const Kernels& k, CellKind kind, Shape s, Pass pass, bool dropout) {
  const std::int64_t stride = pad(s.units), gates = cell_gates(kind), slots = cell_slots(kind);
  const bool predict = pass == Pass::predict;
  Floats w(s.input * gates * s.units), u(s.units * gates * s.units), b(2 * gates * s.units);
  Floats x(s.steps * s.batch * s.input * gates, 1.0f), h((s.steps + 1) * s.batch * stride),
      c((s.steps + 1) * s.batch * stride);
  Floats caches(s.steps * s.batch * slots * stride, 0.5f), scale(gates * s.batch * stride, 1.0f);
  Floats dy(s.steps * s.batch * stride), dh(s.batch * stride), dc(s.batch * stride);
  Floats packed(k.packed_cell_size(kind, s.input, s.units, dropout, Precision::float32)),
      packed_back(k.packed_cell_backward_size(kind, s.units));
  const CellWeights weights{s.input, s.units, w.data, u.data, b.data};
  k.pack_cell(kind, weights, dropout, {}, packed.data);
  k.pack_cell_backward(kind, weights, packed_back.data);
  CellForwardArgs f{s.batch,
                    s.input,
                    s.units,
                    0,
                    s.batch,
                    0,
                    s.steps,
                    Activation::tanh,
                    Activation::sigmoid,
                    packed.data,
                    dropout,
                    Precision::float32,
                    nullptr,
                    {},
                    {x.data, s.batch * s.input, s.input},
                    dropout ? s.steps * s.batch * s.input : 0,
                    nullptr,
                    0,
                    h.data,
                    predict ? 2 : s.steps + 1,
                    kind == CellKind::lstm ? c.data : nullptr,
                    predict ? 1 : s.steps + 1,
                    predict ? nullptr : caches.data,
                    dropout ? scale.data : nullptr,
                    nullptr};
  CellBackwardArgs back{s.batch,
                        s.input,
                        s.units,
                        0,
                        s.batch,
                        0,
                        s.steps,
                        Activation::tanh,
                        Activation::sigmoid,
                        packed_back.data,
                        {},
                        caches.data,
                        h.data,
                        c.data,
                        {dy.data, s.batch * stride, stride},
                        nullptr,
                        0,
                        false,
                        dropout ? scale.data : nullptr,
                        dh.data,
                        dc.data,
                        nullptr};
  Floats scratch(std::max(k.forward_scratch(kind, f), k.backward_scratch(kind, back)));
  f.scratch = back.scratch = scratch.data;
  if (kind != CellKind::lstm) back.c = nullptr, back.dc = nullptr;
  const std::int64_t depth = (pass == Pass::backward ? 0 : s.input) + s.units;
  measure(state, k, 2.0 * static_cast<double>(depth * gates * s.units * s.batch * s.steps), [&] {
    if (pass == Pass::backward) {
      k.cell_backward[static_cast<int>(kind)](back);
    } else {
      k.cell_forward[static_cast<int>(kind)](f);
    }
  });
}

void dense(benchmark::State& state, const Kernels& k, std::int64_t m, std::int64_t depth, std::int64_t n) {
  Floats a(m * depth), w(depth * n), c(m * pad(n)), bias(n),
      packed(k.packed_product_size(depth, n, Precision::float32));
  k.pack_product(w.data, n, 1, depth, n, {}, packed.data);
  ProductArgs p{};
  p.batch = p.m = m;
  p.segments = 1;
  p.a[0] = {{a.data, m * depth, depth}, depth, packed.data};
  p.n = p.n_end = n;
  p.bias = bias.data;
  p.init = Init::bias;
  p.c = {c.data, m * pad(n), pad(n)};
  p.activation = Activation::linear;
  measure(state, k, 2.0 * static_cast<double>(m * depth * n), [&] { k.product(p); });
}

void gradient(benchmark::State& state, const Kernels& k, std::int64_t m, std::int64_t depth, int groups,
              std::int64_t n) {
  const std::int64_t row = groups * pad(n);
  Floats a(m * depth), d(m * row), c(depth * groups * n), bias(groups * n), scratch(k.grad_scratch(depth));
  GradArgs g{};
  g.batch = g.m = m;
  g.factors = 1;
  g.a[0] = {{a.data, m * depth, depth}, depth, nullptr, 0, c.data};
  g.d = {d.data, m * row, row};
  g.groups = groups;
  g.d_group = pad(n);
  g.n = g.n_end = n;
  g.c_row = groups * n;
  g.c_group = g.bias_group = n;
  g.bias = bias.data;
  g.k_end = depth;
  g.scratch = scratch.data;
  measure(state, k, 2.0 * static_cast<double>(m * depth * groups * n), [&] { k.grad(g); });
}

void pack(benchmark::State& state, const Kernels& k, std::int64_t input, std::int64_t units) {
  Floats w(input * 4 * units), u(units * 4 * units), b(4 * units);
  Floats packed(k.packed_cell_size(CellKind::lstm, input, units, false, Precision::float32) +
                k.packed_cell_backward_size(CellKind::lstm, units));
  const CellWeights weights{input, units, w.data, u.data, b.data};
  for (auto _ : state) {
    k.pack_cell(CellKind::lstm, weights, false, {}, packed.data);
    k.pack_cell_backward(CellKind::lstm, weights, packed.data);
  }
  state.SetBytesProcessed(state.iterations() * (input + 2 * units) * 4 * units * 4);
}

void add_all(const char* isa) {
  const Kernels& k = *kernels_for(isa);
  const auto add = [&](const std::string& name, auto f) {
    benchmark::RegisterBenchmark((isa + ("/" + name)).c_str(), f)->Unit(benchmark::kMicrosecond);
  };
  static const char* const kinds[] = {"simple_rnn", "lstm", "gru_after", "gru_before"};
  static const char* const passes[] = {"predict", "forward", "backward"};
  const Shape shapes[] = {{8, 64, 64, 10}, {64, 128, 64, 50}, {64, 256, 32, 100}, {33, 160, 48, 37}, {8, 64, 1, 10}};
  for (int kind = 0; kind < kCellKinds; ++kind)
    for (const Shape& s : shapes)
      for (const Pass pass : {Pass::predict, Pass::forward, Pass::backward})
        add(std::string(kinds[kind]) + "/" + passes[static_cast<int>(pass)] + "/I" + std::to_string(s.input) + "_H" +
                std::to_string(s.units) + "_B" + std::to_string(s.batch) + "_T" + std::to_string(s.steps),
            [&k, kind, s, pass](benchmark::State& state) {
              cell(state, k, static_cast<CellKind>(kind), s, pass, false);
            });
  for (const Shape& s :
       {Shape{64, 256, 7, 100}, Shape{64, 256, 13, 100}, Shape{64, 256, 24, 100}, Shape{128, 512, 64, 50}})
    add("lstm/forward/I" + std::to_string(s.input) + "_H" + std::to_string(s.units) + "_B" + std::to_string(s.batch),
        [&k, s](benchmark::State& state) { cell(state, k, CellKind::lstm, s, Pass::forward, false); });
  for (const Pass pass : {Pass::forward, Pass::backward})
    add(std::string("lstm_dropout/") + passes[static_cast<int>(pass)] + "/I64_H256_B32_T100",
        [&k, pass](benchmark::State& state) {
          cell(state, k, CellKind::lstm, {64, 256, 32, 100}, pass, true);
        });
  add("product/640x64x2", [&k](benchmark::State& state) { dense(state, k, 640, 64, 2); });
  add("product/640x64x64", [&k](benchmark::State& state) { dense(state, k, 640, 64, 64); });
  add("product/3200x1024x64", [&k](benchmark::State& state) { dense(state, k, 3200, 1024, 64); });
  add("product/3200x256x1024", [&k](benchmark::State& state) { dense(state, k, 3200, 256, 1024); });
  add("grad/640x8x(4x64)", [&k](benchmark::State& state) { gradient(state, k, 640, 8, 4, 64); });
  add("grad/640x64x(4x64)", [&k](benchmark::State& state) { gradient(state, k, 640, 64, 4, 64); });
  add("grad/640x64x(1x2)", [&k](benchmark::State& state) { gradient(state, k, 640, 64, 1, 2); });
  add("grad/3200x256x(4x256)", [&k](benchmark::State& state) { gradient(state, k, 3200, 256, 4, 256); });
  add("pack/lstm_I8_H64", [&k](benchmark::State& state) { pack(state, k, 8, 64); });
  add("pack/lstm_I64_H256", [&k](benchmark::State& state) { pack(state, k, 64, 256); });
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const char* isa : available_isas())
    if (kernels_for(isa)->width >= 8 || available_isas().size() == 1) add_all(isa);
  for (const int width : {8, 16})
    if (peak(width) > 0)
      benchmark::AddCustomContext("FMA peak, " + std::to_string(width) + " floats",
                                  std::to_string(peak(width) * 1e-9) + " GFLOP/s");
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
