// The recurrent cells. Against a plain double-precision cell (values, and gradients by central differences of it), with
// every activation in both slots, masks, dropout, row-wise activations; the pre-activations exactly as the chains of
// ARCHITECTURE.md; and the same bits on every ISA, for rows one at a time and for steps one at a time.
//
// Every buffer starts as NaN, padding and masked steps stay so, and inputs end where memory ends.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <memory>
#include <vector>

#include "check.h"
#include "guarded.h"
#include "kernels/dispatch.h"

using namespace seqcore;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
std::mt19937 generator(11);
std::int64_t pick(std::int64_t lo, std::int64_t hi) {
  return std::uniform_int_distribution<std::int64_t>(lo, hi)(generator);
}
float value(float size) { return std::uniform_real_distribution<float>(-size, size)(generator); }
bool coin() { return pick(0, 1) == 1; }
std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// n floats, all NaN, that end where memory ends; 64-byte aligned if n is a multiple of 16.
struct Buffer : check::Guarded {
  explicit Buffer(std::int64_t n) : Guarded(n), size(n) { std::fill(data(), data() + n, kNan); }
  std::int64_t size;
};

// ------------------------------------------------------------------------------------------ the cell in double

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double softplus(double x) { return std::log1p(std::exp(-std::fabs(x))) + std::max(x, 0.0); }
double clamp(double x, double lo, double hi) { return std::min(std::max(x, lo), hi); }
double activate(Activation a, double x) {
  switch (a) {
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::leaky_relu:
      return x < 0 ? 0.2 * x : x;
    case Activation::relu6:
      return clamp(x, 0, 6);
    case Activation::elu:
      return x > 0 ? x : std::expm1(x);
    case Activation::selu:
      return 1.05070098735548049342 * (x > 0 ? x : 1.67326324235437728482 * std::expm1(x));
    case Activation::softplus:
      return softplus(x);
    case Activation::softsign:
      return x / (1 + std::fabs(x));
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::tanh:
      return std::tanh(x);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::exponential:
      return std::exp(x);
    case Activation::hard_sigmoid:
      return clamp(x / 6 + 0.5, 0, 1);
    case Activation::hard_silu:
      return x * clamp(x / 6 + 0.5, 0, 1);
    case Activation::hard_tanh:
      return clamp(x, -1, 1);
    case Activation::mish:
      return x * std::tanh(softplus(x));
    case Activation::log_sigmoid:
      return -softplus(-x);
    case Activation::tanh_shrink:
      return x - std::tanh(x);
    case Activation::soft_shrink:
      return x > 0.5 ? x - 0.5 : x < -0.5 ? x + 0.5 : 0;
    case Activation::hard_shrink:
      return std::fabs(x) > 0.5 ? x : 0;
    case Activation::squareplus:
      return 0.5 * (x + std::sqrt(x * x + 4));
    case Activation::sparse_plus:
      return x >= 1 ? x : x <= -1 ? 0 : 0.25 * (x + 1) * (x + 1);
    case Activation::sparse_sigmoid:
      return x >= 1 ? 1 : x <= -1 ? 0 : 0.5 * (x + 1);
    default:
      return x;
  }
}
void activate(Activation a, std::vector<double>& x) {
  if (!is_rowwise(a)) {
    for (double& v : x) v = activate(a, v);
    return;
  }
  if (a == Activation::sparsemax) {
    const double t = check::sparsemax_threshold(x);
    for (double& v : x) v = std::fmax(v - t, 0);
    return;
  }
  const double top = *std::max_element(x.begin(), x.end());
  double total = 0;
  for (const double v : x) total += std::exp(v - top);
  for (double& v : x) v = a == Activation::softmax ? std::exp(v - top) / total : v - top - std::log(total);
}

// Everything about one problem, in Keras's layouts, without padding.
struct Problem {
  CellKind kind;
  std::int64_t batch, steps, input, units;
  Activation act, rec;
  bool gated_x, per_gate, zero_output, outputs_used;
  std::vector<float> w, u, b, x, scale, h0, c0, dy, dh, dc;  // x [gates or 1][T][B][I]; b, scale may be empty
  std::vector<std::uint8_t> mask;                            // [T][B] or empty

