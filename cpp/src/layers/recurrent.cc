#include "layers/recurrent.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "layers/step.h"

namespace seqcore {

namespace {

CellKind cell_kind(const std::string& name, bool reset_after) {
  if (name.rfind("SimpleRNN", 0) == 0) return CellKind::simple_rnn;
  if (name.rfind("LSTM", 0) == 0) return CellKind::lstm;
  return reset_after ? CellKind::gru_reset_after : CellKind::gru_reset_before;
}

}  // namespace

OverTime::OverTime(Config& c)
    : return_sequences(c.boolean("return_sequences", false)),
      return_state(c.boolean("return_state", false)),
      go_backwards(c.boolean("go_backwards", false)),
      stateful(c.boolean("stateful", false)),
      zero_output_for_mask(c.boolean("zero_output_for_mask", false)) {
  c.ignore({"unroll"});  // a way of computing, not what is computed
}

int RecurrentLayer::state_arrays() const {
  int n = 0;
  for (const StateShape& shape : states()) n += shape.has_c ? 2 : 1;
  return n;
}

// What forward leaves for backward. All of it lies in the run's arena.
struct Recurrent::Cache {
  Tensor x;
  ConstRows input;            // what the cell read: x, or x dropped; reversed in time if go_backwards
  std::ptrdiff_t input_gate;  // distance between the gates' own inputs, 0 if they share one
  const std::uint8_t* mask;
  std::ptrdiff_t mask_step;
  float* h;  // [slots][B][pad(H)]
  float* c;
  std::int64_t h_slots, c_slots;
  float* gates;            // [T][B][slots][pad(H)]
  float* input_scale;      // [1 or G][B][pad(I)] or null
  float* recurrent_scale;  // [G][B][pad(H)] or null
  bool every_step;         // is given out
  bool carried;            // the state, to the next call
};

// A way through all steps, ready to run but for rows, time and scratch.
template <class Args>
struct Recurrent::Sequence {
  const Recurrent* layer;
  Cache* cache;
  Args args;
};

Recurrent::Recurrent(Config c, const OverTime* of_cell) : RecurrentLayer(of_cell ? *of_cell : OverTime(c)) {
  units_ = c.positive("units");
  activation_ = c.activation("activation", "tanh");
  const bool gru = c.class_name().rfind("GRU", 0) == 0;
  kind_ = cell_kind(c.class_name(), gru && c.boolean("reset_after", true));
  if (kind_ != CellKind::simple_rnn) recurrent_activation_ = c.activation("recurrent_activation", "sigmoid");
  use_bias_ = c.boolean("use_bias", true);
  kernel_spec_ = {"kernel",
                  {},
                  c.initializer("kernel_initializer", "GlorotUniform"),
                  c.penalty("kernel_regularizer"),
                  c.constraint("kernel_constraint")};
  recurrent_spec_ = {"recurrent_kernel",
                     {},
                     c.initializer("recurrent_initializer", "Orthogonal"),
                     c.penalty("recurrent_regularizer"),
                     c.constraint("recurrent_constraint")};
  bias_spec_ = {"bias",
                {},
                c.initializer("bias_initializer", "Zeros"),
                c.penalty("bias_regularizer"),
                c.constraint("bias_constraint")};
  if (kind_ == CellKind::lstm && c.boolean("unit_forget_bias", true))
    bias_spec_.initializer =
        Json(Json::Object{{"class_name", Json("UnitForgetBias")},
                          {"config", Json(Json::Object{{"bias_initializer", bias_spec_.initializer}})}});
  if (!of_cell) activity = c.penalty("activity_regularizer");
  dropout_ = c.rate("dropout");
  recurrent_dropout_ = c.rate("recurrent_dropout");
  seed_ = c.any("seed");
  c.ignore({"implementation", "use_cudnn"});  // ways of computing, not what is computed
  c.done();
}

Dims Recurrent::build(const Dims& input) {
  if (input.rank != 2)
    throw std::invalid_argument("a recurrent layer expects input of shape (batch, timesteps, features), got " +
                                to_string(input));
  input_ = input.d[1];
  const std::int64_t g = cell_gates(kind_);
  kernel_spec_.shape = {input_, g * units_};
  recurrent_spec_.shape = {units_, g * units_};
  kernel_ = add_weight(kernel_spec_);
  recurrent_kernel_ = add_weight(recurrent_spec_);
  if (use_bias_) {
    if (kind_ == CellKind::gru_reset_after)
      bias_spec_.shape = {2, g * units_};
    else
      bias_spec_.shape = {g * units_};
    bias_ = add_weight(bias_spec_);
  }
  Dims out = input;
  out.d[1] = units_;
  if (!time_.return_sequences) {
    out.rank = 1;
    out.d[0] = units_;
  }
  return out;
}

CellWeights Recurrent::cell_weights(const float* weights) const {
  return {input_, units_, weight(weights, kernel_), weight(weights, recurrent_kernel_),
          use_bias_ ? weight(weights, bias_) : nullptr};
}

// Backward's copies: the recurrent product of the cell, then Wᵀ, a product for each gate.
std::int64_t Recurrent::packed_size(const Kernels& k, Copy copy) const {
  const Precision precision = precision_of(copy);
  if (copy != Copy::backward) return k.packed_cell_size(kind_, input_, units_, per_gate(precision), precision);
  return pad(k.packed_cell_backward_size(kind_, units_)) +
         cell_gates(kind_) * pad(k.packed_product_size(units_, input_, Precision::float32));
}

void Recurrent::pack(const Kernels& k, const float* weights, float* packed, Copy copy, const Packing& how) const {
  const CellWeights w = cell_weights(weights);
  float* to = packed + packed_at(copy);
  if (copy != Copy::backward) {
    k.pack_cell(kind_, w, per_gate(how.precision), how, to);
    return;
  }
  k.pack_cell_backward(kind_, w, how, to);
  to += pad(k.packed_cell_backward_size(kind_, units_));
  const std::int64_t g = cell_gates(kind_), one = pad(k.packed_product_size(units_, input_, Precision::float32));
  for (std::int64_t i = 0; i < g; i++)
    k.pack_product(w.w + i * units_, 1, g * units_, units_, input_, how, to + i * one);
}

// Dropout, one mask for all time steps. With recurrent dropout every gate has its own masks (Keras's implementation 1;
// SimpleRNN has one gate anyhow). The dropped inputs are written out: the cell reads them like any input.
void Recurrent::drop(Cache& c, Run& run) const {
  const std::int64_t b = c.x.batch, steps = c.x.steps(), g = cell_gates(kind_);
  const auto masks = [&](std::int64_t gates, std::int64_t n, double rate, std::uint64_t purpose) {
    float* scale = run.arena->floats(gates * b * pad(n));
    for (std::int64_t row = 0; row < gates * b; row++)
      run.k.dropout_mask(random_key(run, purpose), run.counter, static_cast<std::uint64_t>(row * pad(n)), pad(n),
                         static_cast<float>(rate), scale + row * pad(n));
    return scale;
  };
  if (recurrent_dropout_ > 0) c.recurrent_scale = masks(g, units_, recurrent_dropout_, 1);
  if (dropout_ > 0) {
    const std::int64_t copies = recurrent_dropout_ > 0 ? g : 1;
    c.input_scale = masks(copies, input_, dropout_, 0);
    const std::int64_t ld = pad(input_), size = steps * b * ld;
    float* dropped = run.arena->floats(copies * size);
    run.rows(copies * steps, 4.0 * static_cast<double>(b * input_), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t i = from; i < to; i++)
        for (std::int64_t row = 0; row < b; row++)
          run.k.multiply(input_, c.x.data + (i % steps * b + row) * c.x.ld, c.input_scale + (i / steps * b + row) * ld,
                         dropped + i * b * ld + row * ld);
    });
    c.input = {dropped, b * ld, ld};
    c.input_gate = copies > 1 ? size : 0;
  }
}

