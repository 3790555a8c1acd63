#include "model/network.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "kernels/dispatch.h"
#include "layers/config.h"

namespace seqcore {

namespace {

constexpr std::int64_t kPackedPiece = 32768;                 // floats that are worth a thread: some ten microseconds
constexpr std::size_t kKeptMemory = std::size_t{512} << 20;  // what an idle network may hold on to for the next call

// [T][B][inner][ld] to [B][T][inner][features], at row `first` of the whole.
void to_batch_major(const Tensor& y, float* to, std::int64_t first, const Run& run) {
  const std::int64_t steps = y.steps(), inner = y.inner(), n = y.features();
  to += first * steps * inner * n;
  const Cost cost = Cost::copy(static_cast<double>(inner * n));
  run.rows(y.batch * steps, cost, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; row++) {
      const std::int64_t b = row / steps, t = row % steps;
      for (std::int64_t i = 0; i < inner; i++)
        std::memcpy(to + (row * inner + i) * n, y.data + ((t * y.batch + b) * inner + i) * y.ld,
                    static_cast<std::size_t>(n) * sizeof(float));
    }
  });
}

}  // namespace

Output to_output(const Tensor& y, const Run& run) {
  Output out;
  out.shape.push_back(y.batch);
  for (int i = 0; i < y.dims.rank; i++) out.shape.push_back(y.dims.d[i]);
  out.values.resize(static_cast<std::size_t>(y.rows() * y.features()));
  to_batch_major(y, out.values.data(), 0, run);
  return out;
}

// ------------------------------------------------------------------------------------------------------------- memory

std::size_t Network::Memory::capacity() const {
  return keep.capacity() + flip[0].capacity() + flip[1].capacity() + scratch.capacity();
}

void Network::Memory::reset() {
  keep.reset();
  flip[0].reset();
  flip[1].reset();
}

Network::Lease::Lease(const Network& network) : network_(network), memory_(network.spare_.exchange(nullptr)) {
  if (!memory_) memory_ = new Memory;
}

Network::Lease::~Lease() {
  if (memory_->capacity() > kKeptMemory) *memory_ = Memory();
  delete network_.spare_.exchange(memory_);
}

Network::~Network() { delete spare_.load(); }

// -------------------------------------------------------------------------------------------------------------- build

namespace {

struct Description {
  std::int64_t batch = -1;
  Dims input;
  bool ids = false;
  const Json::Array* layers = nullptr;
};

std::int64_t read_size(const Json& d) {
  const std::int64_t n = d.is_null() ? -1 : d.as_integer();
  if (n == 0 || n < -1 || n > (std::int64_t{1} << 31))
    throw std::invalid_argument("input shape has a dimension of " + std::to_string(n));
  return n;
}

void read_input(const Json& input, Description& into) {
  for (const auto& [name, entry] : input.as_object()) {
    if (name == "dtype") {
      const std::string& dtype = entry.as_string();
      if (dtype != "float32" && dtype != "int32")
        throw std::invalid_argument("input dtype must be float32 or int32, got " + dtype);
      into.ids = dtype == "int32";
    } else if (name == "shape") {
      const Json::Array& shape = entry.as_array();
      if (shape.size() < 2 || shape.size() > static_cast<std::size_t>(Dims::kMaxRank))
        throw std::invalid_argument("input shape must have 2 to " + std::to_string(Dims::kMaxRank) +
                                    " entries with the batch, got " + std::to_string(shape.size()));
      into.batch = read_size(shape[0]);
      for (std::size_t i = 1; i < shape.size(); i++) into.input.d[into.input.rank++] = read_size(shape[i]);
    } else {
      throw std::invalid_argument("unknown key '" + name + "' in the model description's input");
    }
  }
}

Description read(const Json& json) {
  if (!json.is_object()) throw std::invalid_argument("model description must be a JSON object");
  Description description;
  for (const auto& [key, value] : json.as_object()) {
    if (key == "layers" && value.is_array())
      description.layers = &value.as_array();
    else if (key == "input")
      read_input(value, description);
    else if (key != "layers")
      throw std::invalid_argument("unknown key '" + key + "' in the model description");
  }
  if (!description.layers || description.layers->empty())
    throw std::invalid_argument("a model needs at least one layer");
  if (description.input.rank == 0) throw std::invalid_argument("the model description has no input shape");
  return description;
}

// Only time may be unknown, and only where a layer keeps time apart from features.
void check_known(const std::string& layer, const Dims& dims, bool ids) {
  for (int i = dims.rank >= 2 || ids ? 1 : 0; i < dims.rank; i++)
    if (dims.d[i] < 0)
      throw std::invalid_argument(layer + ": only the batch and the time dimension may be unknown, got input shape " +
                                  to_string(dims));
}

}  // namespace