  int gates() const { return cell_gates(kind); }
  bool valid(std::int64_t t, std::int64_t row) const { return mask.empty() || mask[at(t * batch + row)]; }
  std::string name() const {
    static const char* kinds[] = {"simple_rnn", "lstm", "gru_reset_after", "gru_reset_before"};
    return std::string(kinds[static_cast<int>(kind)]) + " B" + std::to_string(batch) + " T" + std::to_string(steps) +
           " I" + std::to_string(input) + " H" + std::to_string(units) + " act" +
           std::to_string(static_cast<int>(act)) + " rec" + std::to_string(static_cast<int>(rec)) +
           (mask.empty() ? "" : " mask") + (gated_x ? " dropout" : "") + (scale.empty() ? "" : " recurrent_dropout") +
           (b.empty() ? " no bias" : "");
  }
};

std::vector<float> random_values(std::int64_t n, float size) {
  std::vector<float> v(at(n));
  for (float& f : v) f = value(size);
  return v;
}

bool bounded(Activation a) {
  for (const Activation b :
       {Activation::softsign, Activation::tanh, Activation::sigmoid, Activation::hard_sigmoid, Activation::hard_tanh,
        Activation::sparse_sigmoid, Activation::softmax, Activation::sparsemax})
    if (a == b) return true;
  return false;
}

// `units`: so many; or 0, any number.
Problem random_problem(CellKind kind, Activation act, Activation rec, bool plain, std::int64_t units = 0) {
  Problem p{};
  p.kind = kind;
  p.act = act;
  p.rec = rec;
  const bool hoisted =
      pick(0, 3) == 0;  // few rows, many steps, a wide input: x's half of several steps is made at once
  p.batch = pick(1, hoisted || coin() ? 4 : 20);
  p.steps = hoisted ? pick(2, 30) : pick(1, 5);
  if (!bounded(rec)) p.steps = std::min<std::int64_t>(p.steps, 3);  // gates beyond 1: the states explode
  p.input = hoisted ? pick(32, 45) : pick(1, 20);
  p.units = units > 0 ? units : pick(1, coin() ? 12 : 75);
  const std::int64_t g = p.gates(), gh = g * p.units;
  const float size = 0.6f / std::sqrt(static_cast<float>(p.input + p.units)) * 1.7f;
  p.gated_x = !plain && pick(0, 2) == 0;
  p.zero_output = coin();
  p.outputs_used = pick(0, 3) > 0;
  p.w = random_values(p.input * gh, size);
  p.u = random_values(p.units * gh, size);
  if (pick(0, 3) > 0) p.b = random_values((kind == CellKind::gru_reset_after ? 2 : 1) * gh, 0.5f);
  p.x = random_values((p.gated_x ? g : 1) * p.steps * p.batch * p.input, 1.0f);
  if (!plain && pick(0, 2) == 0) {
    p.scale.resize(at(g * p.batch * p.units));
    for (float& s : p.scale) s = coin() ? 2.0f : 0.0f;
  }
  p.per_gate = p.gated_x || !p.scale.empty() || p.units % 2 == 0;
  p.h0 = random_values(p.batch * p.units, 1.0f);
  p.c0 = random_values(p.batch * p.units, 1.0f);
  p.dy = random_values(p.steps * p.batch * p.units, 1.0f);
  p.dh = random_values(p.batch * p.units, 1.0f);
  p.dc = random_values(p.batch * p.units, 1.0f);
  const std::int64_t pattern = plain ? 0 : pick(0, 4);  // none, left, right, holes
  if (pattern > 0) {
    p.mask.assign(at(p.steps * p.batch), 1);
    for (std::int64_t row = 0; row < p.batch; ++row) {
      const std::int64_t length = pick(0, p.steps);
      for (std::int64_t t = 0; t < p.steps; ++t)
        if (pattern == 1 ? t < length : pattern == 2 ? t >= length : coin()) p.mask[at(t * p.batch + row)] = 0;
    }
    for (std::int64_t r = 0; r < p.steps * p.batch; ++r)
      if (!p.mask[at(r)])
        for (std::int64_t g0 = 0; g0 < (p.gated_x ? g : 1); ++g0)
          std::fill_n(p.x.begin() + (g0 * p.steps * p.batch + r) * p.input, p.input, kNan);
  }
  return p;
}

// A change of one quantity of one row, for central differences.
struct Nudge {
  enum What { none, pre_activation, state, cell } what = none;
  std::int64_t t = 0, unit = 0;
  int slot = 0;
  double by = 0;
};
struct Trace {
  std::vector<double> h, c;  // [T+1][H]
  double loss = 0;           // sum dy*y + dh*h_T + dc*c_T
};