void Recurrent::zero_masked_rows(const Cache& c, std::int64_t t, float* rows, std::int64_t ld) const {
  for (std::int64_t row = 0; row < c.x.batch; row++)
    if (!c.mask[t * c.mask_step + row]) std::memset(rows + row * ld, 0, static_cast<std::size_t>(ld) * sizeof(float));
}

// Who does what (ARCHITECTURE.md, "Threads"): teams that have some of the rows each and never meet; within a team, parts that
// have some of the units each and meet once a step. What a step costs a thread, in the flops that it could do meanwhile:
// tiles of few rows are slower, as if they had kLostRows more; weights that its L2 does not hold; what others made of the
// step before; the meeting.
Grid Recurrent::grid_for(int threads, std::int64_t rows, std::int64_t shares, bool backwards,
                         Precision precision) const {
  constexpr double kLostRows = 2.5, kFarWeights = 15, kForeign = 100, kMeeting = 1e5, kL2 = 1.5e6, kWorthIt = 0.9;
  const double gates = cell_gates(kind_), units = static_cast<double>(units_);
  const auto depth = static_cast<double>(words(precision, units_ + (backwards ? 0 : input_)));
  const double weights = gates * units * depth;
  const double kept = units * (backwards ? gates : 1);
  const auto most = static_cast<int>(std::min<std::int64_t>(threads, shares));
  Grid best{1, 1};
  double least = std::numeric_limits<double>::infinity();
  for (int parts = 1; parts <= most; parts++) {
    const std::int64_t rooms = parts > 1 ? std::min(threads / parts, kMostTeams) : threads;
    const auto teams = static_cast<int>(std::min(rooms, rows));
    const auto mine = static_cast<double>((rows + teams - 1) / teams);
    const double own = weights * static_cast<double>((shares + parts - 1) / parts) / static_cast<double>(shares);
    double cost = own * (2 * (mine + kLostRows) + (own * sizeof(float) > kL2 ? kFarWeights : 0));
    if (parts > 1) cost += mine * kept * (parts - 1) / parts * kForeign + kMeeting;
    if (cost >= (best.parts > 1 ? 1 : kWorthIt) * least) continue;
    best = {teams, parts};
    least = cost;
  }
  return best;
}

