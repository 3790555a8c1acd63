#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/parallel.h"
#include "base/philox.h"
#include "kernels/dispatch.h"
#include "layers/config.h"
#include "model/initializers.h"

namespace seqcore {

namespace {

constexpr std::size_t kKeptMemory = std::size_t{512} << 20;  // what an idle model may hold on to for the next predict

std::string text(const std::vector<std::int64_t>& shape) {
  std::string s = "(";
  for (std::size_t i = 0; i < shape.size(); i++)
    s += (i ? ", " : "") + (shape[i] < 0 ? std::string("None") : std::to_string(shape[i]));
  return s + (shape.size() == 1 ? ",)" : ")");
}

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

// Rearranges [n][T][block] (picking rows) into [T][count][block].
template <class T>
void to_time_major(const T* from, const std::int64_t* rows, std::int64_t first, std::int64_t count, std::int64_t steps,
                   std::int64_t block, T* to, std::int64_t ld) {
  for (std::int64_t b = 0; b < count; b++) {
    const T* sample = from + (rows ? rows[first + b] : first + b) * steps * block;
    for (std::int64_t t = 0; t < steps; t++)
      std::memcpy(to + (t * count + b) * ld, sample + t * block, static_cast<std::size_t>(block) * sizeof(T));
  }
}

// [T][B][inner][ld] to [B][T][inner][features], at row `first` of the whole.
void to_batch_major(const Tensor& y, float* to, std::int64_t first) {
  const std::int64_t steps = y.steps(), inner = y.inner(), n = y.features();
  for (std::int64_t b = 0; b < y.batch; b++)
    for (std::int64_t t = 0; t < steps; t++)
      for (std::int64_t i = 0; i < inner; i++)
        std::memcpy(to + (((first + b) * steps + t) * inner + i) * n, y.data + ((t * y.batch + b) * inner + i) * y.ld,
                    static_cast<std::size_t>(n) * sizeof(float));
}

Output to_output(const Tensor& y) {
  Output out;
  out.shape.push_back(y.batch);
  for (int i = 0; i < y.dims.rank; i++) out.shape.push_back(y.dims.d[i]);
  out.values.resize(static_cast<std::size_t>(y.rows() * y.features()));
  to_batch_major(y, out.values.data(), 0);
  return out;
}

}  // namespace

// ------------------------------------------------------------------------------------------------------------- memory

struct Model::Packed {
  Arena memory;
  std::uint64_t version = 0;
  bool backward = false;
  float* at[2] = {nullptr, nullptr};
};

struct Model::Memory {
  Arena keep;     // training: everything; else what outlives a layer's neighbours
  Arena flip[2];  // inference: a layer's input in one, its output in the other
  Arena scratch;  // of the kernels
  std::size_t capacity() const {
    return keep.capacity() + flip[0].capacity() + flip[1].capacity() + scratch.capacity();
  }
  void reset() {
    keep.reset();
    flip[0].reset();
    flip[1].reset();
  }
};

// Takes the spare memory, or new, and puts it back.
struct Model::Lease {
  explicit Lease(const Model& m) : model(m), memory(m.spare_.exchange(nullptr)) {
    if (!memory) memory = new Memory;
  }
  ~Lease() {
    if (memory->capacity() > kKeptMemory) *memory = Memory();
    delete model.spare_.exchange(memory);
  }
  Lease(const Lease&) = delete;
  const Model& model;
  Memory* memory;
  const FlushGuard flush;  // for what runs outside of parallel regions
};

Model::~Model() { delete spare_.load(); }

// -------------------------------------------------------------------------------------------------------------- build

Model::Model(const std::string& description, std::uint64_t model_seed) : seed(model_seed), k_(kernels()) {
  const Json json = Json::parse(description);
  if (!json.is_object()) throw std::invalid_argument("model description must be a JSON object");
  const Json* layers = nullptr;
  std::string dtype = "float32";
  for (const auto& [key, value] : json.as_object()) {
    if (key == "layers") {
      layers = &value;
    } else if (key == "input") {
      for (const auto& [name, entry] : value.as_object()) {
        if (name == "dtype") {
          dtype = entry.as_string();
          if (dtype != "float32" && dtype != "int32")
            throw std::invalid_argument("input dtype must be float32 or int32, got " + dtype);
        } else if (name == "shape") {
          const Json::Array& shape = entry.as_array();
          if (shape.size() < 2 || shape.size() > static_cast<std::size_t>(Dims::kMaxRank))
            throw std::invalid_argument("input shape must have 2 to " + std::to_string(Dims::kMaxRank) +
                                        " entries with the batch, got " + std::to_string(shape.size()));
          const auto entry_of = [&](const Json& d) {
            const std::int64_t n = d.is_null() ? -1 : d.as_integer();
            if (n == 0 || n < -1 || n > (std::int64_t{1} << 31))
              throw std::invalid_argument("input shape has a dimension of " + std::to_string(n));
            return n;
          };
          input_batch_ = entry_of(shape[0]);
          for (std::size_t i = 1; i < shape.size(); i++) input_.d[input_.rank++] = entry_of(shape[i]);
        } else {
          throw std::invalid_argument("unknown key '" + name + "' in the model description's input");
        }
      }
    } else {
      throw std::invalid_argument("unknown key '" + key + "' in the model description");
    }
  }
  if (!layers || !layers->is_array() || layers->as_array().empty())
    throw std::invalid_argument("a model needs at least one layer");
  if (input_.rank == 0) throw std::invalid_argument("the model description has no input shape");

  Layer::Place at{k_};
  Dims dims = input_;
  for (const Json& entry : layers->as_array()) {
    std::unique_ptr<Layer> layer = make_layer(entry);
    const std::string name = Config(entry).class_name();
    if (layer->takes_ids() != (layers_.empty() && dtype == "int32"))
      throw std::invalid_argument(layer->takes_ids() ? name + " must be the first layer and takes integer input"
                                                     : name + " takes float32 input, got " + dtype);
    // Only time may be unknown, and only where a layer keeps time apart from features.
    const int known_from = dims.rank >= 2 || layer->takes_ids() ? 1 : 0;
    for (int i = known_from; i < dims.rank; i++)
      if (dims.d[i] < 0)
        throw std::invalid_argument(name + ": only the batch and the time dimension may be unknown, got input shape " +
                                    to_string(dims));
    dims = layer->build(dims);
    layer->name_weights("");
    layer->place(at);
    state_at_.push_back(at.states - layer->state_count());
    for (WeightSpec* spec : layer->weights()) weights_.push_back({static_cast<int>(layers_.size()), spec});
    outputs_.push_back(dims);
    layers_.push_back(std::move(layer));
  }
  stateful_ = at.states > 0;
  if (stateful_ && input_batch_ < 0)
    throw std::invalid_argument("a stateful layer needs a fixed batch size: give Input(batch_shape=…) or batch_size");
  states_.resize(static_cast<std::size_t>(at.states));
  size_ = std::max<std::int64_t>(at.weights, 1);
  packed_sizes_[0] = at.packed[0];
  packed_sizes_[1] = at.packed[1];
  data_ = weight_memory_.zeros(size_);
  trains_.assign(weights_.size(), true);
  for (std::size_t i = 0; i < weights_.size(); i++)
    initial_weight(static_cast<int>(i), data_ + weights_[i].spec->offset);
}

std::vector<std::vector<std::int64_t>> Model::output_shapes() const {
  std::vector<std::vector<std::int64_t>> all;
  for (const Dims& dims : outputs_) {
    std::vector<std::int64_t> shape{input_batch_};
    shape.insert(shape.end(), dims.d, dims.d + dims.rank);
    all.push_back(shape);
  }
  return all;
}

void Model::initial_weight(int index, float* out) const {
  const WeightSpec& spec = *weights_.at(static_cast<std::size_t>(index)).spec;
  const std::uint64_t key = mix_seed(seed, static_cast<std::uint64_t>(index), 1);
  // LSTM's unit_forget_bias: the forget block is ones, the rest as asked.
  if (const Json* name = spec.initializer.find("class_name");
      name && name->is_string() && name->as_string() == "UnitForgetBias") {
    initialize(*spec.initializer.find("config")->find("bias_initializer"), spec.shape, key, out);
    const std::int64_t units = spec.size() / 4;
    std::fill(out + units, out + 2 * units, 1.0f);
    return;
  }
  initialize(spec.initializer, spec.shape, key, out);
}

void Model::get_weight(int index, float* out) const {
  const WeightSpec& spec = *weights_.at(static_cast<std::size_t>(index)).spec;
  std::copy_n(data_ + spec.offset, spec.size(), out);
}

void Model::set_weight(int index, const float* value) {
  const WeightSpec& spec = *weights_.at(static_cast<std::size_t>(index)).spec;
  std::copy_n(value, spec.size(), data_ + spec.offset);
  changed();
}

void Model::changed() { version_.fetch_add(1); }

std::shared_ptr<const Model::Packed> Model::packed(bool backward) const {
  const std::lock_guard<std::mutex> lock(packing_);
  const std::uint64_t version = version_.load();
  if (packed_ && packed_->version == version && (packed_->backward || !backward)) return packed_;
  // Nobody else holds it: write over it. Else leave theirs alone.
  std::shared_ptr<Packed> fresh = packed_ && packed_.use_count() == 1 ? packed_ : std::make_shared<Packed>();
  packed_.reset();
  fresh->backward |= backward;
  fresh->memory.reset();
  for (int half = 0; half < (fresh->backward ? 2 : 1); half++)
    fresh->at[half] = fresh->memory.floats(packed_sizes_[half]);
  for (int half = 0; half < (fresh->backward ? 2 : 1); half++)
    for (const auto& layer : layers_) layer->pack(k_, data_, fresh->at[half], half == 1);
  fresh->version = version;
  packed_ = fresh;
  return fresh;
}

// ------------------------------------------------------------------------------------------------------------ running

Run Model::make_run(Memory& memory, const Packed& packed, const Poll& poll) const {
  memory.reset();
  Run run(k_, num_threads());
  run.weights = data_;
  run.packed[0] = packed.at[0];
  run.packed[1] = packed.at[1];
  run.arena = run.masks = &memory.keep;
  run.scratch = &memory.scratch;
  run.seed = seed;
  run.counter = rng_counter;
  run.poll = poll;
  return run;
}

void Model::check_input(const Input& x) const {
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
}

void Model::check_ids(const std::int32_t* ids, std::int64_t n, std::int64_t per_sample) const {
  const std::int64_t limit = layers_.front()->vocabulary();
  for (std::int64_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= limit)
      throw std::invalid_argument("x: Embedding expects ids in [0, " + std::to_string(limit) + "), got " +
                                  std::to_string(ids[i]) + " in sample " + std::to_string(i / per_sample));
}

Tensor Model::gather(const Input& x, const std::int64_t* rows, std::int64_t first, std::int64_t count,
                     Arena& arena) const {
  Tensor t;
  t.batch = count;
  t.dims.rank = static_cast<int>(x.shape.size()) - 1;
  std::int64_t block = 1;
  for (int i = 0; i < t.dims.rank; i++) {
    t.dims.d[i] = x.shape[static_cast<std::size_t>(i) + 1];
    if (i > 0) block *= t.dims.d[i];
  }
  const bool has_time = x.ids ? true : t.dims.rank >= 2;
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
    to_time_major(x.ids, rows, first, count, steps, block, ids, block);
    t.ids = ids;
  } else {
    t.data = arena.floats(count * steps * block);
    to_time_major(x.values, rows, first, count, steps, block, t.data, block);
  }
  return t;
}