Trace run_double(const Problem& p, std::int64_t row, const Nudge& nudge) {
  const std::int64_t hs = p.units, g = p.gates(), gh = g * hs;
  std::vector<double> h(at(hs)), c(at(hs), 0.0);
  for (std::int64_t j = 0; j < hs; ++j) {
    h[at(j)] = p.h0[at(row * hs + j)];
    if (p.kind == CellKind::lstm) c[at(j)] = p.c0[at(row * hs + j)];
  }
  if (nudge.what == Nudge::state) h[at(nudge.unit)] += nudge.by;
  if (nudge.what == Nudge::cell) c[at(nudge.unit)] += nudge.by;
  Trace trace;
  trace.h = h;
  trace.c = c;
  const auto input = [&](std::int64_t t, std::int64_t gate, std::int64_t j) {
    double sum = p.b.empty() ? 0.0 : p.b[at(gate * hs + j)];
    const float* x = p.x.data() + (((p.gated_x ? gate : 0) * p.steps + t) * p.batch + row) * p.input;
    for (std::int64_t k = 0; k < p.input; ++k) sum += static_cast<double>(x[k]) * p.w[at(k * gh + gate * hs + j)];
    return sum;
  };
  const auto recurrent = [&](const std::vector<double>& state, std::int64_t gate, std::int64_t j) {
    double sum = p.kind == CellKind::gru_reset_after && !p.b.empty() ? p.b[at(gh + gate * hs + j)] : 0.0;
    for (std::int64_t k = 0; k < hs; ++k)
      sum += state[at(k)] * (p.scale.empty() ? 1.0 : p.scale[at((gate * p.batch + row) * hs + k)]) *
             p.u[at(k * gh + gate * hs + j)];
    return sum;
  };
  const auto nudged = [&](std::int64_t t, int slot, std::vector<double>& v) {
    if (nudge.what == Nudge::pre_activation && nudge.t == t && nudge.slot == slot) v[at(nudge.unit)] += nudge.by;
  };
  for (std::int64_t t = 0; t < p.steps; ++t) {
    const bool valid = p.valid(t, row);
    if (valid) {
      std::vector<std::vector<double>> z(4, std::vector<double>(at(hs)));
      const auto fill = [&](int gate, const std::vector<double>& state) {
        for (std::int64_t j = 0; j < hs; ++j) z[at(gate)][at(j)] = input(t, gate, j) + recurrent(state, gate, j);
        nudged(t, gate, z[at(gate)]);
      };
      if (p.kind == CellKind::simple_rnn) {
        fill(0, h);
        activate(p.act, z[0]);
        h = z[0];
      } else if (p.kind == CellKind::lstm) {
        for (int gate = 0; gate < 4; ++gate) {
          fill(gate, h);
          activate(gate == 2 ? p.act : p.rec, z[at(gate)]);
        }
        for (std::size_t j = 0; j < c.size(); ++j) c[j] = z[1][j] * c[j] + z[0][j] * z[2][j];
        std::vector<double> y = c;
        activate(p.act, y);
        for (std::size_t j = 0; j < c.size(); ++j) h[j] = z[3][j] * y[j];
      } else {
        for (int gate = 0; gate < 2; ++gate) {
          fill(gate, h);
          activate(p.rec, z[at(gate)]);
        }
        if (p.kind == CellKind::gru_reset_after) {
          for (std::int64_t j = 0; j < hs; ++j) {
            z[2][at(j)] = input(t, 2, j);
            z[3][at(j)] = recurrent(h, 2, j);
          }
          nudged(t, 2, z[2]);
          nudged(t, 3, z[3]);
          for (std::size_t j = 0; j < h.size(); ++j) z[2][j] += z[1][j] * z[3][j];
        } else {
          std::vector<double> rh(h);
          for (std::size_t j = 0; j < h.size(); ++j) rh[j] *= z[1][j];
          fill(2, rh);
        }
        activate(p.act, z[2]);
        for (std::size_t j = 0; j < h.size(); ++j) h[j] = z[0][j] * h[j] + (1 - z[0][j]) * z[2][j];
      }
    }
    if (p.outputs_used && (valid || !p.zero_output))
      for (std::int64_t j = 0; j < hs; ++j) trace.loss += p.dy[at((t * p.batch + row) * hs + j)] * h[at(j)];
    trace.h.insert(trace.h.end(), h.begin(), h.end());
    trace.c.insert(trace.c.end(), c.begin(), c.end());
  }
  for (std::int64_t j = 0; j < hs; ++j) {
    trace.loss += p.dh[at(row * hs + j)] * h[at(j)];
    if (p.kind == CellKind::lstm) trace.loss += p.dc[at(row * hs + j)] * c[at(j)];
  }
  return trace;
}

