// Recurrent layers over a batch: forward, backward through time and the gradients, shared out among threads.
#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "layers/recurrent.h"

namespace seqcore {

// What forward leaves of some of the batch's samples, for backward. All of it lies in the run's arena.
struct Recurrent::Cache {
  Tensor x;                   // the whole batch's
  std::int64_t first, batch;  // the samples: their rows below, B of them
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

  float* last_h(std::int64_t ld) const { return h + x.steps() % h_slots * batch * ld; }
  float* last_c(std::int64_t ld) const { return c + x.steps() % c_slots * batch * ld; }
};

// Several threads have memory of their own each: rows of two that lie side by side are taken from one cache to the other
// all the time, by processors that fetch ahead.
struct Recurrent::Parts {
  int count;
  Cache* part;
};

// A way through all steps, ready to run but for rows, time and scratch.
template <class Args>
struct Recurrent::Sequence {
  const Recurrent* layer;
  Cache* cache;
  Args args;
};

// Dropout, one mask for all time steps. With recurrent dropout every gate has its own masks (Keras's implementation 1;
// SimpleRNN has one gate anyhow). The dropped inputs are written out: the cell reads them like any input.
void Recurrent::drop(Cache& c, Run& run) const {
  const std::int64_t b = c.batch, steps = c.x.steps(), g = cell_gates(kind_);
  const auto masks = [&](std::int64_t gates, std::int64_t n, double rate, std::uint64_t purpose) {
    float* scale = run.arena->floats(gates * b * pad(n));
    for (std::int64_t row = 0; row < gates * b; row++) {
      const std::int64_t of_batch = row / b * c.x.batch + c.first + row % b;
      run.k.dropout_mask(random_key(run, purpose), run.counter, static_cast<std::uint64_t>(of_batch * pad(n)), pad(n),
                         static_cast<float>(rate), scale + row * pad(n));
    }
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
          run.k.multiply(input_, c.x.data + (i % steps * c.x.batch + c.first + row) * c.x.ld,
                         c.input_scale + (i / steps * b + row) * ld, dropped + i * b * ld + row * ld);
    });
    c.input = {dropped, b * ld, ld};
    c.input_gate = copies > 1 ? size : 0;
  }
}

void Recurrent::zero_masked_rows(const Cache& c, std::int64_t t, float* rows, std::int64_t ld) const {
  for (std::int64_t row = 0; row < c.batch; row++)
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

// Runs the sequences, of as many steps each, as one list of rows. In stretches of time short enough to poll after
// and, with meetings, to do without a thread that was taken off its core.
template <class Args>
void Recurrent::run_all(const Sequence<Args>* sequences, int count, Run& run) {
  constexpr bool backwards = std::is_same_v<Args, CellBackwardArgs>;
  const std::int64_t steps = sequences->cache->x.steps();
  std::int64_t rows = 0, scratch = 0, shares = std::numeric_limits<std::int64_t>::max();
  double step = 0;
  for (const auto* s = sequences; s < sequences + count; s++) {
    const Recurrent& layer = *s->layer;
    const CellKind kind = layer.kind_;
    rows += s->args.batch;
    step += layer.step_flops(s->args.batch);
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
      for (const auto* s = sequences; s < sequences + count; from -= s->args.batch, to -= s->args.batch, s++) {
        Args mine = s->args;
        mine.row_begin = std::max<std::int64_t>(from, 0);
        mine.row_end = std::min(to, mine.batch);
        if (mine.row_begin >= mine.row_end) continue;
        mine.t_begin = begin;
        mine.t_end = begin + some;
        mine.share = share;
        mine.scratch = scratches + worker * scratch;
        if constexpr (backwards)
          run.k.cell_backward[static_cast<int>(s->layer->kind_)](mine);
        else
          run.k.cell_forward[static_cast<int>(s->layer->kind_)](mine);
      }
    };
    if (grid.parts > 1) {
      const double patience = kPatience * step * static_cast<double>(some) / grid.seats();
      parallel_team(grid, patience, [&](const Seat& seat) {
        const Share share = seat.parts > 1 ? Share{seat.part, seat.parts, Meeting::wait, &seat.meeting} : Share{};
        kernel(rows * seat.team / seat.teams, rows * (seat.team + 1) / seat.teams, share,
               seat.team * seat.parts + seat.part);
      });
      run.several = true;
      run.check();
    } else {
      run.rows(
          rows, step / static_cast<double>(rows) * static_cast<double>(some), 2 * kRowsOfTile,
          [&](std::int64_t from, std::int64_t to, int worker) { kernel(from, to, Share{}, worker); }, threads);
    }
  }
}