// Runs the sequences, of as many rows and steps each, as one list of rows. In stretches of time short enough to poll after
// and, with meetings, to do without a thread that was taken off its core.
template <class Args>
void Recurrent::run_all(const Sequence<Args>* sequences, int count, Run& run) {
  constexpr bool backwards = std::is_same_v<Args, CellBackwardArgs>;
  const std::int64_t batch = sequences->args.batch, steps = sequences->cache->x.steps(), rows = count * batch;
  std::int64_t scratch = 0, shares = std::numeric_limits<std::int64_t>::max();
  double step = 0;
  for (const auto* s = sequences; s < sequences + count; s++) {
    const Recurrent& layer = *s->layer;
    const CellKind kind = layer.kind_;
    step += layer.step_flops(batch);
    shares =
        std::min(shares, layer.splits_units() ? run.k.cell_shares(kind, layer.units_, backwards, run.precision) : 1);
    if constexpr (backwards)
      scratch = std::max(scratch, pad(run.k.backward_scratch(kind, s->args)));
    else
      scratch = std::max(scratch, pad(run.k.forward_scratch(kind, s->args)));
  }
  const int threads = run.workers(step * static_cast<double>(steps));
  float* scratches = run.scratch->only(scratch * threads);
  const Grid grid = sequences->layer->grid_for(threads, rows, shares, backwards, run.precision);
  const double flops = grid.parts > 1 ? std::min(kTeamFlops * grid.seats(), kRegionFlops) : kRegionFlops;
  const std::int64_t stretch = std::max<std::int64_t>(1, static_cast<std::int64_t>(flops / step));
  for (std::int64_t done = 0; done < steps; done += stretch) {
    const std::int64_t some = std::min(stretch, steps - done), begin = backwards ? steps - done - some : done;
    const auto kernel = [&](std::int64_t from, std::int64_t to, const Share& share, int worker) {
      for (int i = 0; i < count; i++, from -= batch, to -= batch) {
        Args mine = sequences[i].args;
        mine.row_begin = std::max<std::int64_t>(from, 0);
        mine.row_end = std::min(to, batch);
        if (mine.row_begin >= mine.row_end) continue;
        mine.t_begin = begin;
        mine.t_end = begin + some;
        mine.share = share;
        mine.scratch = scratches + worker * scratch;
        if constexpr (backwards)
          run.k.cell_backward[static_cast<int>(sequences[i].layer->kind_)](mine);
        else
          run.k.cell_forward[static_cast<int>(sequences[i].layer->kind_)](mine);
      }
    };
    if (grid.parts > 1) {
      const double patience = kPatience * step * static_cast<double>(some) / grid.seats();
      parallel_team(grid, patience, [&](const Seat& seat) {
        const Share share = seat.parts > 1 ? Share{seat.part, seat.parts, Meeting::wait, &seat.meeting} : Share{};
        kernel(rows * seat.team / seat.teams, rows * (seat.team + 1) / seat.teams, share,
               seat.team * seat.parts + seat.part);
      });
      run.check();
    } else {
      run.rows(rows, step / static_cast<double>(rows) * static_cast<double>(some), 2 * kRowsOfTile,
               [&](std::int64_t from, std::int64_t to, int worker) { kernel(from, to, Share{}, worker); });
    }
  }
}