// -------------------------------------------------------------------------------------------- the kernels' run

// Where all parts of a shared call meet after each step.
struct Meeting {
  explicit Meeting(int n) : parts(n) {}
  static void sync(void* self) { static_cast<Meeting*>(self)->wait(); }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    const int round = rounds;
    if (++here == parts) {
      here = 0;
      ++rounds;
      all.notify_all();
    } else {
      all.wait(lock, [&] { return rounds != round; });
    }
  }
  const int parts;
  int here = 0, rounds = 0;
  std::mutex mutex;
  std::condition_variable all;
};

// Calls the kernel as `parts` parts on as many threads, each with scratch of its own.
template <class Args>
void share(void (*kernel)(const Args&), const Args& args, int parts, std::int64_t scratch) {
  Meeting meeting(parts);
  std::vector<std::thread> threads;
  for (int part = 0; part < parts; ++part)
    threads.emplace_back([&, part] {
      Buffer own(scratch);
      Args mine = args;
      mine.share = {part, parts, Meeting::sync, &meeting};
      mine.scratch = own.data();
      kernel(mine);
    });
  for (std::thread& thread : threads) thread.join();
}

enum class Split { none, rows, steps, units };

struct Run {
  Run(const Problem& problem, const Kernels& kernels, Split split)
      : p(problem),
        stride(pad(p.units)),
        slots(cell_slots(p.kind)),
        h((p.steps + 1) * p.batch * stride),
        c((p.steps + 1) * p.batch * stride),
        gates(p.steps * p.batch * slots * stride),
        caches(gates.size),
        dh(p.batch * stride),
        dc(p.batch * stride) {
    const std::int64_t features = p.batch * p.input;
    Buffer packed(kernels.packed_cell_size(p.kind, p.input, p.units, p.per_gate, Precision::float32));
    Buffer packed_back(kernels.packed_cell_backward_size(p.kind, p.units));
    Buffer x(static_cast<std::int64_t>(p.x.size())), scale(p.gates() * p.batch * stride);
    Buffer dy(p.steps * p.batch * p.units);
    std::copy(p.x.begin(), p.x.end(), x.data());
    std::copy(p.dy.begin(), p.dy.end(), dy.data());
    rows_to(p.scale, scale);
    rows_to(p.h0, h);
    rows_to(p.c0, c);
    rows_to(p.dh, dh);
    rows_to(p.dc, dc);
    const CellWeights weights{p.input, p.units, p.w.data(), p.u.data(), p.b.empty() ? nullptr : p.b.data()};
    kernels.pack_cell(p.kind, weights, p.per_gate, {}, packed.data());
    kernels.pack_cell_backward(p.kind, weights, {}, packed_back.data());
    const bool lstm = p.kind == CellKind::lstm;

    CellForwardArgs f{};
    f.batch = p.batch;
    f.input = p.input;
    f.units = p.units;
    f.activation = p.act;
    f.recurrent_activation = p.rec;
    f.packed = packed.data();
    f.per_gate = p.per_gate;
    f.x = {x.data(), features, p.input};
    f.x_gate = p.gated_x ? p.steps * features : 0;
    f.mask = p.mask.empty() ? nullptr : p.mask.data();
    f.mask_step = p.batch;
    f.h = h.data();
    f.h_slots = p.steps + 1;
    f.c = lstm ? c.data() : nullptr;
    f.c_slots = p.steps + 1;
    f.gates = gates.data();
    f.recurrent_scale = p.scale.empty() ? nullptr : scale.data();

    CellBackwardArgs b{};
    b.batch = p.batch;
    b.input = p.input;
    b.units = p.units;
    b.activation = p.act;
    b.recurrent_activation = p.rec;
    b.packed = packed_back.data();
    b.gates = gates.data();
    b.h = h.data();
    b.c = lstm ? c.data() : nullptr;
    if (p.outputs_used) b.dy = {dy.data(), p.batch * p.units, p.units};
    b.mask = f.mask;
    b.mask_step = p.batch;
    b.zero_output_for_mask = p.zero_output;
    b.recurrent_scale = f.recurrent_scale;
    b.dh = dh.data();
    b.dc = lstm ? dc.data() : nullptr;

    const int kind = static_cast<int>(p.kind);
    const std::int64_t rows = split == Split::rows ? 1 : p.batch, steps = split == Split::steps ? 1 : p.steps;
    for (f.row_begin = p.batch - 1; f.row_begin > -rows; f.row_begin -= rows) {
      if (split != Split::rows) f.row_begin = 0;
      f.row_end = b.row_end = f.row_begin + rows;
      b.row_begin = f.row_begin;
      f.t_begin = 0;
      f.t_end = p.steps;
      Buffer forward(kernels.forward_scratch(p.kind, f));
      Buffer backward(kernels.backward_scratch(p.kind, b));
      f.scratch = forward.data();
      b.scratch = backward.data();
      for (f.t_begin = 0; f.t_begin < p.steps; f.t_begin += steps) {
        f.t_end = f.t_begin + steps;
        if (split == Split::units)
          share(kernels.cell_forward[kind], f, 3, forward.size);
        else
          kernels.cell_forward[kind](f);
      }
      for (std::int64_t t = 0; t < p.steps; ++t)
        std::copy_n(&gates[(t * p.batch + f.row_begin) * slots * stride], rows * slots * stride,
                    &caches[(t * p.batch + f.row_begin) * slots * stride]);
      for (b.t_end = p.steps; b.t_end > 0; b.t_end -= steps) {
        b.t_begin = b.t_end - steps;
        if (split == Split::units)
          share(kernels.cell_backward[kind], b, 3, backward.size);
        else
          kernels.cell_backward[kind](b);
      }
      if (split == Split::rows && f.row_begin > 0)  // the other rows are as they were
        for (std::int64_t t = 0; t < p.steps; ++t) {
          CHECK(std::isnan(h[((t + 1) * p.batch + f.row_begin - 1) * stride]));
          CHECK(std::isnan(gates[((t * p.batch + f.row_begin) * slots - 1) * stride]));
        }
    }
    if (split == Split::none) check_inference(kernels, f);
  }