Network::Network(const Json& json) : k_(seqcore::kernels()) {
  const Description description = read(json);
  input_ = description.input;
  input_batch_ = description.batch;
  Layer::Place at{k_};
  Dims dims = input_;
  for (const Json& entry : *description.layers) {
    std::unique_ptr<Layer> layer = make_layer(entry);
    const std::string name = Config(entry).class_name();
    if (layer->takes_ids() != (layers_.empty() && description.ids))
      throw std::invalid_argument(layer->takes_ids()
                                      ? name + " must be the first layer and takes integer input"
                                      : name + " takes float32 input, got " + (description.ids ? "int32" : "float32"));
    check_known(name, dims, layer->takes_ids());
    dims = layer->build(dims);
    layer->name_weights("");
    layer->place(at);
    state_at_.push_back(at.states - static_cast<int>(layer->stream_states().size()));
    stateful_ |= layer->stateful();
    class_names_.push_back(name);
    for (WeightSpec* spec : layer->weights()) weights_.push_back({static_cast<int>(layers_.size()), spec});
    outputs_.push_back(dims);
    layers_.push_back(std::move(layer));
  }
  if (stateful_ && input_batch_ < 0)
    throw std::invalid_argument("a stateful layer needs a fixed batch size: give Input(batch_shape=…) or batch_size");
  state_slots_ = at.states;
  size_ = std::max<std::int64_t>(at.weights, 1);
  std::copy_n(at.packed, kCopies, packed_sizes_);
}

// ------------------------------------------------------------------------------------------------------------ running

void Network::pack(const float* weights, Copy copy, int threads, PackedWeights* packed) const {
  if (precision_of(copy) != Precision::float32) allow_tiles();
  packed->memory.reset();
  packed->data = packed->memory.floats(packed_sizes_[static_cast<int>(copy)]);
  const std::int64_t pieces = packed_sizes_[static_cast<int>(copy)] / kPackedPiece;
  const auto parts = static_cast<int>(std::clamp<std::int64_t>(pieces, 1, threads > 1 ? 4 * threads : 1));
  parallel_for(parts, threads, [&](std::int64_t part, int) {
    const Packing how{precision_of(copy), k_.dot.byte_offset, static_cast<int>(part), parts};
    for (const auto& layer : layers_) layer->pack(k_, weights, packed->data, copy, how);
  });
}

Run Network::make_run(Memory& memory, const Weights& weights, int threads, const Poll& poll) const {
  memory.reset();
  Run run(k_, threads);
  run.several = helpers_awake();
  run.weights = weights.canonical;
  run.packed = weights.packed;
  run.packed_backward = weights.packed_backward;
  run.precision = weights.precision;
  run.arena = run.masks = &memory.keep;
  run.scratch = &memory.scratch;
  run.poll = poll;
  return run;
}

void Network::check_input(const Input& x) const {
  const auto rank = static_cast<int>(x.shape.size()) - 1;
  bool fits = rank == input_.rank && (x.ids != nullptr) == takes_ids();
  for (int i = 0; fits && i < rank; i++)
    fits = input_.d[i] < 0 || x.shape[static_cast<std::size_t>(i) + 1] == input_.d[i];
  if (!fits)
    throw std::invalid_argument("x: expected " + std::string(takes_ids() ? "int32" : "float32") + " input of shape " +
                                to_string(input_) + ", got shape " + text(x.shape));
  double size = 1;
  for (const std::int64_t d : x.shape) {
    if (d <= 0)
      throw std::invalid_argument("x: expected at least one sample and one time step, got shape " + text(x.shape));
    size *= static_cast<double>(d);
  }
  if (size > 9e15) throw std::invalid_argument("x: too large, shape " + text(x.shape));
  try {
    each_output(x.shape[1], [](const Dims&) {});
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument("x: shape " + text(x.shape) + " is too short: " + error.what());
  }
}

std::vector<std::int64_t> Network::output_shape(const std::vector<std::int64_t>& input) const {
  Dims last;
  each_output(input[1], [&](const Dims& dims) { last = dims; });
  std::vector<std::int64_t> shape = {input[0]};
  shape.insert(shape.end(), last.d, last.d + last.rank);
  return shape;
}

