// Microbenchmarks of every kernel, one thread, per ISA: the best time, GFLOP/s, GB/s of the arrays read and written once,
// and percent of the roofline, measured in the same run (roofline.h).
//
//   build/bench/bench_kernels [--benchmark_filter=avx512/lstm]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/dispatch.h"
#include "roofline.h"

using namespace seqcore;
using namespace seqcore::bench;

namespace {

struct Shape {
  std::int64_t input, units, batch, steps;
};

enum class Pass { predict, forward, backward };

constexpr const char* kKindNames[] = {"simple_rnn", "lstm", "gru_after", "gru_before"};
constexpr Precision kPrecisions[] = {Precision::float32, Precision::bfloat16, Precision::int8};

std::string name_of(const Shape& s) {
  return "/I" + std::to_string(s.input) + "_H" + std::to_string(s.units) + "_B" + std::to_string(s.batch) + "_T" +
         std::to_string(s.steps);
}

void cell(benchmark::State& state, const Kernels& k, CellKind kind, Shape s, Pass pass, bool dropout,
          Precision precision) {
  const std::int64_t stride = pad(s.units), gates = cell_gates(kind), slots = cell_slots(kind);
  const bool predict = pass == Pass::predict;
  Numbers w(s.input * gates * s.units), u(s.units * gates * s.units), b(2 * gates * s.units);
  Numbers x(s.steps * s.batch * s.input * gates, 1.0f), h((s.steps + 1) * s.batch * stride),
      c((s.steps + 1) * s.batch * stride);
  Numbers caches(s.steps * s.batch * slots * stride, 0.5f), scale(gates * s.batch * stride, 1.0f);
  Numbers dy(s.steps * s.batch * stride), dh(s.batch * stride), dc(s.batch * stride);
  const std::int64_t packed_size = k.packed_cell_size(kind, s.input, s.units, dropout, precision);
  Numbers packed(packed_size), packed_back(k.packed_cell_backward_size(kind, s.units));
  const CellWeights weights{s.input, s.units, w.data, u.data, b.data};
  k.pack_cell(kind, weights, dropout, {precision, k.dot.byte_offset}, packed.data);
  k.pack_cell_backward(kind, weights, {}, packed_back.data);
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
                    precision,
                    &k.dot,
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
  const bool backward = pass == Pass::backward;
  const std::int64_t depth = (backward ? 0 : s.input) + s.units, rows = s.steps * s.batch;
  const std::int64_t floats = rows * ((backward ? 0 : s.input) + stride) + (predict ? 0 : rows * (slots + 1) * stride) +
                              (backward ? depth * gates * s.units : packed_size);
  measure(state, peak(k, precision), 2.0 * static_cast<double>(depth * gates * s.units * rows),
          4.0 * static_cast<double>(floats), [&] {
            if (pass == Pass::backward) {
              k.cell_backward[static_cast<int>(kind)](back);
            } else {
              k.cell_forward[static_cast<int>(kind)](f);
            }
          });
}

// A step as streams make it ready: the kernel alone, without the stream's guard and copies (bench_steps has those).
void prepared_step(benchmark::State& state, const Kernels& k, CellKind kind, Shape s, Precision precision) {
  const std::int64_t gates = cell_gates(kind);
  const std::int64_t packed_size = k.packed_cell_size(kind, s.input, s.units, false, precision);
  Numbers w(s.input * gates * s.units), u(s.units * gates * s.units), b(2 * gates * s.units), packed(packed_size);
  Numbers x(s.input, 1.0f), h(pad(s.units)), h_next(pad(s.units)), c(pad(s.units));
  k.pack_cell(kind, {s.input, s.units, w.data, u.data, b.data}, false, {precision, k.dot.byte_offset}, packed.data);
  CellForwardArgs args{};
  args.batch = args.row_end = args.t_end = 1;
  args.input = s.input;
  args.units = s.units;
  args.activation = Activation::tanh;
  args.recurrent_activation = Activation::sigmoid;
  args.packed = packed.data;
  args.precision = precision;
  args.dot = &k.dot;
  Numbers plan(k.step_size(kind, args));
  k.make_step(kind, args, plan.data);
  constexpr int kSteps = 64;  // in one call, so that the clock does not count
  measure(
      state, peak(k, precision), 2.0 * static_cast<double>((s.input + s.units) * gates * s.units),
      4.0 * static_cast<double>(packed_size),
      [&] {
        for (int i = 0; i < kSteps; i += 2) {
          k.step(plan.data, x.data, h.data, h_next.data, c.data, false);
          k.step(plan.data, x.data, h_next.data, h.data, c.data, true);
        }
      },
      kSteps);
}

void dense(benchmark::State& state, const Kernels& k, std::int64_t m, std::int64_t depth, std::int64_t n,
           Precision precision) {
  Numbers a(m * depth), w(depth * n), c(m * pad(n)), bias(n), packed(k.packed_product_size(depth, n, precision)),
      scratch(k.product_scratch(depth, m, precision));
  k.pack_product(w.data, n, 1, depth, n, {precision, k.dot.byte_offset}, packed.data);
  ProductArgs p{};
  p.batch = p.m = m;
  p.segments = 1;
  p.a[0] = {{a.data, m * depth, depth}, depth, packed.data};
  p.n = p.n_end = n;
  p.bias = bias.data;
  p.init = Init::bias;
  p.c = {c.data, m * pad(n), pad(n)};
  p.activation = Activation::linear;
  p.precision = precision;
  p.dot = &k.dot;
  p.scratch = scratch.data;
  measure(state, peak(k, precision), 2.0 * static_cast<double>(m * depth * n),
          4.0 * static_cast<double>(m * depth + k.packed_product_size(depth, n, precision) + m * n),
          [&] { k.product(p); });
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
  measure(state, peak(k, Precision::float32), 2.0 * static_cast<double>(m * depth * groups * n),
          4.0 * static_cast<double>(m * depth + m * row + depth * groups * n), [&] { k.grad(g); });
}

void pack(benchmark::State& state, const Kernels& k, CellKind kind, std::int64_t input, std::int64_t units,
          Precision precision) {
  const std::int64_t gates = cell_gates(kind), size = k.packed_cell_size(kind, input, units, false, precision);
  Numbers w(input * gates * units), u(units * gates * units), b(2 * gates * units), packed(size);
  measure(
      state, peak(k, Precision::float32), 0, 4.0 * static_cast<double>((input + units) * gates * units + size), [&] {
        k.pack_cell(kind, {input, units, w.data, u.data, b.data}, false, {precision, k.dot.byte_offset}, packed.data);
      });
}

void pack_backward(benchmark::State& state, const Kernels& k, CellKind kind, std::int64_t units) {
  const std::int64_t gates = cell_gates(kind), size = k.packed_cell_backward_size(kind, units);
  Numbers w(gates * units), u(units * gates * units), b(2 * gates * units), packed(size);
  measure(state, peak(k, Precision::float32), 0, 4.0 * static_cast<double>(units * gates * units + size), [&] {
    k.pack_cell_backward(kind, {1, units, w.data, u.data, b.data}, {}, packed.data);
  });
}

// What goes over arrays: `arrays` of n floats are read or written once.
template <class F>
void array_kernel(benchmark::State& state, const Kernels& k, std::int64_t n, double arrays, double flops, F make) {
  std::vector<Numbers> memory;
  for (int i = 0; i < 5; ++i) memory.emplace_back(n, 0.5f);
  auto body = make(memory);
  measure(state, peak(k, Precision::float32), flops * static_cast<double>(n), 4.0 * arrays * static_cast<double>(n),
          body);
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
  array("adam", 7, 12, [&k, n](Memory& m) {
    return [&k, n, &m] {
      k.adam({n, m[0].data, m[1].data, m[2].data, m[3].data, nullptr, 1e-3f, 0.1f, 0.001f, 1e-7f, 0});
    };
  });
  array("adam_amsgrad", 9, 13, [&k, n](Memory& m) {
    return [&k, n, &m] {
      k.adam({n, m[0].data, m[1].data, m[2].data, m[3].data, m[4].data, 1e-3f, 0.1f, 0.001f, 1e-7f, 0});
    };
  });
  array("sgd", 3, 2, [&k, n](Memory& m) {
    return [&k, n, &m] { k.sgd({n, m[0].data, m[1].data, nullptr, 1e-3f, 0, false, 0}); };
  });
  array("sgd_momentum", 5, 6, [&k, n](Memory& m) {
    return [&k, n, &m] { k.sgd({n, m[0].data, m[1].data, m[2].data, 1e-3f, 0.9f, true, 0}); };
  });
  array("rmsprop", 5, 8, [&k, n](Memory& m) {
    return [&k, n, &m] { k.rmsprop({n, m[0].data, m[1].data, m[2].data, nullptr, nullptr, 1e-3f, 0, 0.1f, 1e-7f, 0}); };
  });
  array("nadam", 7, 13, [&k, n](Memory& m) {
    return [&k, n, &m] {
      k.nadam({n, m[0].data, m[1].data, m[2].data, m[3].data, 1e-3f, 1e-3f, 0.1f, 0.001f, 1, 1e-7f, 0});
    };
  });
  array("adamax", 7, 8, [&k, n](Memory& m) {
    return [&k, n, &m] { k.adamax({n, m[0].data, m[1].data, m[2].data, m[3].data, 1e-3f, 0.1f, 0.999f, 1e-7f, 0}); };
  });
  array("adagrad", 5, 6, [&k, n](Memory& m) {
    return [&k, n, &m] { k.adagrad({n, m[0].data, m[1].data, m[2].data, 1e-3f, 1e-7f, 0}); };
  });
  array("adadelta", 7, 14, [&k, n](Memory& m) {
    return [&k, n, &m] { k.adadelta({n, m[0].data, m[1].data, m[2].data, m[3].data, 1e-3f, 0.05f, 1e-7f, 0}); };
  });
  array("lion", 5, 6, [&k, n](Memory& m) {
    return [&k, n, &m] { k.lion({n, m[0].data, m[1].data, m[2].data, 1e-4f, 0.1f, 0.01f, 0}); };
  });
  array("ftrl", 7, 14, [&k, n](Memory& m) {
    return [&k, n, &m] { k.ftrl({n, m[0].data, m[1].data, m[2].data, m[3].data, 0.1f, 0.5f, 0.1f, 0, 0, 0}); };
  });
  array("add", 3, 1, [&k, n](Memory& m) { return [&k, n, &m] { k.add(n, m[0].data, m[1].data, m[2].data); }; });
  array("multiply", 3, 1,
        [&k, n](Memory& m) { return [&k, n, &m] { k.multiply(n, m[0].data, m[1].data, m[2].data); }; });
  array("scale", 2, 1, [&k, n](Memory& m) { return [&k, n, &m] { k.scale(n, 0.5f, m[0].data, m[1].data); }; });
  array("axpy", 3, 2, [&k, n](Memory& m) { return [&k, n, &m] { k.axpy(n, 1e-6f, m[0].data, m[1].data); }; });
  array("clip", 2, 0, [&k, n](Memory& m) { return [&k, n, &m] { k.clip(n, -1, 1, m[0].data); }; });
  array("sum_squares", 1, 2,
        [&k, n](Memory& m) { return [&k, n, &m] { benchmark::DoNotOptimize(k.sum_squares(n, m[0].data)); }; });
  array("sum_abs", 1, 1,
        [&k, n](Memory& m) { return [&k, n, &m] { benchmark::DoNotOptimize(k.sum_abs(n, m[0].data)); }; });
  array("read_all", 1, 1,
        [&k, n](Memory& m) { return [&k, n, &m] { benchmark::DoNotOptimize(k.read_all(n, m[0].data)); }; });
  array("column_sums", 1, 1, [&k, n](Memory& m) {
    return [&k, n, &m] { k.column_sums(n / kColumns, kColumns, m[0].data, kColumns, false, m[1].data); };
  });
  array("dropout_mask", 1, 0,
        [&k, n](Memory& m) { return [&k, n, &m] { k.dropout_mask(1, 2, 0, n, 0.3f, m[0].data); }; });
  array("normals", 1, 0, [&k, n](Memory& m) { return [&k, n, &m] { k.normals(1, 2, 0, n, 0, 1, m[0].data); }; });
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
  for (const auto& [name, kind, logits] :
       {std::tuple<const char*, LossKind, bool>{"mean_squared_error", LossKind::mean_squared_error, false},
        {"mean_absolute_error", LossKind::mean_absolute_error, false},
        {"huber", LossKind::huber, false},
        {"mean_absolute_percentage_error", LossKind::mean_absolute_percentage_error, false},
        {"mean_squared_logarithmic_error", LossKind::mean_squared_logarithmic_error, false},
        {"log_cosh", LossKind::log_cosh, false},
        {"poisson", LossKind::poisson, false},
        {"kl_divergence", LossKind::kl_divergence, false},
        {"hinge", LossKind::hinge, false},
        {"squared_hinge", LossKind::squared_hinge, false},
        {"categorical_hinge", LossKind::categorical_hinge, false},
        {"cosine_similarity", LossKind::cosine_similarity, false},
        {"binary_focal_crossentropy", LossKind::binary_focal_crossentropy, true},
        {"categorical_focal_crossentropy", LossKind::categorical_focal_crossentropy, true},
        {"binary_crossentropy", LossKind::binary_crossentropy, true},
        {"categorical_crossentropy", LossKind::categorical_crossentropy, true},
        {"softmax_crossentropy", LossKind::sparse_categorical_crossentropy, true}})
    array(name, kind == LossKind::sparse_categorical_crossentropy ? 2 : 3, 0,
          [&k, n, kind = kind, logits = logits](Memory& m) {
            const std::vector<std::int32_t> labels(static_cast<std::size_t>(n / kColumns), 1);
            return [&k, n, kind, logits, &m, labels] {
              k.loss({kind, n / kColumns, kColumns, m[0].data, kColumns, m[4].data, kColumns, labels.data(), m[1].data,
                      nullptr, logits, 0, 1, m[2].data, m[3].data, kColumns, false, 0.25f, 2});
            };
          });
}

// Every activation, forward and backward.
template <class Add>
void add_activations(const Kernels& k, std::int64_t n, Add add) {
  using Memory = std::vector<Numbers>;
#define X(name) #name,
  static const char* const names[] = {SEQCORE_ACTIVATIONS(X)};
#undef X
  for (int i = 0; i < kActivations; ++i) {
    const auto activation = static_cast<Activation>(i);
    const std::string name = std::string("activation/") + names[i];
    add(name + "/" + std::to_string(n), [&k, n, activation](benchmark::State& state) {
      array_kernel(state, k, n, 2, 0, [&](Memory& m) {
        return [&k, n, activation, &m] {
          k.activate(activation, n / kColumns, kColumns, m[0].data, kColumns, m[1].data, kColumns);
        };
      });
    });
    add(name + "_backward/" + std::to_string(n), [&k, n, activation](benchmark::State& state) {
      array_kernel(state, k, n, 3, 0, [&](Memory& m) {
        return [&k, n, activation, &m] {
          k.activate_backward(activation, n / kColumns, kColumns, m[0].data, kColumns, m[1].data, kColumns, m[2].data,
                              kColumns);
        };
      });
    });
  }
}

void add_all(const char* isa) {
  const Kernels& k = *kernels_for(isa);
  const auto add = [&](const std::string& name, auto f) {
    benchmark::RegisterBenchmark((isa + ("/" + name)).c_str(), f)->Unit(benchmark::kMicrosecond);
  };
  static const char* const passes[] = {"predict", "forward", "backward"};
  const Shape shapes[] = {{8, 64, 64, 10}, {64, 128, 64, 50}, {64, 256, 32, 100}, {33, 160, 48, 37}, {8, 64, 1, 10}};
  const auto add_cell = [&](const std::string& name, CellKind kind, const Shape& s, Pass pass, bool dropout,
                            Precision precision) {
    add(name + name_of(s), [&k, kind, s, pass, dropout, precision](benchmark::State& state) {
      cell(state, k, kind, s, pass, dropout, precision);
    });
  };
  const auto precision_name = [](Precision p) { return std::string("/") + kPrecisionNames[static_cast<int>(p)]; };
  for (int i = 0; i < kCellKinds; ++i) {
    const auto kind = static_cast<CellKind>(i);
    const std::string name = kKindNames[i];
    for (const Shape& s : shapes)
      for (const Pass pass : {Pass::predict, Pass::forward, Pass::backward})
        add_cell(name + "/" + passes[static_cast<int>(pass)], kind, s, pass, false, Precision::float32);
    for (const Precision p : {Precision::bfloat16, Precision::int8})
      add_cell(name + "/predict" + precision_name(p), kind, {64, 256, 32, 100}, Pass::predict, false, p);
    for (const Precision p : kPrecisions) {
      for (const Shape& s : {Shape{8, 64, 1, 1}, Shape{64, 256, 1, 1}})
        add(name + "/step" + precision_name(p) + name_of(s),
            [&k, kind, s, p](benchmark::State& state) { prepared_step(state, k, kind, s, p); });
      for (const Shape& s : {Shape{8, 64, 0, 0}, Shape{64, 256, 0, 0}})
        add(name + "/pack" + precision_name(p) + "/I" + std::to_string(s.input) + "_H" + std::to_string(s.units),
            [&k, kind, s, p](benchmark::State& state) { pack(state, k, kind, s.input, s.units, p); });
    }
    for (const std::int64_t units : {64, 256})
      add(name + "/pack_backward/H" + std::to_string(units),
          [&k, kind, units](benchmark::State& state) { pack_backward(state, k, kind, units); });
  }
  for (const Shape& s : {Shape{64, 256, 7, 100}, Shape{64, 256, 13, 100}, Shape{64, 256, 24, 100}})
    add_cell("lstm/forward", CellKind::lstm, s, Pass::forward, false, Precision::float32);
  for (const Pass pass : {Pass::forward, Pass::backward})
    add_cell(std::string("lstm/") + passes[static_cast<int>(pass)], CellKind::lstm, {128, 512, 64, 50}, pass, false,
             Precision::float32);
  for (const Pass pass : {Pass::forward, Pass::backward})
    add_cell(std::string("lstm_dropout/") + passes[static_cast<int>(pass)], CellKind::lstm, {64, 256, 32, 100}, pass,
             true, Precision::float32);
  struct Size {
    std::int64_t m, depth, n;
  };
  for (const Size& z : {Size{640, 64, 2}, Size{640, 64, 64}, Size{3200, 1024, 64}, Size{3200, 256, 1024}})
    for (const Precision p : kPrecisions)
      add("product/" + std::to_string(z.m) + "x" + std::to_string(z.depth) + "x" + std::to_string(z.n) +
              precision_name(p),
          [&k, z, p](benchmark::State& state) { dense(state, k, z.m, z.depth, z.n, p); });
  for (const auto& [m, depth, groups, n] :
       {std::array<int, 4>{640, 8, 4, 64}, {640, 64, 4, 64}, {640, 64, 1, 2}, {3200, 256, 4, 256}, {3200, 640, 4, 512}})
    add("grad/" + std::to_string(m) + "x" + std::to_string(depth) + "x(" + std::to_string(groups) + "x" +
            std::to_string(n) + ")",
        [&k, m = m, depth = depth, groups = groups, n = n](benchmark::State& state) {
          gradient(state, k, m, depth, groups, n);
        });
  add_array_kernels(k, 16384, add);   // in L2
  add_array_kernels(k, 262144, add);  // in L3
  add_activations(k, 16384, add);
}

}  // namespace

int main(int argc, char** argv) {
  allow_tiles();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const char* isa : available_isas())
    if (kernels_for(isa)->width >= 8 || available_isas().size() == 1) add_all(isa);
  add_context();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
