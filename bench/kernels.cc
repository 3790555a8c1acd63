// Microbenchmarks of every kernel, one thread, per ISA: the best time, GFLOP/s, GB/s of the arrays read and written once,
// and percent of the roofline, measured in the same run (roofline.h).
//
//   build/bench/bench_kernels [--benchmark_filter=avx512/lstm]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "kernels/dispatch.h"
#include "roofline.h"

using namespace seqcore;
using namespace seqcore::bench;

namespace {

struct Shape {
  std::int64_t input, units, batch, steps;
};

enum class Pass { predict, forward, backward };

void cell(benchmark::State& state, const Kernels& k, CellKind kind, Shape s, Pass pass, bool dropout) {
  const std::int64_t stride = pad(s.units), gates = cell_gates(kind), slots = cell_slots(kind);
  const bool predict = pass == Pass::predict;
  Numbers w(s.input * gates * s.units), u(s.units * gates * s.units), b(2 * gates * s.units);
  Numbers x(s.steps * s.batch * s.input * gates, 1.0f), h((s.steps + 1) * s.batch * stride),
      c((s.steps + 1) * s.batch * stride);
  Numbers caches(s.steps * s.batch * slots * stride, 0.5f), scale(gates * s.batch * stride, 1.0f);
  Numbers dy(s.steps * s.batch * stride), dh(s.batch * stride), dc(s.batch * stride);
  Numbers packed(k.packed_cell_size(kind, s.input, s.units, dropout, Precision::float32)),
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
  Numbers scratch(std::max(k.forward_scratch(kind, f), k.backward_scratch(kind, back)));
  f.scratch = back.scratch = scratch.data;
  if (kind != CellKind::lstm) back.c = nullptr, back.dc = nullptr;
  const std::int64_t depth = (pass == Pass::backward ? 0 : s.input) + s.units;
  const std::int64_t rows = s.steps * s.batch;
  const double bytes = 4.0 * static_cast<double>(rows * ((pass == Pass::backward ? 0 : s.input) + stride) +
                                                 (predict ? 0 : rows * (slots + 1) * stride) + depth * gates * s.units);
  measure(state, k.width, 2.0 * static_cast<double>(depth * gates * s.units * rows), bytes, [&] {
    if (pass == Pass::backward) {
      k.cell_backward[static_cast<int>(kind)](back);
    } else {
      k.cell_forward[static_cast<int>(kind)](f);
    }
  });
}

void dense(benchmark::State& state, const Kernels& k, std::int64_t m, std::int64_t depth, std::int64_t n) {
  Numbers a(m * depth), w(depth * n), c(m * pad(n)), bias(n),
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
  measure(state, k.width, 2.0 * static_cast<double>(m * depth * n),
          4.0 * static_cast<double>(m * depth + depth * n + m * n), [&] { k.product(p); });
}

void gradient(benchmark::State& state, const Kernels& k, std::int64_t m, std::int64_t depth, int groups,
              std::int64_t n) {
  const std::int64_t row = groups * pad(n);
  Numbers a(m * depth), d(m * row), c(depth * groups * n), bias(groups * n), scratch(k.grad_scratch(depth));
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
  measure(state, k.width, 2.0 * static_cast<double>(m * depth * groups * n),
          4.0 * static_cast<double>(m * depth + m * row + depth * groups * n), [&] { k.grad(g); });
}

void pack(benchmark::State& state, const Kernels& k, std::int64_t input, std::int64_t units) {
  Numbers w(input * 4 * units), u(units * 4 * units), b(4 * units);
  Numbers packed(k.packed_cell_size(CellKind::lstm, input, units, false, Precision::float32) +
                 k.packed_cell_backward_size(CellKind::lstm, units));
  const CellWeights weights{input, units, w.data, u.data, b.data};
  measure(state, k.width, 0, 4.0 * static_cast<double>((input + 2 * units) * 4 * units * 2), [&] {
    k.pack_cell(CellKind::lstm, weights, false, {}, packed.data);
    k.pack_cell_backward(CellKind::lstm, weights, packed.data);
  });
}

// What goes over arrays: `arrays` of n floats are read or written once.
template <class F>
void array_kernel(benchmark::State& state, const Kernels& k, std::int64_t n, double arrays, double flops, F make) {
  std::vector<Numbers> memory;
  for (int i = 0; i < 5; ++i) memory.emplace_back(n, 0.5f);
  auto body = make(memory);
  measure(state, k.width, flops * static_cast<double>(n), 4.0 * arrays * static_cast<double>(n), body);
}

constexpr std::int64_t kColumns = 256;  // of what works on rows

template <class Add>
void add_array_kernels(const Kernels& k, std::int64_t n, Add add) {
  using Memory = std::vector<Numbers>;
  const std::string size = "/" + std::to_string(n);
  const auto array = [&](const std::string& name, double arrays, double flops, auto make) {
    add(name + size,
        [&k, n, arrays, flops, make](benchmark::State& state) { array_kernel(state, k, n, arrays, flops, make); });
  };
  array("adam", 7, 0, [&k, n](Memory& m) {
    return [&k, n, &m] {
      k.adam({n, m[0].data, m[1].data, m[2].data, m[3].data, nullptr, 1e-3f, 0.1f, 0.001f, 1e-7f, 0});
    };
  });
  array("sgd_momentum", 5, 0, [&k, n](Memory& m) {
    return [&k, n, &m] { k.sgd({n, m[0].data, m[1].data, m[2].data, 1e-3f, 0.9f, true, 0}); };
  });
  array("add", 3, 1, [&k, n](Memory& m) { return [&k, n, &m] { k.add(n, m[0].data, m[1].data, m[2].data); }; });
  array("axpy", 3, 2, [&k, n](Memory& m) { return [&k, n, &m] { k.axpy(n, 1e-6f, m[0].data, m[1].data); }; });
  array("clip", 2, 0, [&k, n](Memory& m) { return [&k, n, &m] { k.clip(n, -1, 1, m[0].data); }; });
  array("sum_squares", 1, 2,
        [&k, n](Memory& m) { return [&k, n, &m] { benchmark::DoNotOptimize(k.sum_squares(n, m[0].data)); }; });
  array("read_all", 1, 1,
        [&k, n](Memory& m) { return [&k, n, &m] { benchmark::DoNotOptimize(k.read_all(n, m[0].data)); }; });
  array("column_sums", 1, 1, [&k, n](Memory& m) {
    return [&k, n, &m] { k.column_sums(n / kColumns, kColumns, m[0].data, kColumns, false, m[1].data); };
  });
  array("dropout_mask", 1, 0,
        [&k, n](Memory& m) { return [&k, n, &m] { k.dropout_mask(1, 2, 0, n, 0.3f, m[0].data); }; });
  array("layer_norm", 2, 0, [&k, n](Memory& m) {
    return [&k, n, &m] {
      k.layer_norm({n / kColumns, kColumns, m[0].data, kColumns, m[1].data, m[1].data, 1e-3f, m[2].data, kColumns,
                    m[3].data, m[4].data});
    };
  });
  array("layer_norm_backward", 4, 0, [&k, n](Memory& m) {
    return [&k, n, &m] {
      k.layer_norm_backward({n / kColumns, kColumns, m[0].data, kColumns, m[1].data, kColumns, m[2].data, m[2].data,
                             m[2].data, m[3].data, kColumns, m[4].data, kColumns});
    };
  });
  array("softmax_crossentropy", 2, 0, [&k, n](Memory& m) {
    return [&k, n, &m, labels = std::vector<std::int32_t>(static_cast<std::size_t>(n / kColumns), 1)] {
      k.loss({LossKind::sparse_categorical_crossentropy, n / kColumns, kColumns, m[0].data, kColumns, nullptr, 0,
              labels.data(), m[1].data, nullptr, true, 0, 1, m[2].data, m[3].data, kColumns});
    };
  });
  for (const auto& [name, activation] : {std::pair<const char*, Activation>{"tanh", Activation::tanh},
                                         {"sigmoid", Activation::sigmoid},
                                         {"relu", Activation::relu},
                                         {"gelu", Activation::gelu},
                                         {"softmax", Activation::softmax}}) {
    array(name, 2, 0, [&k, n, activation = activation](Memory& m) {
      return [&k, n, activation, &m] {
        k.activate(activation, n / kColumns, kColumns, m[0].data, kColumns, m[1].data, kColumns);
      };
    });
    array(std::string(name) + "_backward", 3, 0, [&k, n, activation = activation](Memory& m) {
      return [&k, n, activation, &m] {
        k.activate_backward(activation, n / kColumns, kColumns, m[0].data, kColumns, m[1].data, kColumns, m[2].data,
                            kColumns);
      };
    });
  }
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
  add_array_kernels(k, 16384, add);   // in L2
  add_array_kernels(k, 262144, add);  // in L3
  add("pack/lstm_I8_H64", [&k](benchmark::State& state) { pack(state, k, 8, 64); });
  add("pack/lstm_I64_H256", [&k](benchmark::State& state) { pack(state, k, 64, 256); });
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const char* isa : available_isas())
    if (kernels_for(isa)->width >= 8 || available_isas().size() == 1) add_all(isa);
  add_context();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