// States that come and go are of the whole batch.
int Recurrent::parts_for(const Tensor& x, const Run& run) const {
  if (time_.stateful || time_.return_state || run.streaming || run.initial_state) return 1;
  const int threads = run.workers(step_flops(x.batch) * static_cast<double>(x.steps()));
  const std::int64_t shares = splits_units() ? run.k.cell_shares(kind_, units_, false, run.precision) : 1;
  const int teams = grid_for(threads, x.batch, shares, false, run.precision).teams;
  return run.keep ? static_cast<int>(std::min<std::int64_t>(teams, Bands(x.batch, x.steps()).count)) : teams;
}

void Recurrent::forward_all(const Recurrent* const* layers, int count, const Tensor& x, Run& run, Parts* kept) {
  int parts = std::numeric_limits<int>::max();
  for (int l = 0; l < count; l++) parts = std::min(parts, layers[l]->parts_for(x, run));
  const Bands bands(x.batch, x.steps());
  auto* const sequences = run.arena->allocate<Sequence<CellForwardArgs>>(parts * count);
  for (int l = 0; l < count; l++) kept[l] = {parts, run.arena->allocate<Cache>(parts)};
  for (int i = 0; i < parts; i++) {
    // In training whole bands: each thread sums the weight gradients of its own.
    const auto begin = [&](int part) {
      return run.keep ? bands.begin(bands.count * part / parts) : x.batch * part / parts;
    };
    const std::int64_t first = begin(i), end = begin(i + 1);
    const Tensor* initial = run.initial_state ? run.initial_state->data() : nullptr;
    for (int l = 0; l < count; l++) {
      sequences[i * count + l] = layers[l]->begin_forward(x, first, end - first, run, initial, kept[l].part + i);
      if (initial) initial += layers[l]->state_arrays();
    }
  }
  run_all(sequences, parts * count, run);
}

Tensor Recurrent::do_forward(const Tensor& x, Run& run, void** cache) const {
  const Recurrent* const self = this;
  auto* const parts = run.arena->allocate<Parts>(1);
  forward_all(&self, 1, x, run, parts);
  return end_forward(parts, run, cache);
}

std::array<Tensor, 2> Recurrent::forward_both(const Recurrent* const (&layers)[2], const Tensor& x, Run& run,
                                              void* (&caches)[2]) {
  auto* const parts = run.arena->allocate<Parts>(2);
  forward_all(layers, 2, x, run, parts);
  std::array<Tensor, 2> outputs;
  for (std::size_t i = 0; i < 2; i++) {
    outputs[i] = layers[i]->end_forward(parts + i, run, &caches[i]);
    layers[i]->watch(outputs[i], run, &caches[i]);
  }
  return outputs;
}