  // Without caches, h in two slots and c in one: the same last state.
  void check_inference(const Kernels& kernels, CellForwardArgs f) {
    Buffer h2(2 * p.batch * stride), c1(p.batch * stride);
    rows_to(p.h0, h2);
    rows_to(p.c0, c1);
    f.h = h2.data();
    f.h_slots = 2;
    f.c = f.c ? c1.data() : nullptr;
    f.c_slots = 1;
    f.gates = nullptr;
    f.row_begin = f.t_begin = 0;
    f.row_end = p.batch;
    f.t_end = p.steps;
    Buffer scratch(kernels.forward_scratch(p.kind, f));
    f.scratch = scratch.data();
    kernels.cell_forward[static_cast<int>(p.kind)](f);
    for (std::int64_t row = 0; row < p.batch; ++row) {
      const std::size_t bytes = at(p.units) * sizeof(float);
      CHECK(!std::memcmp(&h2[(p.steps % 2 * p.batch + row) * stride], &h[(p.steps * p.batch + row) * stride], bytes));
      if (f.c) CHECK(!std::memcmp(&c1[row * stride], &c[(p.steps * p.batch + row) * stride], bytes));
    }
    if (!f.mask && f.x_gate == 0 && !f.recurrent_scale)
      for (const int parts : {1, 3}) check_steps(kernels, f, p.steps % p.batch, parts);
  }

