#include "stream/stream.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "base/flush_guard.h"
#include "base/parallel.h"

namespace seqcore {

namespace {

// Steps that batches take at a time: enough rows to fill the kernels' blocks, few enough to stay in cache.
constexpr std::int64_t kBatchRows = 128;
// From here on, floats of weights, a block of steps of one stream is faster layer by layer: the inputs' products of all
// steps read their weights once.
constexpr std::int64_t kLayerByLayer = std::int64_t{1} << 17;
constexpr std::int64_t kFewSteps = 4;

Weights weights_of(const std::shared_ptr<const Snapshot>& snapshot, Precision precision) {
  if (!snapshot) throw std::invalid_argument("stream: expected a model, got none");
  return snapshot->weights(precision);
}

std::string layer_name(const Network& network, std::size_t i) {
  return "layer " + std::to_string(i) + " (" + network.class_names()[i] + ")";
}

}  // namespace

// Holds the stream for one call.
class Stream::Using {
 public:
  explicit Using(const Stream& stream) : stream_(stream) {
    if (stream.busy_.exchange(true, std::memory_order_acquire)) throw Busy();
  }
  ~Using() { stream_.busy_.store(false, std::memory_order_release); }
  Using(const Using&) = delete;
  Using& operator=(const Using&) = delete;

 private:
  const Stream& stream_;
};

Stream::Stream(std::shared_ptr<const Snapshot> snapshot, Precision precision, std::int64_t streams, int threads)
    : snapshot_(std::move(snapshot)),
      precision_(precision),
      streams_(streams),
      threads_(threads),
      weights_(weights_of(snapshot_, precision)) {
  if (streams < 1 || streams > (1 << 24))
    throw std::invalid_argument("n: expected a number of streams in [1, 2^24], got " + std::to_string(streams));
  if (threads < 1 || threads > kMaxThreads)
    throw std::invalid_argument("threads: expected a number in [1, " + std::to_string(kMaxThreads) + "], got " +
                                std::to_string(threads));
  const Network& net = network();
  if (net.input().rank != (net.takes_ids() ? 1 : 2))
    throw std::invalid_argument(
        "stream: expected a model of sequences, (batch, timesteps, features), got one of input shape " +
        to_string(net.input()));
  for (std::size_t i = 0; i < net.layers().size(); i++)
    if (const char* reason = net.layers()[i]->stream_refusal())
      throw std::invalid_argument("stream: " + layer_name(net, i) + " cannot run step by step: " + reason);
  features_ = net.takes_ids() ? 1 : net.input().d[1];
  outputs_ = net.output().features();
  for (const Network::Weight& w : net.weights())
    if (w.spec->shape.size() >= 2 && !(w.layer == 0 && net.takes_ids()))
      flops_ += 2.0 * static_cast<double>(w.spec->size());

  states_.resize(static_cast<std::size_t>(net.state_slots()));
  for (std::size_t i = 0; i < net.layers().size(); i++) {
    auto slot = static_cast<std::size_t>(net.state_at(static_cast<int>(i)));
    for (const Layer::StateShape& shape : net.layers()[i]->stream_states()) {
      States& s = states_[slot];
      s.batch = streams;
      s.units = shape.units;
      const auto size = static_cast<std::size_t>(streams * pad(shape.units));
      s.h.assign(size, 0.0f);
      places_.push_back({slot, false});
      state_arrays_.push_back({shape.units});
      if (shape.has_c) {
        s.c.assign(size, 0.0f);
        places_.push_back({slot, true});
        state_arrays_.push_back({shape.units});
      }
      slot++;
    }
  }
  selected_ = saved_ = states_;
  seen_.resize(static_cast<std::size_t>(streams));
  if (streams > 1) {  // so that later calls find their memory
    std::vector<float> y(static_cast<std::size_t>(streams * outputs_));
    const std::vector<float> x(static_cast<std::size_t>(streams * features_));
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(streams));
    run(takes_ids() ? nullptr : x.data(), takes_ids() ? ids.data() : nullptr, 1, nullptr, streams, y.data());
    reset(nullptr, 0);
    return;
  }
  if (threads > 1) team_ = std::make_unique<Team>(threads);
  const StepPlace at{net.kernels(), weights_.canonical, weights_.packed, precision, team_ ? team_->parts() : 1,
                     &meeting_,     step_memory_,       states_};
  for (const auto& layer : net.layers())
    if (std::unique_ptr<Step> step = layer->make_step(at)) steps_.push_back(std::move(step));
}