// With caches everything stays in run.arena; without, two arenas take turns, so that memory is two layers', not all.
Tensor Model::run_layers(Tensor x, Run& run, Memory* memory, std::vector<void*>* caches) const {
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

Output Model::predict(const Input& x, std::int64_t batch_size, const Poll& poll) const {
  check_input(x);
  if (x.ids) check_ids(x.ids, elements(x.shape), elements(x.shape) / x.shape[0]);
  if (batch_size < 1) throw std::invalid_argument("batch_size must be at least 1, got " + std::to_string(batch_size));
  std::unique_lock<std::mutex> lock;
  if (stateful_) {
    lock = std::unique_lock<std::mutex>(mutating_);
    if (x.shape[0] % input_batch_ != 0)
      throw std::invalid_argument("x: a stateful model takes batches of exactly " + std::to_string(input_batch_) +
                                  " samples, got " + std::to_string(x.shape[0]));
    batch_size = input_batch_;
  }
  const Lease lease(*this);
  const std::shared_ptr<const Packed> weights = packed(false);
  Output out;
  std::vector<States> next = states_;
  for (std::int64_t first = 0; first < x.shape[0]; first += batch_size) {
    const std::int64_t count = std::min(batch_size, x.shape[0] - first);
    Run run = make_run(*lease.memory, *weights, poll);
    if (stateful_) run.states = run.next_states = &next;
    const Tensor y = run_layers(gather(x, nullptr, first, count, lease.memory->flip[1]), run, lease.memory, nullptr);
    if (first == 0) {
      out.shape.push_back(x.shape[0]);
      for (int i = 0; i < y.dims.rank; i++) out.shape.push_back(y.dims.d[i]);
      out.values.resize(static_cast<std::size_t>(x.shape[0] * y.steps() * y.inner() * y.features()));
    }
    to_batch_major(y, out.values.data(), first);
    run.check();
  }
  if (stateful_) states_ = std::move(next);
  return out;
}

Model::Result Model::forward(const Input& x, bool training, const std::uint8_t* mask,
                             const std::vector<Input>* initial_state, const Poll& poll) {
  check_input(x);
  if (x.ids) check_ids(x.ids, elements(x.shape), elements(x.shape) / x.shape[0]);
  std::unique_lock<std::mutex> lock(mutating_, std::defer_lock);
  if (training || stateful_) lock.lock();
  if (stateful_ && x.shape[0] != input_batch_)
    throw std::invalid_argument("x: a stateful layer takes batches of exactly " + std::to_string(input_batch_) +
                                " samples, got " + std::to_string(x.shape[0]));
  const Lease lease(*this);
  const std::shared_ptr<const Packed> weights = packed(false);
  Run run = make_run(*lease.memory, *weights, poll);
  run.training = training;
  run.batch = x.shape[0];
  std::vector<States> next = states_;
  if (stateful_) run.states = run.next_states = &next;
  Tensor input = gather(x, nullptr, 0, x.shape[0], lease.memory->flip[1]);
  if (mask) {
    const std::int64_t steps = x.shape[1];
    auto* time_major = run.masks->allocate<std::uint8_t>(steps * x.shape[0]);
    to_time_major(mask, nullptr, 0, x.shape[0], steps, 1, time_major, 1);
    input.mask = time_major;
  }
  std::vector<Tensor> initial, finals;
  if (initial_state) {
    std::vector<std::int64_t> units;
    for (const Layer::StateShape& shape : layers_.front()->states())
      units.insert(units.end(), shape.has_c ? 2 : 1, shape.units);
    if (initial_state->size() != units.size())
      throw std::invalid_argument("initial_state: expected " + std::to_string(units.size()) + " arrays, got " +
                                  std::to_string(initial_state->size()));
    for (std::size_t i = 0; i < units.size(); i++) {
      const Input& given = (*initial_state)[i];
      if (given.shape != std::vector<std::int64_t>{x.shape[0], units[i]})
        throw std::invalid_argument("initial_state: expected shape " + text({x.shape[0], units[i]}) + ", got " +
                                    text(given.shape));
      Tensor t;
      t.dims.rank = 1;
      t.dims.d[0] = t.ld = units[i];
      t.batch = x.shape[0];
      t.data = const_cast<float*>(given.values);
      initial.push_back(t);
    }
    run.initial_state = &initial;
  }
  run.final_state = &finals;
  const Tensor y = run_layers(input, run, lease.memory, nullptr);
  Result result;
  result.outputs.push_back(to_output(y));
  for (const Tensor& state : finals) result.outputs.push_back(to_output(state));
  if (y.mask) {
    result.mask.emplace(static_cast<std::size_t>(y.steps() * y.batch));
    for (std::int64_t t = 0; t < y.steps(); t++)
      for (std::int64_t b = 0; b < y.batch; b++)
        (*result.mask)[static_cast<std::size_t>(b * y.steps() + t)] = y.mask[t * y.batch + b];
  }
  if (stateful_) states_ = std::move(next);
  if (training) rng_counter++;
  return result;
}

void Model::reset_states(int layer) {
  for (std::size_t i = 0; i < layers_.size(); i++)
    if (layer < 0 || layer == static_cast<int>(i))
      for (int s = 0; s < layers_[i]->state_count(); s++)
        states_[static_cast<std::size_t>(state_at_[i] + s)] = States();
}

std::vector<Output> Model::states(int layer) const {
  std::vector<Output> all;
  const auto at = static_cast<std::size_t>(layer);
  for (int s = 0; s < layers_.at(at)->state_count(); s++) {
    const States& state = states_[static_cast<std::size_t>(state_at_[at] + s)];
    for (const std::vector<float>* half : {&state.h, &state.c}) {
      if (half->empty()) continue;
      const std::int64_t ld = static_cast<std::int64_t>(half->size()) / state.batch;
      Output out{{}, {state.batch, state.units}};
      for (std::int64_t b = 0; b < state.batch; b++)
        out.values.insert(out.values.end(), half->data() + b * ld, half->data() + b * ld + state.units);
      all.push_back(std::move(out));
    }
  }
  return all;
}

void Model::set_states(int layer, const std::vector<Input>& states) {
  const auto at = static_cast<std::size_t>(layer);
  const std::vector<Layer::StateShape> shapes = layers_.at(at)->states();
  std::size_t wanted = 0;
  for (const Layer::StateShape& shape : shapes) wanted += shape.has_c ? 2 : 1;
  if (states.size() != wanted)
    throw std::invalid_argument("states: expected " + std::to_string(wanted) + " arrays, got " +
                                std::to_string(states.size()));
  std::vector<States> fresh(shapes.size());
  std::size_t next = 0;
  for (std::size_t s = 0; s < shapes.size(); s++) {
    fresh[s].batch = input_batch_;
    fresh[s].units = shapes[s].units;
    for (std::vector<float>* half : {&fresh[s].h, &fresh[s].c}) {
      if (half == &fresh[s].c && !shapes[s].has_c) continue;
      const Input& given = states[next++];
      if (given.shape != std::vector<std::int64_t>{input_batch_, shapes[s].units})
        throw std::invalid_argument("states: expected shape " + text({input_batch_, shapes[s].units}) + ", got " +
                                    text(given.shape));
      const std::int64_t ld = pad(shapes[s].units);
      half->assign(static_cast<std::size_t>(input_batch_ * ld), 0.0f);
      for (std::int64_t b = 0; b < input_batch_; b++)
        std::copy_n(given.values + b * shapes[s].units, shapes[s].units, half->data() + b * ld);
    }
  }
  std::move(fresh.begin(), fresh.end(), states_.begin() + state_at_[at]);
}

// ----------------------------------------------------------------------------------------------------------- training

void Model::compile(const std::string& config) {
  const Json json = Json::parse(config);
  std::unique_ptr<Loss> loss;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<Metric> metrics;
  std::size_t weighted_from = 0;
  std::vector<bool> trains(weights_.size(), true);
  for (const char* list : {"metrics", "weighted_metrics"}) {
    weighted_from = metrics.size();
    if (const Json* all = json.find(list); all && !all->is_null())
      for (const Json& entry : all->as_array()) metrics.emplace_back(entry);
  }
  for (const auto& [key, value] : json.as_object()) {
    if (key == "loss") {
      if (!value.is_null()) loss = std::make_unique<Loss>(value);
    } else if (key == "optimizer") {
      if (!value.is_null()) optimizer = std::make_unique<Optimizer>(value);
    } else if (key == "trainable") {
      if (value.as_array().size() != weights_.size())
        throw std::invalid_argument("trainable: expected one flag a weight");
      for (std::size_t i = 0; i < weights_.size(); i++) trains[i] = value.as_array()[i].as_bool();
    } else if (key != "metrics" && key != "weighted_metrics") {
      throw std::invalid_argument("unknown key '" + key + "' in the compile description");
    }
  }
  if (loss && loss->reduction() == Loss::Reduction::none)
    throw std::invalid_argument("loss: reduction 'none' gives no number to train on; use sum_over_batch_size or sum");
  if (optimizer) optimizer->build(size_);
  loss_ = std::move(loss);
  optimizer_ = std::move(optimizer);
  metrics_ = std::move(metrics);
  weighted_from_ = weighted_from;
  trains_ = std::move(trains);
  trainable_.clear();
  for (std::size_t i = 0; i < weights_.size(); i++)
    if (trains_[i]) trainable_.push_back({weights_[i].spec->offset, weights_[i].spec->size()});
  Layer& last = *layers_.back();
  last.expose_logits(loss_ && last.can_expose_logits() && loss_->fuses(last.output_activation()));
  grads_.assign(static_cast<std::size_t>(size_), 0.0f);
  skipped_steps = 0;
  reset_metrics();
}

Optimizer& Model::optimizer() {
  if (!optimizer_) throw std::runtime_error("the model is not compiled with an optimizer: call compile() first");
  return *optimizer_;
}

std::vector<double> Model::metric_results() const {
  std::vector<double> all;
  for (const Metric& metric : metrics_) all.push_back(metric.result());
  return all;
}

void Model::reset_metrics() {
  for (Metric& metric : metrics_) metric.reset();
  loss_total_ = loss_count_ = 0;
}

void Model::check_shapes(const Batch& batch) const {
  check_input(batch.x);
  if (!loss_) throw std::runtime_error("You must call `compile()` with a loss before training or evaluating the model");
  const std::vector<std::int64_t>& y = batch.y.shape;
  if (y.empty() || y[0] != batch.x.shape[0])
    throw std::invalid_argument("x and y must have the same number of samples, got shapes " + text(batch.x.shape) +
                                " and " + text(y));
  const Dims& out = outputs_.back();
  std::vector<std::int64_t> full{batch.x.shape[0]};
  for (int i = 0; i < out.rank; i++) full.push_back(out.d[i] < 0 ? batch.x.shape[1] : out.d[i]);
  std::vector<std::int64_t> flat(full.begin(), full.end() - 1), one = flat;
  one.push_back(1);
  const bool labels = loss_->takes_labels();
  if (labels ? y != flat && y != one : y != full && (full.back() != 1 || y != flat))
    throw std::invalid_argument("y: expected shape " + text(labels || full.back() == 1 ? flat : full) +
                                " for predictions of shape " + text(full) + ", got " + text(y));
  if (batch.sample_weight && batch.weight_shape != std::vector<std::int64_t>{full[0]}) {
    const bool sequence = full.size() > 2;
    if (!sequence || batch.weight_shape != std::vector<std::int64_t>{full[0], full[1]})
      throw std::invalid_argument("sample_weight: expected shape " + text({full[0]}) +
                                  (sequence ? " or " + text({full[0], full[1]}) : "") + ", got " +
                                  text(batch.weight_shape));
  }
}

void Model::check_labels(const Input& y, std::int64_t n, std::int64_t per_sample) const {
  const double classes = static_cast<double>(outputs_.back().features());
  for (std::int64_t i = 0; i < n; i++) {
    const double value = y.values ? static_cast<double>(y.values[i]) : y.ids[i];
    if (value >= 0 && value < classes && value == std::floor(value)) continue;
    throw std::invalid_argument("y: sparse_categorical_crossentropy expects integer labels in [0, " +
                                std::to_string(outputs_.back().features()) + "), got " + std::to_string(value) +
                                " in sample " + std::to_string(i / per_sample));
  }
}

void Model::check_data(const Batch& batch) const {
  if (batch.y.shape.empty()) {
    check_input(batch.x);
  } else {
    check_shapes(batch);
    const std::int64_t n = elements(batch.y.shape), per_sample = n / batch.y.shape[0];
    if (loss_->takes_labels()) check_labels(batch.y, n, per_sample);
    for (std::int64_t i = 0; batch.y.values && i < n; i++)
      if (!std::isfinite(batch.y.values[i]))
        throw std::invalid_argument("y: expected finite numbers, got " + std::to_string(batch.y.values[i]) +
                                    " in sample " + std::to_string(i / per_sample));
    for (std::int64_t i = 0; batch.sample_weight && i < elements(batch.weight_shape); i++)
      if (!std::isfinite(batch.sample_weight[i]))
        throw std::invalid_argument("sample_weight: expected finite numbers, got " +
                                    std::to_string(batch.sample_weight[i]) + " at " + std::to_string(i));
  }
  if (batch.x.ids) check_ids(batch.x.ids, elements(batch.x.shape), elements(batch.x.shape) / batch.x.shape[0]);
}

// The targets of a batch in the order of the predictions' rows, and each row's part in the loss.
struct Model::Prepared {
  Targets y;
  const float* weight;       // the caller's, per row
  const float* scaled;       // times the reduction's scale
  const std::uint8_t* skip;  // masked rows, or null
  double scale;
};

Model::Prepared Model::prepare(const Batch& batch, const Tensor& pred, Run& run) const {
  const std::int64_t count = pred.batch, rows = pred.rows(), n = pred.features(), steps = pred.steps(),
                     inner = pred.inner();
  Prepared p{};
  const std::int64_t* pick = batch.rows;
  const std::int64_t per_row = elements(batch.y.shape) / batch.y.shape[0] / (steps * inner);  // 1, or n
  if (batch.y.ids) {
    auto* labels = run.arena->allocate<std::int32_t>(rows * per_row);
    to_time_major(batch.y.ids, pick, 0, count, steps, inner * per_row, labels, inner * per_row);
    p.y.labels = labels;
  } else {
    float* values = run.arena->floats(rows * per_row);
    to_time_major(batch.y.values, pick, 0, count, steps, inner * per_row, values, inner * per_row);
    p.y.values = values;
    p.y.ld = per_row;
  }
  // Whoever wants the other kind gets it where it means the same.
  if (!p.y.values) {
    float* values = run.arena->floats(rows * per_row);
    for (std::int64_t i = 0; i < rows * per_row; i++) values[i] = static_cast<float>(p.y.labels[i]);
    p.y.values = values;
    p.y.ld = per_row;
  } else if (per_row == 1) {
    auto* labels = run.arena->allocate<std::int32_t>(rows);
    for (std::int64_t i = 0; i < rows; i++)
      labels[i] = static_cast<std::int32_t>(std::clamp(p.y.values[i], -1e9f, 1e9f));
    p.y.labels = labels;
  }
  if (loss_->takes_labels()) {
    Input labels;
    labels.ids = p.y.labels;
    check_labels(labels, rows, steps * inner);
  }
  for (const Metric& metric : metrics_) {
    if (metric.takes_labels() ? p.y.labels == nullptr || per_row != 1 : per_row != n)
      throw std::invalid_argument("metrics: a metric does not fit the shape of y " + text(batch.y.shape) +
                                  " (predictions have " + std::to_string(n) + " columns)");
  }

  if (pred.mask && inner == 1) {
    auto* skip = run.arena->allocate<std::uint8_t>(rows);
    for (std::int64_t r = 0; r < rows; r++) skip[r] = pred.mask[r] == 0;
    p.skip = skip;
  }
  float* weight = run.arena->floats(rows);
  double total = 0;
  std::int64_t valid = 0;
  for (std::int64_t r = 0; r < rows; r++) {
    const std::int64_t t = r / (count * inner), b = r / inner % count;
    const std::int64_t sample = pick ? pick[b] : b;
    weight[r] = !batch.sample_weight             ? 1.0f
                : batch.weight_shape.size() == 1 ? batch.sample_weight[sample]
                                                 : batch.sample_weight[sample * steps + t];
    if (p.skip && p.skip[r]) continue;
    total += static_cast<double>(weight[r]);
    valid++;
  }
  p.weight = weight;
  switch (loss_->reduction()) {
    case Loss::Reduction::mean:
      p.scale = valid == 0 ? 0 : 1.0 / static_cast<double>(valid);
      break;
    case Loss::Reduction::weighted_mean:
      p.scale = total == 0 ? 0 : 1.0 / total;
      break;
    default:
      p.scale = 1;
  }
  float* scaled = run.arena->floats(rows);
  for (std::int64_t r = 0; r < rows; r++) scaled[r] = static_cast<float>(static_cast<double>(weight[r]) * p.scale);
  p.scaled = scaled;
  return p;
}

double Model::add_regularizers(float* grads) const {
  double sum = 0;
  for (std::size_t i = 0; i < weights_.size(); i++) {
    const WeightSpec& spec = *weights_[i].spec;
    if (!spec.regularizer || !trains_[i]) continue;
    const float* w = data_ + spec.offset;
    sum += spec.regularizer.l1 * k_.sum_abs(spec.size(), w) + spec.regularizer.l2 * k_.sum_squares(spec.size(), w);
    if (!grads) continue;
    const auto l1 = static_cast<float>(spec.regularizer.l1), l2 = static_cast<float>(2 * spec.regularizer.l2);
    float* g = grads + spec.offset;
    for (std::int64_t j = 0; j < spec.size(); j++) {
      const float sign = w[j] > 0 ? l1 : w[j] < 0 ? -l1 : 0.0f;
      g[j] = g[j] + (sign + l2 * w[j]);
    }
  }
  return sum;
}

// Forward, loss and, if asked, gradients into grads_. Metrics and states change only after the last point of return.
double Model::evaluate(const Batch& batch, Run& run, bool update_metrics, bool backward) {
  check_shapes(batch);
  const std::int64_t count = batch.rows ? batch.count : batch.x.shape[0];
  if (stateful_ && count != input_batch_)
    throw std::invalid_argument("x: a stateful model takes batches of exactly " + std::to_string(input_batch_) +
                                " samples, got " + std::to_string(count));
  std::vector<States> next = states_;
  if (stateful_) {
    run.states = &states_;
    run.next_states = &next;
  }
  run.batch = count;
  std::vector<void*> caches;
  const Tensor x = gather(batch.x, batch.rows, 0, count, *run.arena);
  if (x.ids)
    check_ids(x.ids, elements(batch.x.shape) / batch.x.shape[0] * count, elements(batch.x.shape) / batch.x.shape[0]);
  const Tensor pred = run_layers(x, run, nullptr, &caches);
  const Prepared p = prepare(batch, pred, run);
  const Layer& last = *layers_.back();
  const bool fused = last.can_expose_logits() && loss_->fuses(last.output_activation());
  const Tensor scores = fused ? last.logits(caches.back()) : pred;
  float* each = run.arena->floats(pred.rows());
  Tensor dy;
  if (backward) {
    dy = make_zeros(run, pred, pred.features());
    dy.mask = p.skip ? pred.mask : nullptr;
  }
  loss_->rows(scores, p.y, p.scaled, p.skip, fused || loss_->from_logits(), each, backward ? &dy : nullptr, run);
  double loss = 0;
  for (std::int64_t r = 0; r < pred.rows(); r++)
    if (!p.skip || !p.skip[r]) loss += static_cast<double>(p.weight[r]) * static_cast<double>(each[r]);
  loss *= p.scale;
  if (backward) {
    run.grads = grads_.data();
    std::size_t lowest = layers_.size();
    for (std::size_t i = weights_.size(); i-- > 0;)
      if (trains_[i]) lowest = static_cast<std::size_t>(weights_[i].layer);
    for (std::size_t i = layers_.size(); i-- > lowest;) dy = layers_[i]->backward(dy, caches[i], run, i > lowest);
  }
  loss += run.penalty + add_regularizers(backward ? grads_.data() : nullptr);
  run.check();
  run.poll = nullptr;
  if (update_metrics) {
    for (std::size_t i = 0; i < metrics_.size(); i++)
      metrics_[i].update(pred, p.y, i >= weighted_from_ ? p.weight : nullptr, p.skip, run);
    loss_total_ += loss * static_cast<double>(count);
    loss_count_ += static_cast<double>(count);
  }
  if (stateful_ && update_metrics) states_ = std::move(next);
  return loss;
}

namespace {

std::unique_lock<std::mutex> exclusive(std::mutex& m) {
  std::unique_lock<std::mutex> lock(m, std::try_to_lock);
  if (!lock) throw std::runtime_error("another thread is training this model");
  return lock;
}

}  // namespace

double Model::train_on_batch(const Batch& batch, const Poll& poll) {
  const auto lock = exclusive(mutating_);
  Optimizer& opt = optimizer();
  const Lease lease(*this);
  const std::shared_ptr<const Packed> weights = packed(true);
  Run run = make_run(*lease.memory, *weights, poll);
  run.training = run.keep = true;
  const double loss = evaluate(batch, run, true, true);
  if (opt.apply(data_, grads_.data(), trainable_, run)) {
    constrain();
    changed();
  } else {
    skipped_steps++;
  }
  rng_counter++;
  return loss;
}

double Model::test_on_batch(const Batch& batch, const Poll& poll) {
  const auto lock = exclusive(mutating_);
  const Lease lease(*this);
  const std::shared_ptr<const Packed> weights = packed(false);
  Run run = make_run(*lease.memory, *weights, poll);
  return evaluate(batch, run, true, false);
}

double Model::gradients(const Batch& batch, std::vector<std::vector<float>>* out, const Poll& poll) {
  const auto lock = exclusive(mutating_);
  const Lease lease(*this);
  const std::shared_ptr<const Packed> weights = packed(true);
  Run run = make_run(*lease.memory, *weights, poll);
  run.keep = true;
  const double loss = evaluate(batch, run, false, true);
  for (std::size_t i = 0; i < weights_.size(); i++) {
    const WeightSpec& spec = *weights_[i].spec;
    if (trains_[i])
      out->emplace_back(grads_.data() + spec.offset, grads_.data() + spec.offset + spec.size());
    else
      out->emplace_back(static_cast<std::size_t>(spec.size()), 0.0f);
  }
  return loss;
}

void Model::constrain() {
  for (std::size_t i = 0; i < weights_.size(); i++)
    if (trains_[i])
      seqcore::constrain(weights_[i].spec->constraint, weights_[i].spec->shape, data_ + weights_[i].spec->offset);
}

std::vector<std::pair<std::string, Output>> Model::optimizer_variables() {
  std::vector<std::pair<std::string, Output>> all;
  for (auto& [name, slot] : optimizer().slots())
    for (std::size_t i = 0; i < weights_.size(); i++) {
      const WeightSpec& spec = *weights_[i].spec;
      if (!trains_[i]) continue;
      all.emplace_back(
          name + "/" + std::to_string(i),
          Output{Floats(slot->data() + spec.offset, slot->data() + spec.offset + spec.size()), spec.shape});
    }
  return all;
}

void Model::set_optimizer_variables(const std::vector<std::pair<std::string, Input>>& values) {
  std::vector<std::pair<float*, const Input*>> writes;
  for (const auto& [name, value] : values) {
    float* to = nullptr;
    for (auto& [slot_name, slot] : optimizer().slots())
      for (std::size_t i = 0; i < weights_.size(); i++)
        if (trains_[i] && name == slot_name + "/" + std::to_string(i)) {
          if (value.shape != weights_[i].spec->shape)
            throw std::invalid_argument("optimizer variable '" + name + "': expected shape " +
                                        text(weights_[i].spec->shape) + ", got " + text(value.shape));
          to = slot->data() + weights_[i].spec->offset;
        }
    if (!to) throw std::invalid_argument("unknown optimizer variable '" + name + "'");
    writes.emplace_back(to, &value);
  }
  for (const auto& [to, value] : writes) {
    std::copy_n(value->values, elements(value->shape), to);
  }
}

void Model::finalize_ema() {
  optimizer().finalize_ema(data_, trainable_);
  changed();
}

}  // namespace seqcore