void Network::check_ids(const std::int32_t* ids, std::int64_t n, std::int64_t per_sample) const {
  const std::int64_t limit = layers_.front()->vocabulary();
  for (std::int64_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= limit)
      throw std::invalid_argument("x: Embedding expects ids in [0, " + std::to_string(limit) + "), got " +
                                  std::to_string(ids[i]) + " in sample " + std::to_string(i / per_sample));
}

void Network::check_batches(const Input& x, std::int64_t batch_size) const {
  check_input(x);
  if (x.ids) check_ids(x.ids, elements(x.shape), elements(x.shape) / x.shape[0]);
  if (batch_size < 1) throw std::invalid_argument("batch_size must be at least 1, got " + std::to_string(batch_size));
}

Tensor Network::gather(const Input& x, const std::int64_t* rows, std::int64_t first, std::int64_t count, Arena& arena,
                       const Run& run) const {
  Tensor t;
  t.batch = count;
  t.dims.rank = static_cast<int>(x.shape.size()) - 1;
  std::int64_t block = 1;
  for (int i = 0; i < t.dims.rank; i++) {
    t.dims.d[i] = x.shape[static_cast<std::size_t>(i) + 1];
    if (i > 0) block *= t.dims.d[i];
  }
  const bool has_time = x.ids || t.dims.rank >= 2;
  const std::int64_t steps = has_time ? t.dims.d[0] : 1;
  if (!has_time) block = t.dims.d[0];
  t.ld = t.dims.features();
  if (static_cast<double>(steps) * static_cast<double>(count) * static_cast<double>(t.inner()) >
      std::numeric_limits<std::int32_t>::max())
    throw std::invalid_argument("x: a batch may have at most 2^31 rows (samples x steps); use a smaller batch_size");
  if (!rows && (steps == 1 || count == 1)) {  // batch-major is time-major: nothing to copy
    if (x.ids)
      t.ids = x.ids + first * steps * block;
    else
      t.data = const_cast<float*>(x.values) + first * steps * block;
    return t;
  }
  if (x.ids) {
    auto* ids = arena.allocate<std::int32_t>(count * steps * block);
    to_time_major(x.ids, rows, first, count, steps, block, ids, run);
    t.ids = ids;
  } else {
    t.data = arena.floats(count * steps * block);
    to_time_major(x.values, rows, first, count, steps, block, t.data, run);
  }
  return t;
}

Tensor Network::run_layers(Tensor x, Run& run, Memory* memory, std::vector<void*>* caches) const {
  int turn = 0;
  for (std::size_t i = 0; i < layers_.size(); i++) {
    if (memory) {
      run.arena = &memory->flip[turn];
      run.arena->reset();
    }
    void* cache = nullptr;
    const Tensor y = layers_[i]->forward(x, run, &cache);
    if (caches) caches->push_back(cache);
    if (y.data != x.data) turn ^= 1;
    x = y;
    run.initial_state = nullptr;
  }
  return x;
}

Output Network::predict(const Input& x, std::int64_t batch_size, const Weights& weights, std::vector<States>* states,
                        const Poll& poll) const {
  Output out;
  out.shape = output_shape(x.shape);
  out.values.resize(static_cast<std::size_t>(elements(out.shape)));
  predict(x, batch_size, weights, states, poll, out.values.data());
  return out;
}

// Rows enough for every thread's tiles, as long as what a layer makes of them is small.
std::int64_t Network::samples_at_once(const Input& x, std::int64_t batch_size) const {
  constexpr std::int64_t kRows = 64, kFloats = std::int64_t{4} << 20;
  std::int64_t largest = elements(x.shape) / x.shape[0];
  each_output(x.shape[1], [&](const Dims& dims) {
    std::int64_t size = 1;
    for (int i = 0; i < dims.rank; i++) size *= dims.d[i];
    largest = std::max(largest, size);
  });
  return std::max(batch_size, std::min(kRows * num_threads(), kFloats / largest));
}

void Network::predict(const Input& x, std::int64_t batch_size, const Weights& weights, std::vector<States>* states,
                      const Poll& poll, float* to) const {
  const Lease lease(*this);
  Memory& memory = lease.memory();
  const std::int64_t at_once = states ? batch_size : samples_at_once(x, batch_size);
  for (std::int64_t first = 0; first < x.shape[0]; first += at_once) {
    const std::int64_t count = std::min(at_once, x.shape[0] - first);
    Run run = make_run(memory, weights, threads_now(), poll);
    run.states = run.next_states = states;
    const Tensor y = run_layers(gather(x, nullptr, first, count, memory.flip[1], run), run, &memory, nullptr);
    to_batch_major(y, to, first, run);
  }
}

}  // namespace seqcore