CellForwardArgs Recurrent::cell_args(std::int64_t batch, const float* packed, Precision precision,
                                     const Kernels& k) const {
  CellForwardArgs args{};
  args.batch = args.row_end = batch;
  args.input = input_;
  args.units = units_;
  args.activation = activation_;
  args.recurrent_activation = recurrent_activation_;
  args.packed = packed;
  args.per_gate = per_gate(precision);
  args.precision = precision;
  args.dot = &k.dot;
  return args;
}

Tensor Recurrent::do_forward(const Tensor& x, Run& run, void** cache) const {
  const auto sequence = begin_forward(x, run, run.initial_state ? run.initial_state->data() : nullptr);
  run_all(&sequence, 1, run);
  return end_forward(sequence, run, cache);
}

std::array<Tensor, 2> Recurrent::forward_both(const Recurrent* const (&layers)[2], const Tensor& x, Run& run,
                                              void* (&caches)[2]) {
  const Tensor* const initial = run.initial_state ? run.initial_state->data() : nullptr;
  const Sequence<CellForwardArgs> sequences[2] = {
      layers[0]->begin_forward(x, run, initial),
      layers[1]->begin_forward(x, run, initial ? initial + layers[0]->state_arrays() : nullptr)};
  run_all(sequences, 2, run);
  std::array<Tensor, 2> outputs;
  for (std::size_t i = 0; i < 2; i++) {
    outputs[i] = layers[i]->end_forward(sequences[i], run, &caches[i]);
    layers[i]->watch(outputs[i], run, &caches[i]);
  }
  return outputs;
}

auto Recurrent::begin_forward(const Tensor& x, Run& run, const Tensor* initial_state) const
    -> Sequence<CellForwardArgs> {
  const std::int64_t b = x.batch, steps = x.steps(), ld = pad(units_), slot = b * ld;
  const bool lstm = kind_ == CellKind::lstm;
  auto* const cache = run.arena->allocate<Cache>(1);
  Cache& c = *cache;
  c = {};
  c.x = x;
  c.input = {x.data, b * x.ld, x.ld};
  if (run.training && (dropout_ > 0 || recurrent_dropout_ > 0)) drop(c, run);
  c.mask = x.mask;
  c.mask_step = b;
  if (time_.go_backwards) {
    c.input.data += (steps - 1) * c.input.step;
    c.input.step = -c.input.step;
    if (c.mask) c.mask += (steps - 1) * c.mask_step;
    c.mask_step = -c.mask_step;
  }

  c.every_step = time_.return_sequences || run.streaming;
  c.carried = time_.stateful || run.streaming;
  c.h_slots = run.keep || c.every_step ? steps + 1 : 2;
  c.h = run.arena->floats(c.h_slots * slot);
  if (lstm) {
    c.c_slots = run.keep ? steps + 1 : 1;
    c.c = run.arena->floats(c.c_slots * slot);
  }
  if (run.keep) c.gates = run.arena->floats(steps * slot * cell_slots(kind_));

  // The state to start from: given by the caller, carried over (stateful), or zero.
  std::memset(c.h, 0, static_cast<std::size_t>(slot) * sizeof(float));
  if (lstm) std::memset(c.c, 0, static_cast<std::size_t>(slot) * sizeof(float));
  if (initial_state) {
    for (int s = 0; s < state_arrays(); s++) {
      const Tensor& from = initial_state[s];
      for (std::int64_t row = 0; row < b; row++)
        std::memcpy((s == 0 ? c.h : c.c) + row * ld, from.data + row * from.ld,
                    static_cast<std::size_t>(units_) * sizeof(float));
    }
  } else if (c.carried && run.states) {
    const States& from = (*run.states)[static_cast<std::size_t>(state_at_)];
    if (from.batch == b) {
      std::memcpy(c.h, from.h.data(), static_cast<std::size_t>(slot) * sizeof(float));
      if (lstm) std::memcpy(c.c, from.c.data(), static_cast<std::size_t>(slot) * sizeof(float));
    }
  }

  CellForwardArgs args = cell_args(b, packed(run), run.precision, run.k);
  args.x = c.input;
  args.x_gate = c.input_gate;
  args.mask = c.mask;
  args.mask_step = c.mask_step;
  args.h = c.h;
  args.h_slots = c.h_slots;
  args.c = c.c;
  args.c_slots = c.c_slots;
  args.gates = c.gates;
  args.recurrent_scale = c.recurrent_scale;
  args.t_end = steps;
  return {this, cache, args};
}