  // Prepared steps of one row, in both directions, one call or several that share the units: the same states.
  void check_steps(const Kernels& kernels, CellForwardArgs f, std::int64_t row, int parts) {
    if (parts > 1 &&
        (p.kind == CellKind::gru_reset_before || is_rowwise(f.activation) || is_rowwise(f.recurrent_activation)))
      return;
    f.batch = f.row_end = f.t_end = 1;
    std::vector<std::unique_ptr<Buffer>> plans;
    for (int part = 0; part < parts; ++part) {
      f.share.part = part;
      f.share.parts = parts;
      plans.push_back(std::make_unique<Buffer>(kernels.step_size(p.kind, f)));
      kernels.make_step(p.kind, f, plans.back()->data());
    }
    Buffer before(stride), after(stride), c1(stride);
    std::copy_n(&h[row * stride], p.units, before.data());
    if (f.c) std::copy_n(&c[row * stride], p.units, c1.data());
    const bool turned = p.units % 2 == 0;
    for (std::int64_t t = 0; t < p.steps; ++t) {
      Buffer& from = t % 2 ? after : before;
      Buffer& to = t % 2 ? before : after;
      for (const auto& plan : plans)
        kernels.step(plan->data(), f.x.data + t * f.x.step + row * f.x.row, from.data(), to.data(),
                     f.c ? c1.data() : nullptr, (t % 2 == 1) != turned);
      const std::int64_t at_row = ((t + 1) * p.batch + row) * stride;
      const std::size_t bytes = at(p.units) * sizeof(float);
      CHECK(!std::memcmp(to.data(), &h[at_row], bytes));
      if (f.c) CHECK(!std::memcmp(c1.data(), &c[at_row], bytes));
    }
  }

  void rows_to(const std::vector<float>& from, Buffer& to) const {
    for (std::int64_t r = 0; r < static_cast<std::int64_t>(from.size()) / p.units; ++r)
      std::copy_n(from.begin() + r * p.units, p.units, to.data() + r * stride);
  }
  // What the kernels promise to have written, in one list.
  std::vector<float> results() {
    std::vector<float> all;
    const auto take = [&](Buffer& from, std::int64_t row) {
      all.insert(all.end(), from.data() + row * stride, from.data() + row * stride + p.units);
    };
    for (std::int64_t r = 0; r < (p.steps + 1) * p.batch; ++r) {
      take(h, r);
      if (p.kind == CellKind::lstm) take(c, r);
    }
    for (std::int64_t r = 0; r < p.steps * p.batch; ++r)
      for (int s = 0; s < slots && p.valid(r / p.batch, r % p.batch); ++s) {
        take(caches, r * slots + s);
        take(gates, r * slots + s);
      }
    for (std::int64_t row = 0; row < p.batch; ++row) {
      take(dh, row);
      if (p.kind == CellKind::lstm) take(dc, row);
    }
    return all;
  }

  const Problem& p;
  std::int64_t stride, slots;
  Buffer h, c, gates, caches, dh, dc;
};

void check_values_and_gradients(const Problem& p, Run& run) {
  const bool lstm = p.kind == CellKind::lstm;
  double worst = 0, worst_gradient = 0;
  const auto differ = [](double a, double b) { return std::fabs(a - b) / (1.0 + std::fabs(b)); };
  for (std::int64_t row = 0; row < p.batch; ++row) {
    const Trace trace = run_double(p, row, {});
    for (std::int64_t t = 0; t <= p.steps; ++t)
      for (std::int64_t j = 0; j < p.units; ++j) {
        const std::int64_t place = (t * p.batch + row) * run.stride + j;
        worst = std::max(worst, differ(run.h[place], trace.h[at(t * p.units + j)]));
        if (lstm) worst = std::max(worst, differ(run.c[place], trace.c[at(t * p.units + j)]));
        if (std::isnan(run.h[place])) worst = INFINITY;
      }
  }
  // Central differences of a sample of what backward gives.
  for (int i = 0; i < 12; ++i) {
    const std::int64_t row = pick(0, p.batch - 1);
    Nudge nudge{Nudge::pre_activation, pick(0, p.steps - 1), pick(0, p.units - 1),
                static_cast<int>(pick(0, run.slots - 1)), 0};
    if (p.kind == CellKind::gru_reset_before && nudge.slot == 3) nudge.slot = 1;
    double got = run.gates[((nudge.t * p.batch + row) * run.slots + nudge.slot) * run.stride + nudge.unit];
    if (i % 4 == 0 || !p.valid(nudge.t, row)) {
      nudge.what = lstm && coin() ? Nudge::cell : Nudge::state;
      got = (nudge.what == Nudge::cell ? run.dc : run.dh)[row * run.stride + nudge.unit];
    }
    nudge.by = 1e-5;
    const double up = run_double(p, row, nudge).loss;
    nudge.by = -1e-5;
    const double down = run_double(p, row, nudge).loss;
    worst_gradient = std::max(worst_gradient, differ(got, (up - down) / 2e-5));
    if (std::isnan(got)) worst_gradient = INFINITY;
  }
  CHECK_THAT(worst < 1e-4 && worst_gradient < 3e-4, p.name() + ": values off by " + std::to_string(worst) +
                                                        ", gradients by " + std::to_string(worst_gradient));
}