Stream::~Stream() = default;

std::unique_ptr<Stream> Stream::copy() const {
  auto other = std::make_unique<Stream>(snapshot_, precision_, streams_, threads_);
  const Using use(*this);
  other->states_ = states_;
  return other;
}

Floats& Stream::array(std::size_t i) {
  States& s = states_[places_[i].slot];
  return places_[i].c ? s.c : s.h;
}

bool Stream::step(const float* x, const std::int32_t* id, float* y) noexcept {
  if (busy_.exchange(true, std::memory_order_acquire)) return false;
  const FlushGuard flush;
  one_step(x, id, y);
  busy_.store(false, std::memory_order_release);
  return true;
}

void Stream::one_step(const float* x, const std::int32_t* id, float* y) noexcept {
  StepCall call;
  call.x = x;
  call.ids = id;
  call.backwards = backwards_;
  backwards_ = !backwards_;
  if (team_) {
    const float* last = nullptr;
    team_->run([&](int part, int parts, Meeting& meeting) {
      StepCall mine = call;
      mine.part = part;
      mine.parts = parts;
      mine.meeting = &meeting;
      if (part == 0) meeting_ = &meeting;
      mine.meet();
      for (const auto& step : steps_) step->run(mine);
      mine.meet();
      if (part == 0) last = mine.x;
    });
    call.x = last;
  } else {
    for (const auto& step : steps_) step->run(call);
  }
  std::memcpy(y, call.x, static_cast<std::size_t>(outputs_) * sizeof(float));
}

void Stream::check_which(const std::int64_t* which, std::int64_t count) const {
  std::fill(seen_.begin(), seen_.end(), std::uint8_t{0});
  for (std::int64_t i = 0; i < count; i++) {
    if (which[i] < 0 || which[i] >= streams_)
      throw std::invalid_argument("which: expected indices in [0, " + std::to_string(streams_) + "), got " +
                                  std::to_string(which[i]));
    std::uint8_t& seen = seen_[static_cast<std::size_t>(which[i])];
    if (seen) throw std::invalid_argument("which: stream " + std::to_string(which[i]) + " is listed twice");
    seen = 1;
  }
}

namespace {

void copy_rows(const Floats& from, const std::int64_t* from_rows, Floats* to, const std::int64_t* to_rows,
               std::int64_t count, std::int64_t row) {
  if (from.empty()) return;
  for (std::int64_t i = 0; i < count; i++)
    std::memcpy(to->data() + (to_rows ? to_rows[i] : i) * row, from.data() + (from_rows ? from_rows[i] : i) * row,
                static_cast<std::size_t>(row) * sizeof(float));
}

}  // namespace