auto Recurrent::begin_forward(const Tensor& x, std::int64_t first, std::int64_t b, Run& run,
                              const Tensor* initial_state, Cache* cache) const -> Sequence<CellForwardArgs> {
  const std::int64_t steps = x.steps(), ld = pad(units_), slot = b * ld;
  const bool lstm = kind_ == CellKind::lstm;
  Cache& c = *cache;
  c = {};
  c.x = x;
  c.first = first;
  c.batch = b;
  c.input = {x.data + first * x.ld, x.batch * x.ld, x.ld};
  if (run.training && (dropout_ > 0 || recurrent_dropout_ > 0)) drop(c, run);
  c.mask = x.mask ? x.mask + first : nullptr;
  c.mask_step = x.batch;
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

Tensor Recurrent::end_forward(Parts* kept, Run& run, void** cache) const {
  *cache = kept;
  const Parts& parts = *kept;
  const Cache& one = *parts.part;  // where there are more, no state is asked for
  const Tensor& x = one.x;
  const std::int64_t b = x.batch, steps = x.steps(), ld = pad(units_), slot = b * ld;
  const bool lstm = kind_ == CellKind::lstm;
  if (one.carried && run.next_states) {
    States& to = (*run.next_states)[static_cast<std::size_t>(state_at_)];
    to.batch = b;
    to.units = units_;
    to.h.assign(one.last_h(ld), one.last_h(ld) + slot);
    if (lstm) to.c.assign(one.last_c(ld), one.last_c(ld) + slot);
  }
  Tensor last;
  last.dims.rank = 1;
  last.dims.d[0] = units_;
  last.batch = b;
  last.ld = ld;
  if (time_.return_state && run.final_state) {
    for (float* state : {one.last_h(ld), lstm ? one.last_c(ld) : nullptr}) {
      if (!state) continue;
      last.data = state;
      run.final_state->push_back(last);
    }
  }
  const bool zero = one.mask && time_.zero_output_for_mask, copy = zero || parts.count > 1;
  if (!one.every_step) {
    last.data = copy ? run.arena->floats(slot) : one.last_h(ld);
    for (const Cache* c = parts.part; copy && c < parts.part + parts.count; c++) {
      float* const to = last.data + c->first * ld;
      std::memcpy(to, c->last_h(ld), static_cast<std::size_t>(c->batch * ld) * sizeof(float));
      if (zero) zero_masked_rows(*c, steps - 1, to, ld);
    }
    return last;
  }
  Tensor y = x;
  y.ids = nullptr;
  y.dims.d[1] = units_;
  y.ld = ld;
  y.data = copy ? run.arena->floats(steps * slot) : one.h + slot;  // the output of step t is the state after it
  if (!copy) return y;
  run.rows(parts.count, Cost::copy(static_cast<double>(steps * slot) / parts.count), 1,
           [&](std::int64_t from, std::int64_t to, int) {
             for (const Cache* c = parts.part + from; c < parts.part + to; c++)
               for (std::int64_t t = 0; t < steps; t++) {
                 float* const rows = y.data + (t * b + c->first) * ld;
                 std::memcpy(rows, c->h + (t + 1) * c->batch * ld,
                             static_cast<std::size_t>(c->batch * ld) * sizeof(float));
                 if (zero) zero_masked_rows(*c, t, rows, ld);
               }
           });
  return y;
}

void Recurrent::backward_all(const Recurrent* const* layers, int count, const Tensor* dy, const Parts* const* kept,
                             Run& run) {
  const int parts = kept[0]->count;
  auto* const sequences = run.arena->allocate<Sequence<CellBackwardArgs>>(parts * count);
  for (int i = 0; i < parts; i++)
    for (int l = 0; l < count; l++) sequences[i * count + l] = layers[l]->begin_backward(dy[l], kept[l]->part + i, run);
  run_all(sequences, parts * count, run);
}

Tensor Recurrent::do_backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const {
  const Recurrent* const self = this;
  const auto* const parts = static_cast<const Parts*>(cache);
  backward_all(&self, 1, &dy, &parts, run);
  return end_backward(*parts, run, need_dx);
}

std::array<Tensor, 2> Recurrent::backward_both(const Recurrent* const (&layers)[2], const Tensor (&dy)[2],
                                               void* const (&caches)[2], Run& run, bool need_dx) {
  Tensor all[2];
  const Parts* parts[2];
  for (int i = 0; i < 2; i++) {
    void* cache = caches[i];
    all[i] = layers[i]->unwatch(dy[i], run, &cache);
    parts[i] = static_cast<const Parts*>(cache);
  }
  backward_all(layers, 2, all, parts, run);
  return {layers[0]->end_backward(*parts[0], run, need_dx), layers[1]->end_backward(*parts[1], run, need_dx)};
}

auto Recurrent::begin_backward(const Tensor& dy, Cache* cache, Run& run) const -> Sequence<CellBackwardArgs> {
  const Cache& c = *cache;
  const std::int64_t b = c.batch, steps = c.x.steps(), ld = pad(units_), slot = b * ld;
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
    args.dy = {dy.data + c.first * dy.ld, dy.batch * dy.ld, dy.ld};
  else
    for (std::int64_t row = 0; row < b; row++)
      std::memcpy(args.dh + row * ld, dy.data + (c.first + row) * dy.ld,
                  static_cast<std::size_t>(units_) * sizeof(float));

  if (!time_.return_sequences && c.mask && time_.zero_output_for_mask) zero_masked_rows(c, steps - 1, args.dh, ld);
  return {this, cache, args};
}

Tensor Recurrent::end_backward(const Parts& parts, Run& run, bool need_dx) const {
  const Bands bands(parts.part->x.batch, parts.part->x.steps());
  auto* const rows = run.arena->allocate<RowList>(parts.count);
  for (int i = 0; i < parts.count; i++) {
    const Cache& c = parts.part[i];  // in the cell's own order of time
    rows[i] = banded_rows(run, c.mask, c.mask_step, bands, bands.count * i / parts.count,
                          bands.count * (i + 1) / parts.count);
  }
  weight_gradients(parts, rows, run);
  return need_dx ? input_gradient(parts, rows, run) : Tensor{};
}

// dW = xᵀ dz and dU = hᵀ dz over all valid rows of all steps at once.
void Recurrent::weight_gradients(const Parts& parts, const RowList* rows, Run& run) const {
  const std::int64_t ld = pad(units_), slots = cell_slots(kind_);
  const int g = cell_gates(kind_);
  const bool gru = kind_ == CellKind::gru_reset_after || kind_ == CellKind::gru_reset_before;
  float* db = use_bias_ ? weight(run.grads, bias_) : nullptr;
  float* db_recurrent = db && kind_ == CellKind::gru_reset_after ? db + g * units_ : nullptr;
  // Threads have those of the rows that they made, and of these small sums too.
  double work = 0;
  for (int i = 0; i < parts.count; i++) work += step_flops(rows[i].n);
  const int threads = run.workers(work);
  auto* const sums = run.arena->allocate<GradPart>(parts.count);
  const auto x_of = [&](const Cache& c, int gate) {
    return GradFactor{{c.input.data + gate * c.input_gate, c.input.step, c.input.row},
                      input_,
                      nullptr,
                      0,
                      weight(run.grads, kernel_) + gate * units_};
  };
  // The candidate of GRU, reset before, has r*h for a state; it is scaled too.
  const auto h_of = [&](const Cache& c, int gate) {
    const bool reset = gate == 2 && kind_ == CellKind::gru_reset_before;
    const std::int64_t slot = c.batch * ld;
    return GradFactor{reset ? ConstRows{c.gates + 3 * ld, slots * slot, slots * ld} : ConstRows{c.h, slot, ld}, units_,
                      c.recurrent_scale ? c.recurrent_scale + gate * slot : nullptr, ld,
                      weight(run.grads, recurrent_kernel_) + gate * units_};
  };
  // Of x (-1: not), of h (-1: not), both of that gate and as many slots from `slot` on.
  const auto sum = [&](int x_gate, int h_gate, int slot, int groups, float* bias) {
    for (int i = 0; i < parts.count; i++) {
      const Cache& c = parts.part[i];
      GradArgs args{};
      args.batch = c.batch;
      if (x_gate >= 0) args.a[args.factors++] = x_of(c, x_gate);
      if (h_gate >= 0) args.a[args.factors++] = h_of(c, h_gate);
      args.d = {c.gates + slot * ld, c.batch * slots * ld, slots * ld};
      args.groups = groups;
      args.d_group = ld;
      args.n = units_;
      args.c_row = g * units_;
      args.c_group = units_;
      args.bias = bias;
      args.bias_group = units_;
      sums[i] = {args, rows[i]};
    }
    weight_gradient(sums, parts.count, run, threads);
  };
  const bool together = parts.part->input_gate == 0 && !parts.part->recurrent_scale;  // gates that share their inputs
  const int group = !together ? 1 : gru ? 2 : g;
  for (int gate = 0; gate < g; gate += group) {
    float* bias = db ? db + gate * units_ : nullptr;
    if (gate == 2 && kind_ == CellKind::gru_reset_after) {  // the recurrent half has a gradient of its own
      sum(gate, -1, 2, 1, bias);
      sum(-1, gate, 3, 1, db_recurrent ? db_recurrent + gate * units_ : nullptr);
    } else {
      sum(gate, gate, gate, std::min(group, g - gate), bias);
    }
  }
  if (db_recurrent) std::memcpy(db_recurrent, db, static_cast<std::size_t>(2 * units_) * sizeof(float));
}

// dx = dz Wᵀ; a masked step's is zero.
Tensor Recurrent::input_gradient(const Parts& parts, const RowList* rows, Run& run) const {
  const Cache& one = *parts.part;
  const std::int64_t batch = one.x.batch, steps = one.x.steps(), ld = pad(units_), slots = cell_slots(kind_);
  const int g = cell_gates(kind_);
  // Where it fits it takes the place of h, which nobody needs any more.
  Tensor dx = one.x;
  dx.ids = nullptr;
  dx.ld = pad(input_);
  dx.data = dx.ld <= ld && parts.count == 1 ? one.h : run.arena->floats(dx.rows() * dx.ld);
  if (one.mask || one.input_scale) std::memset(dx.data, 0, static_cast<std::size_t>(dx.rows() * dx.ld) * sizeof(float));
  const float* wt = packed_backward(run) + pad(run.k.packed_cell_backward_size(kind_, units_));
  const std::int64_t one_gate = pad(run.k.packed_product_size(units_, input_, Precision::float32));
  auto* const products = run.arena->allocate<ProductPart>(parts.count);
  // All gates at once, or each with its own scale.
  const int at_once = !one.input_scale || one.input_gate == 0 ? g : 1;
  for (int gate = 0; gate < g; gate += at_once) {
    for (int i = 0; i < parts.count; i++) {
      const Cache& c = parts.part[i];
      const std::int64_t step = batch * dx.ld;
      ProductArgs args{};
      args.batch = c.batch;
      args.n = input_;
      args.init = Init::zero;
      args.activation = Activation::linear;
      args.c = {dx.data + c.first * dx.ld, step, dx.ld};
      if (time_.go_backwards) args.c = {args.c.data + (steps - 1) * step, -step, dx.ld};
      args.segments = at_once;
      for (int k = 0; k < at_once; k++)
        args.a[k] = {{c.gates + (gate + k) * ld, c.batch * slots * ld, slots * ld}, units_, wt + (gate + k) * one_gate};
      args.scale = c.input_scale ? c.input_scale + gate * c.batch * pad(input_) : nullptr;
      args.scale_row = pad(input_);
      products[i] = {args, rows[i]};
    }
    product(products, parts.count, run);
  }
  return dx;
}

}  // namespace seqcore