Tensor Recurrent::end_forward(const Sequence<CellForwardArgs>& sequence, Run& run, void** cache) const {
  const Cache& c = *sequence.cache;
  const Tensor& x = c.x;
  const std::int64_t b = x.batch, steps = x.steps(), ld = pad(units_), slot = b * ld;
  const bool lstm = kind_ == CellKind::lstm;
  *cache = sequence.cache;
  const float* last_h = c.h + steps % c.h_slots * slot;
  const float* last_c = lstm ? c.c + steps % c.c_slots * slot : nullptr;
  if (c.carried && run.next_states) {
    States& to = (*run.next_states)[static_cast<std::size_t>(state_at_)];
    to.batch = b;
    to.units = units_;
    to.h.assign(last_h, last_h + slot);
    if (lstm) to.c.assign(last_c, last_c + slot);
  }
  Tensor last;
  last.dims.rank = 1;
  last.dims.d[0] = units_;
  last.batch = b;
  last.ld = ld;
  if (time_.return_state && run.final_state) {
    for (const float* state : {last_h, last_c}) {
      if (!state) continue;
      last.data = const_cast<float*>(state);
      run.final_state->push_back(last);
    }
  }
  const bool zero = c.mask && time_.zero_output_for_mask;
  if (!c.every_step) {
    last.data = const_cast<float*>(last_h);
    if (zero) {
      last.data = run.arena->floats(slot);
      std::memcpy(last.data, last_h, static_cast<std::size_t>(slot) * sizeof(float));
      zero_masked_rows(c, steps - 1, last.data, ld);
    }
    return last;
  }
  Tensor y = x;
  y.ids = nullptr;
  y.dims.d[1] = units_;
  y.ld = ld;
  y.data = c.h + slot;  // the output of step t is the state after it
  if (zero) {
    y.data = run.arena->floats(steps * slot);
    std::memcpy(y.data, c.h + slot, static_cast<std::size_t>(steps * slot) * sizeof(float));
    for (std::int64_t t = 0; t < steps; t++) zero_masked_rows(c, t, y.data + t * slot, ld);
  }
  return y;
}

Tensor Recurrent::do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const {
  const auto sequence = begin_backward(dy, cache, run);
  run_all(&sequence, 1, run);
  return end_backward(sequence, run, need_dx);
}

std::array<Tensor, 2> Recurrent::backward_both(const Recurrent* const (&layers)[2], const Tensor (&dy)[2],
                                               void* const (&caches)[2], Run& run, bool need_dx) {
  const auto begin = [&](int i) {
    void* cache = caches[i];
    const Tensor all = layers[i]->unwatch(dy[i], run, &cache);
    return layers[i]->begin_backward(all, cache, run);
  };
  const Sequence<CellBackwardArgs> sequences[2] = {begin(0), begin(1)};
  run_all(sequences, 2, run);
  return {layers[0]->end_backward(sequences[0], run, need_dx), layers[1]->end_backward(sequences[1], run, need_dx)};
}