void Stream::run(const float* x, const std::int32_t* ids, std::int64_t steps, const std::int64_t* which,
                 std::int64_t count, float* y, const Poll& poll) {
  const Using use(*this);
  if (which)
    check_which(which, count);
  else
    count = streams_;
  if (ids) {
    for (std::int64_t i = 0; i < steps * count; i++)
      if (ids[i] < 0 || ids[i] >= vocabulary())
        throw std::invalid_argument("x: expected ids in [0, " + std::to_string(vocabulary()) + "), got " +
                                    std::to_string(ids[i]));
  }
  if (steps < 1 || count < 1) return;
  const FlushGuard flush;
  saved_ = states_;
  try {
    if (streams_ == 1 && (steps < kFewSteps || flops_ < 2 * kLayerByLayer)) {
      for (std::int64_t t = 0; t < steps; t++) {
        one_step(x ? x + t * features_ : nullptr, ids ? ids + t : nullptr, y + t * outputs_);
        if (t % kBatchRows == 0 && poll && poll()) throw Cancelled();
      }
      return;
    }
    if (which) {
      for (std::size_t i = 0; i < states_.size(); i++) {
        States& to = selected_[i];
        to.batch = count;
        const std::int64_t row = pad(to.units);
        to.h.resize(static_cast<std::size_t>(count * row));
        to.c.resize(states_[i].c.empty() ? 0 : static_cast<std::size_t>(count * row));
        copy_rows(states_[i].h, which, &to.h, nullptr, count, row);
        copy_rows(states_[i].c, which, &to.c, nullptr, count, row);
      }
    }
    const std::int64_t most = std::max<std::int64_t>(1, kBatchRows / count);
    for (std::int64_t t = 0; t < steps; t += most) {
      const std::int64_t n = std::min(most, steps - t);
      batch_steps(x ? x + t * count * features_ : nullptr, ids ? ids + t * count : nullptr, n, count,
                  which ? &selected_ : &states_, y + t * count * outputs_, poll);
    }
    if (which) {
      for (std::size_t i = 0; i < states_.size(); i++) {
        copy_rows(selected_[i].h, nullptr, &states_[i].h, which, count, pad(states_[i].units));
        copy_rows(selected_[i].c, nullptr, &states_[i].c, which, count, pad(states_[i].units));
      }
    }
  } catch (...) {
    states_ = saved_;  // in place: steps know where they lie
    throw;
  }
}

void Stream::batch_steps(const float* x, const std::int32_t* ids, std::int64_t steps, std::int64_t count,
                         std::vector<States>* states, float* y, const Poll& poll) {
  const Network& net = network();
  Run run = net.make_run(memory_, weights_, threads_, poll);
  run.streaming = true;
  run.states = run.next_states = states;
  Tensor t;
  t.batch = count;
  t.dims.rank = ids ? 1 : 2;
  t.dims.d[0] = steps;
  t.ld = features_;
  t.ids = ids;
  t.data = const_cast<float*>(x);
  if (!ids) t.dims.d[1] = features_;
  const Tensor out = net.run_layers(t, run, &memory_, nullptr);
  run.check();
  for (std::int64_t row = 0; row < steps * count; row++)
    std::memcpy(y + row * outputs_, out.data + row * out.ld, static_cast<std::size_t>(outputs_) * sizeof(float));
}

void Stream::reset(const std::int64_t* which, std::int64_t count) {
  const Using use(*this);
  if (which) check_which(which, count);
  for (std::size_t i = 0; i < places_.size(); i++) {
    Floats& a = array(i);
    const std::int64_t row = pad(state_arrays_[i].units);
    if (!which) std::fill(a.begin(), a.end(), 0.0f);
    for (std::int64_t s = 0; which && s < count; s++) std::fill_n(a.data() + which[s] * row, row, 0.0f);
  }
}

void Stream::get_state(const std::vector<float*>& to) const {
  const Using use(*this);
  for (std::size_t i = 0; i < to.size(); i++) {
    const std::int64_t units = state_arrays_[i].units;
    for (std::int64_t s = 0; s < streams_; s++) std::copy_n(array(i).data() + s * pad(units), units, to[i] + s * units);
  }
}

void Stream::set_state(const std::vector<const float*>& from) {
  const Using use(*this);
  for (std::size_t i = 0; i < from.size(); i++) {
    const std::int64_t units = state_arrays_[i].units;
    for (std::int64_t s = 0; s < streams_; s++)
      std::copy_n(from[i] + s * units, units, array(i).data() + s * pad(units));
  }
}

}  // namespace seqcore