void check_everything(const Problem& p) {
  std::vector<float> first;
  for (const char* isa : available_isas())
    for (const Split split : {Split::none, Split::rows, Split::steps, Split::units}) {
      if (split == Split::units && (p.kind == CellKind::gru_reset_before || is_rowwise(p.act) || is_rowwise(p.rec)))
        continue;
      Run run(p, *kernels_for(isa), split);
      const std::vector<float> results = run.results();
      if (first.empty()) {
        check_values_and_gradients(p, run);
        first = results;
      }
      CHECK_THAT(!std::memcmp(first.data(), results.data(), first.size() * sizeof(float)),
                 p.name() + ": other bits, " + isa + ", split " + std::to_string(static_cast<int>(split)));
    }
}

// With linear activations the slots show the pre-activations: each is the chain of ARCHITECTURE.md.
void check_chains(CellKind kind) {
  const Problem p = random_problem(kind, Activation::linear, Activation::linear, false);
  const std::int64_t hs = p.units, g = p.gates(), gh = g * hs;
  for (const char* isa : available_isas()) {
    Run run(p, *kernels_for(isa), Split::none);
    for (std::int64_t t = 0; t < p.steps; ++t)
      for (std::int64_t row = 0; row < p.batch; ++row) {
        if (!p.valid(t, row)) continue;
        const float* h = &run.h[(t * p.batch + row) * run.stride];
        const auto slot = [&](std::int64_t s) {
          return &run.caches[((t * p.batch + row) * run.slots + s) * run.stride];
        };
        for (std::int64_t j = 0; j < gh; ++j) {
          const std::int64_t gate = j / hs;
          const bool after = kind == CellKind::gru_reset_after, candidate = gate == 2;
          float chain = p.b.empty() ? 0.0f : p.b[at(j)];
          if (after && !candidate && !p.b.empty()) chain = chain + p.b[at(gh + j)];
          const float* x = p.x.data() + (((p.gated_x ? gate : 0) * p.steps + t) * p.batch + row) * p.input;
          for (std::int64_t k = 0; k < p.input; ++k) chain = std::fma(x[k], p.w[at(k * gh + j)], chain);
          const float x_half = chain;
          if (after && candidate) chain = p.b.empty() ? 0.0f : p.b[at(gh + j)];
          const bool before = kind == CellKind::gru_reset_before && candidate;
          for (std::int64_t k = 0; k < hs; ++k) {
            float state = before ? slot(3)[k] : h[k];
            if (!p.scale.empty()) state = state * p.scale[at((gate * p.batch + row) * hs + k)];
            chain = std::fma(state, p.u[at(k * gh + j)], chain);
          }
          if (after && candidate) {
            CHECK(chain == slot(3)[j % hs]);
            CHECK(std::fma(slot(1)[j % hs], chain, x_half) == slot(2)[j % hs]);
          } else {
            CHECK(chain == slot(gate)[j % hs]);
          }
        }
      }
  }
}

}  // namespace

int main() {
  const auto activation = [](int i) { return static_cast<Activation>(i); };
  for (int kind = 0; kind < kCellKinds; ++kind) {
    for (int i = 0; i < kActivations; ++i) {
      check_everything(random_problem(static_cast<CellKind>(kind), activation(i), Activation::sigmoid, false));
      if (kind > 0)
        check_everything(random_problem(static_cast<CellKind>(kind), Activation::tanh, activation(i), false));
    }
    for (int i = 0; i < 10; ++i) {
      check_everything(random_problem(static_cast<CellKind>(kind), Activation::relu, Activation::sigmoid, i % 2 == 0));
      check_chains(static_cast<CellKind>(kind));
    }
    check_everything(random_problem(static_cast<CellKind>(kind), Activation::softmax, Activation::log_softmax, false));
    // A last group of every size, alone and after others.
    for (std::int64_t units = 1; units <= 180; units += units < 66 ? 1 : 16)
      check_everything(random_problem(static_cast<CellKind>(kind), Activation::tanh, Activation::sigmoid, true, units));
  }
  return check::report();
}