auto Recurrent::begin_backward(const Tensor& dy, void* cache, Run& run) const -> Sequence<CellBackwardArgs> {
  auto* const kept = static_cast<Cache*>(cache);
  const Cache& c = *kept;
  const std::int64_t b = c.x.batch, steps = c.x.steps(), ld = pad(units_), slot = b * ld;
  CellBackwardArgs args{};
  args.batch = args.row_end = b;
  args.input = input_;
  args.units = units_;
  args.activation = activation_;
  args.recurrent_activation = recurrent_activation_;
  args.packed = packed_backward(run);
  args.gates = c.gates;
  args.h = c.h;
  args.c = c.c;
  args.mask = c.mask;
  args.mask_step = c.mask_step;
  args.zero_output_for_mask = time_.zero_output_for_mask;
  args.recurrent_scale = c.recurrent_scale;
  args.dh = run.arena->zeros(slot);
  if (c.c) args.dc = run.arena->zeros(slot);
  if (time_.return_sequences)
    args.dy = {dy.data, b * dy.ld, dy.ld};
  else
    for (std::int64_t row = 0; row < b; row++)
      std::memcpy(args.dh + row * ld, dy.data + row * dy.ld, static_cast<std::size_t>(units_) * sizeof(float));

  if (!time_.return_sequences && c.mask && time_.zero_output_for_mask) zero_masked_rows(c, steps - 1, args.dh, ld);
  return {this, kept, args};
}

Tensor Recurrent::end_backward(const Sequence<CellBackwardArgs>& sequence, Run& run, bool need_dx) const {
  const Cache& c = *sequence.cache;
  // In the cell's own order of time.
  const RowList rows = valid_rows(run, c.mask, c.mask_step, c.x.steps(), c.x.batch);
  weight_gradients(c, rows, run);
  return need_dx ? input_gradient(c, rows, run) : Tensor{};
}

// dW = xᵀ dz and dU = hᵀ dz over all valid rows of all steps at once.
void Recurrent::weight_gradients(const Cache& c, RowList rows, Run& run) const {
  const std::int64_t b = c.x.batch, ld = pad(units_), slots = cell_slots(kind_);
  const int g = cell_gates(kind_);
  const bool gru = kind_ == CellKind::gru_reset_after || kind_ == CellKind::gru_reset_before;
  float* db = use_bias_ ? weight(run.grads, bias_) : nullptr;
  float* db_recurrent = db && kind_ == CellKind::gru_reset_after ? db + g * units_ : nullptr;
  const auto x_of = [&](int gate) {
    return GradFactor{{c.input.data + gate * c.input_gate, c.input.step, c.input.row},
                      input_,
                      nullptr,
                      0,
                      weight(run.grads, kernel_) + gate * units_};
  };
  // The candidate of GRU, reset before, has r*h for a state; it is scaled too.
  const auto h_of = [&](int gate) {
    const bool reset = gate == 2 && kind_ == CellKind::gru_reset_before;
    return GradFactor{reset ? ConstRows{c.gates + 3 * ld, b * slots * ld, slots * ld} : ConstRows{c.h, b * ld, ld},
                      units_, c.recurrent_scale ? c.recurrent_scale + gate * b * ld : nullptr, ld,
                      weight(run.grads, recurrent_kernel_) + gate * units_};
  };
  const auto sum = [&](std::initializer_list<GradFactor> factors, int slot, int groups, float* bias) {
    GradArgs args{};
    args.batch = b;
    for (const GradFactor& factor : factors) args.a[args.factors++] = factor;
    args.d = {c.gates + slot * ld, b * slots * ld, slots * ld};
    args.groups = groups;
    args.d_group = ld;
    args.n = units_;
    args.c_row = g * units_;
    args.c_group = units_;
    args.bias = bias;
    args.bias_group = units_;
    weight_gradient(args, rows, run);
  };
  const bool together = c.input_gate == 0 && !c.recurrent_scale;  // gates that share their inputs
  const int group = !together ? 1 : gru ? 2 : g;
  for (int gate = 0; gate < g; gate += group) {
    float* bias = db ? db + gate * units_ : nullptr;
    if (gate == 2 && kind_ == CellKind::gru_reset_after) {  // the recurrent half has a gradient of its own
      sum({x_of(gate)}, 2, 1, bias);
      sum({h_of(gate)}, 3, 1, db_recurrent ? db_recurrent + gate * units_ : nullptr);
    } else {
      sum({x_of(gate), h_of(gate)}, gate, std::min(group, g - gate), bias);
    }
  }
  if (db_recurrent) std::memcpy(db_recurrent, db, static_cast<std::size_t>(2 * units_) * sizeof(float));
}

// dx = dz Wᵀ; a masked step's is zero.
Tensor Recurrent::input_gradient(const Cache& c, RowList rows, Run& run) const {
  const std::int64_t b = c.x.batch, steps = c.x.steps(), ld = pad(units_), slots = cell_slots(kind_);
  const int g = cell_gates(kind_);
  // Where it fits it takes the place of h, which nobody needs any more.
  Tensor dx = c.x;
  dx.ids = nullptr;
  dx.ld = pad(input_);
  dx.data = dx.ld <= ld ? c.h : run.arena->floats(dx.rows() * dx.ld);
  ProductArgs args{};
  args.batch = b;
  args.n = input_;
  args.init = Init::zero;
  args.activation = Activation::linear;
  args.c = {dx.data, b * dx.ld, dx.ld};
  if (time_.go_backwards) args.c = {dx.data + (steps - 1) * b * dx.ld, -b * dx.ld, dx.ld};
  if (c.mask || c.input_scale) std::memset(dx.data, 0, static_cast<std::size_t>(dx.rows() * dx.ld) * sizeof(float));
  const float* wt = packed_backward(run) + pad(run.k.packed_cell_backward_size(kind_, units_));
  const std::int64_t one = pad(run.k.packed_product_size(units_, input_, Precision::float32));
  const auto segment = [&](int gate) {
    return Segment{{c.gates + gate * ld, b * slots * ld, slots * ld}, units_, wt + gate * one};
  };
  if (!c.input_scale || c.input_gate == 0) {
    args.segments = g;
    for (int i = 0; i < g; i++) args.a[i] = segment(i);
    args.scale = c.input_scale;
    args.scale_row = pad(input_);
    product(args, rows, run);
  } else {
    args.segments = 1;
    args.scale_row = pad(input_);
    for (int i = 0; i < g; i++) {
      args.a[0] = segment(i);
      args.scale = c.input_scale + i * b * pad(input_);
      product(args, rows, run);
    }
  }
  return dx;
}

// A team's parts take groups of units, where units need each other only from step to step; else the first takes all.
class Recurrent::RecurrentStep final : public Step {
 public:
  RecurrentStep(const Recurrent& layer, const StepPlace& at)
      : k_(at.k),
        bytes_(static_cast<std::size_t>(pad(layer.units_)) * sizeof(float)),
        state_(at.states[static_cast<std::size_t>(layer.state_at_)]),
        y_(at.memory.zeros(pad(layer.units_))),
        zero_output_for_mask_(layer.time_.zero_output_for_mask),
        shared_(at.parts > 1 && layer.splits_units()) {
    CellForwardArgs args =
        layer.cell_args(1, at.packed + layer.packed_at(forward_copy(at.precision)), at.precision, k_);
    args.t_end = 1;
    for (int part = 0; part < (shared_ ? 1 + at.parts : 1); part++) {  // the first does all of it
      if (part > 0)
        args.share = {part - 1, at.parts, [](void* meeting) { (*static_cast<Meeting**>(meeting))->wait(); },
                      at.meeting};
      float* const memory = at.memory.floats(k_.step_size(layer.kind_, args));
      k_.make_step(layer.kind_, args, memory);
      plans_.push_back(memory);
    }
  }

  void run(StepCall& call) noexcept override {
    float *h = state_.h.data(), *c = state_.c.data();
    if (call.masked) {
      call.one_part([&] {
        if (zero_output_for_mask_)
          std::memset(y_, 0, bytes_);
        else
          std::memcpy(y_, h, bytes_);
      });
    } else {
      if (shared_ && call.parts > 1)
        k_.step(plans_[static_cast<std::size_t>(call.part) + 1], call.x, h, y_, c, call.backwards);
      else
        call.one_part([&] { k_.step(plans_[0], call.x, h, y_, c, call.backwards); });
      if (call.part == 0) std::memcpy(h, y_, bytes_);  // nobody reads h any more in this step
    }
    call.x = y_;
  }

 private:
  const Kernels& k_;
  std::size_t bytes_;
  States& state_;
  float* y_;
  bool zero_output_for_mask_, shared_;
  std::vector<float*> plans_;
};

std::unique_ptr<Step> Recurrent::make_step(const StepPlace& at) const {
  return std::make_unique<RecurrentStep>(*this, at);
}

}  // namespace seqcore
