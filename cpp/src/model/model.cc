#include "model/model.h"

#include <algorithm>
#include <cmath>

#include "base/fork.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "model/constraints.h"
#include "model/initializers.h"
#include "model/penalties.h"

namespace seqcore {

namespace {

// For calls that change the model: one at a time.
std::unique_lock<std::mutex> exclusive(std::mutex& m) {
  std::unique_lock<std::mutex> lock(m, std::try_to_lock);
  if (!lock) throw std::runtime_error("another thread is training this model");
  return lock;
}

}  // namespace

// -------------------------------------------------------------------------------------------------------------- build

Model::Model(const std::string& description, std::uint64_t model_seed)
    : seed(model_seed), network_(std::make_shared<const Network>(Json::parse(description))) {
  states_.resize(static_cast<std::size_t>(network_->state_slots()));
  data_ = weight_memory_.zeros(network_->size());
  for (const Network::Weight& w : weights()) trains_.push_back(!w.spec->statistic);
  for (std::size_t i = 0; i < weights().size(); i++)
    initial_weight(static_cast<int>(i), data_ + weights()[i].spec->offset);
}

std::vector<std::vector<std::int64_t>> Model::output_shapes() const {
  std::vector<std::vector<std::int64_t>> all;
  for (const Dims& dims : network_->outputs()) {
    std::vector<std::int64_t> shape{network_->input_batch()};
    shape.insert(shape.end(), dims.d, dims.d + dims.rank);
    all.push_back(shape);
  }
  return all;
}

void Model::initial_weight(int index, float* out) const {
  const WeightSpec& spec = *weights().at(static_cast<std::size_t>(index)).spec;
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
  const WeightSpec& spec = *weights().at(static_cast<std::size_t>(index)).spec;
  std::copy_n(data_ + spec.offset, spec.size(), out);
}

void Model::set_weight(int index, const float* value) {
  const auto lock = exclusive(mutating_);
  const WeightSpec& spec = *weights().at(static_cast<std::size_t>(index)).spec;
  std::copy_n(value, spec.size(), data_ + spec.offset);
  changed();
}

void Model::changed() { version_.fetch_add(1); }

Model::Packed Model::packed(Precision precision, bool backward) const {
  const ForkGate gate;
  const std::lock_guard<std::mutex> lock(packing_);
  const std::uint64_t version = version_.load();
  for (std::shared_ptr<PackedWeights>* reduced : {&packed_[1], &packed_[2]})  // what few ask for is not kept for long
    if (*reduced && (*reduced)->version != version) reduced->reset();
  const auto current = [&](Copy copy) -> std::shared_ptr<const PackedWeights> {
    std::shared_ptr<PackedWeights>& kept = packed_[static_cast<int>(copy)];
    if (kept && kept->version == version) return kept;
    // Nobody else holds it: write over it. Else leave theirs alone.
    if (!kept || kept.use_count() > 1) kept = std::make_shared<PackedWeights>();
    kept->version = 0;
    network_->pack(data_, copy, num_threads(), kept.get());
    kept->version = version;
    return kept;
  };
  Packed packed;
  packed.forward = current(forward_copy(precision));
  packed.weights = {data_, packed.forward->data, nullptr, precision};
  if (backward) {
    packed.backward = current(Copy::backward);
    packed.weights.packed_backward = packed.backward->data;
  }
  return packed;
}

std::shared_ptr<const Snapshot> Model::snapshot() const {
  const ForkGate gate;
  const std::lock_guard<std::mutex> lock(packing_);
  const std::uint64_t version = version_.load();
  std::shared_ptr<const Snapshot> shared = snapshot_.lock();
  if (!shared || snapshot_version_ != version) {
    Arena memory;
    float* data = memory.floats(network_->size());
    std::copy_n(data_, network_->size(), data);
    shared = std::make_shared<const Snapshot>(network_, std::move(memory), data);
    snapshot_ = shared;
    snapshot_version_ = version;
  }
  return shared;
}

// ------------------------------------------------------------------------------------------------------------ running

Run Model::make_run(const Network::Lease& lease, const Packed& packed, const Poll& poll) const {
  Run run = network_->make_run(lease.memory(), packed.weights, threads_now(), poll);
  run.seed = seed;
  run.counter = rng_counter;
  return run;
}

Output Model::predict(const Input& x, std::int64_t batch_size, Precision precision, const Poll& poll) const {
  network_->check_batches(x, batch_size);
  std::unique_lock<std::mutex> lock;
  std::vector<States> next;
  const std::int64_t fixed = network_->input_batch();
  if (network_->stateful()) {
    lock = std::unique_lock<std::mutex>(mutating_);
    if (x.shape[0] % fixed != 0)
      throw std::invalid_argument("x: a stateful model takes batches of exactly " + std::to_string(fixed) +
                                  " samples, got " + std::to_string(x.shape[0]));
    batch_size = fixed;
    next = states_;
  }
  const Packed packed = this->packed(precision, false);
  Output out = network_->predict(x, batch_size, packed.weights, network_->stateful() ? &next : nullptr, poll);
  if (network_->stateful()) states_ = std::move(next);
  return out;
}

namespace {

Model::Result result_of(const Tensor& y, Run& run) {
  Model::Result result;
  result.outputs.push_back(to_output(y, run));
  if (y.mask) {
    result.mask.emplace(static_cast<std::size_t>(y.steps() * y.batch));
    for (std::int64_t t = 0; t < y.steps(); t++)
      for (std::int64_t b = 0; b < y.batch; b++)
        (*result.mask)[static_cast<std::size_t>(b * y.steps() + t)] = y.mask[t * y.batch + b];
  }
  return result;
}

// A layer's states where they lie: of each cell h, then c if it has one.
std::vector<Tensor> state_tensors(const std::vector<Input>& given, const std::vector<Layer::StateShape>& shapes,
                                  std::int64_t batch) {
  std::vector<std::int64_t> units;
  for (const Layer::StateShape& shape : shapes) units.insert(units.end(), shape.has_c ? 2 : 1, shape.units);
  if (given.size() != units.size())
    throw std::invalid_argument("initial_state: expected " + std::to_string(units.size()) + " arrays, got " +
                                std::to_string(given.size()));
  std::vector<Tensor> tensors(units.size());
  for (std::size_t i = 0; i < units.size(); i++) {
    if (given[i].shape != std::vector<std::int64_t>{batch, units[i]})
      throw std::invalid_argument("initial_state: expected shape " + text({batch, units[i]}) + ", got " +
                                  text(given[i].shape));
    tensors[i].dims.rank = 1;
    tensors[i].dims.d[0] = tensors[i].ld = units[i];
    tensors[i].batch = batch;
    tensors[i].data = const_cast<float*>(given[i].values);
  }
  return tensors;
}

}  // namespace

Model::Result Model::forward(const Input& x, bool training, const std::uint8_t* mask,
                             const std::vector<Input>* initial_state, const std::vector<bool>& trainable,
                             const Poll& poll) {
  if (!trainable.empty() && trainable.size() != weights().size())
    throw std::invalid_argument("trainable: expected one flag a weight");
  network_->check_input(x);
  if (x.ids) network_->check_ids(x.ids, elements(x.shape), elements(x.shape) / x.shape[0]);
  std::unique_lock<std::mutex> lock(mutating_, std::defer_lock);
  if (training || network_->stateful()) lock.lock();
  if (network_->stateful() && x.shape[0] != network_->input_batch())
    throw std::invalid_argument("x: a stateful layer takes batches of exactly " +
                                std::to_string(network_->input_batch()) + " samples, got " +
                                std::to_string(x.shape[0]));
  const Network::Lease lease(*network_);
  const Packed copies = packed(Precision::float32, false);
  Run run = make_run(lease, copies, poll);
  run.training = training;
  std::vector<Moving> moving = this->moving(trainable);
  if (training) run.moving = &moving;
  run.batch = x.shape[0];
  std::vector<States> next = states_;
  if (network_->stateful()) run.states = run.next_states = &next;
  Tensor input = network_->gather(x, nullptr, 0, x.shape[0], lease.memory().flip[1], run);
  if (mask) {
    const std::int64_t steps = x.shape[1];
    auto* time_major = run.masks->allocate<std::uint8_t>(steps * x.shape[0]);
    to_time_major(mask, nullptr, 0, x.shape[0], steps, 1, time_major, run);
    input.mask = time_major;
  }
  std::vector<Tensor> initial, finals;
  if (initial_state) {
    initial = state_tensors(*initial_state, network_->layers().front()->states(), x.shape[0]);
    run.initial_state = &initial;
  }
  run.final_state = &finals;
  const Tensor y = network_->run_layers(input, run, &lease.memory(), nullptr);
  Result result = result_of(y, run);
  for (const Tensor& state : finals) result.outputs.push_back(to_output(state, run));
  if (network_->stateful()) states_ = std::move(next);
  if (!training) return result;
  move(moving);
  rng_counter++;
  return result;
}

void Model::reset_states(int layer) {
  const auto lock = exclusive(mutating_);
  for (std::size_t i = 0; i < network_->layers().size(); i++)
    if (layer < 0 || layer == static_cast<int>(i))
      for (std::size_t s = 0; s < network_->layers()[i]->states().size(); s++)
        states_[static_cast<std::size_t>(network_->state_at(static_cast<int>(i))) + s] = States();
}

std::vector<Output> Model::states(int layer) const {
  std::vector<Output> all;
  const auto at = static_cast<std::size_t>(layer);
  for (std::size_t s = 0; s < network_->layers().at(at)->states().size(); s++) {
    const States& state = states_[static_cast<std::size_t>(network_->state_at(layer)) + s];
    for (const Floats* half : {&state.h, &state.c}) {
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
  const std::vector<Layer::StateShape> shapes = network_->layers().at(at)->states();
  std::size_t wanted = 0;
  for (const Layer::StateShape& shape : shapes) wanted += shape.has_c ? 2 : 1;
  if (states.size() != wanted)
    throw std::invalid_argument("states: expected " + std::to_string(wanted) + " arrays, got " +
                                std::to_string(states.size()));
  std::vector<States> fresh(shapes.size());
  std::size_t next = 0;
  for (std::size_t s = 0; s < shapes.size(); s++) {
    fresh[s].batch = network_->input_batch();
    fresh[s].units = shapes[s].units;
    for (Floats* half : {&fresh[s].h, &fresh[s].c}) {
      if (half == &fresh[s].c && !shapes[s].has_c) continue;
      const Input& given = states[next++];
      if (given.shape != std::vector<std::int64_t>{network_->input_batch(), shapes[s].units})
        throw std::invalid_argument("states: expected shape " + text({network_->input_batch(), shapes[s].units}) +
                                    ", got " + text(given.shape));
      const std::int64_t ld = pad(shapes[s].units);
      half->assign(static_cast<std::size_t>(network_->input_batch() * ld), 0.0f);
      for (std::int64_t b = 0; b < network_->input_batch(); b++)
        std::copy_n(given.values + b * shapes[s].units, shapes[s].units, half->data() + b * ld);
    }
  }
  const auto lock = exclusive(mutating_);
  std::move(fresh.begin(), fresh.end(), states_.begin() + network_->state_at(layer));
}

// ----------------------------------------------------------------------------------------------------------- training

void Model::compile(const std::string& config) {
  const Json json = Json::parse(config);
  std::unique_ptr<Loss> loss;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<Metric> metrics;
  std::size_t weighted_from = 0;
  std::vector<bool> trains(weights().size(), true), decays = trains;
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
    } else if (key == "trainable" || key == "weight_decay") {
      if (value.as_array().size() != weights().size())
        throw std::invalid_argument(key + ": expected one flag a weight");
      std::vector<bool>& flags = key == "trainable" ? trains : decays;
      for (std::size_t i = 0; i < weights().size(); i++) flags[i] = value.as_array()[i].as_bool();
    } else if (key != "metrics" && key != "weighted_metrics") {
      throw std::invalid_argument("unknown key '" + key + "' in the compile description");
    }
  }
  if (loss && loss->reduction() == Loss::Reduction::none)
    throw std::invalid_argument("loss: reduction 'none' gives no number to train on; use sum_over_batch_size or sum");
  if (optimizer) optimizer->build(network_->size());
  const auto lock = exclusive(mutating_);
  loss_ = std::move(loss);
  optimizer_ = std::move(optimizer);
  metrics_ = std::move(metrics);
  weighted_from_ = weighted_from;
  moving_ = moving(trains);
  for (std::size_t i = 0; i < weights().size(); i++) trains[i] = trains[i] && !weights()[i].spec->statistic;
  trains_ = std::move(trains);
  trainable_.clear();
  for (std::size_t i = 0; i < weights().size(); i++)
    if (trains_[i]) trainable_.push_back({weights()[i].spec->offset, weights()[i].spec->size(), decays[i]});
  grads_.assign(static_cast<std::size_t>(network_->size()), 0.0f);
  skipped_steps = 0;
  loss_total_ = loss_count_ = 0;
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
  const auto lock = exclusive(mutating_);
  for (Metric& metric : metrics_) metric.reset();
  loss_total_ = loss_count_ = 0;
}

void Model::check_shapes(const Batch& batch) const {
  network_->check_input(batch.x);
  if (!loss_) throw std::runtime_error("You must call `compile()` with a loss before training or evaluating the model");
  const std::vector<std::int64_t>& y = batch.y.shape;
  if (y.empty() || y[0] != batch.x.shape[0])
    throw std::invalid_argument("x and y must have the same number of samples, got shapes " + text(batch.x.shape) +
                                " and " + text(y));
  const std::vector<std::int64_t> full = network_->output_shape(batch.x.shape);
  std::vector<std::int64_t> flat(full.begin(), full.end() - 1), one = flat;
  one.push_back(1);
  loss_->check_classes(full.back());
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
  const auto check = [&](const Loss* loss) {
    if (!loss || !loss->takes_labels()) return;
    for (std::int64_t i = 0; i < n; i++)
      loss->check_label(y.values ? static_cast<double>(y.values[i]) : y.ids[i], network_->output().features(),
                        i / per_sample);
  };
  check(loss_.get());
  for (const Metric& metric : metrics_) check(metric.loss());
}

void Model::check_data(const Batch& batch) const {
  if (batch.y.shape.empty()) {
    network_->check_input(batch.x);
  } else {
    check_shapes(batch);
    const std::int64_t n = elements(batch.y.shape), per_sample = n / batch.y.shape[0];
    check_labels(batch.y, n, per_sample);
    for (std::int64_t i = 0; batch.y.values && i < n; i++)
      if (!std::isfinite(batch.y.values[i]))
        throw std::invalid_argument("y: expected finite numbers, got " + std::to_string(batch.y.values[i]) +
                                    " in sample " + std::to_string(i / per_sample));
    for (std::int64_t i = 0; batch.sample_weight && i < elements(batch.weight_shape); i++)
      if (!std::isfinite(batch.sample_weight[i]))
        throw std::invalid_argument("sample_weight: expected finite numbers, got " +
                                    std::to_string(batch.sample_weight[i]) + " at " + std::to_string(i));
  }
  if (batch.x.ids)
    network_->check_ids(batch.x.ids, elements(batch.x.shape), elements(batch.x.shape) / batch.x.shape[0]);
}

// The targets of a batch in the order of the predictions' rows, and each row's part in the loss.
struct Model::Prepared {
  Targets y;
  const float* weight;         // the caller's, per row
  const float* scaled;         // times the reduction's scale
  const std::uint8_t* masked;  // rows that a mask leaves out, or null
  const std::uint8_t* skip;    // those and what the loss ignores, or null
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
    to_time_major(batch.y.ids, pick, 0, count, steps, inner * per_row, labels, run);
    p.y.labels = labels;
  } else {
    float* values = run.arena->floats(rows * per_row);
    to_time_major(batch.y.values, pick, 0, count, steps, inner * per_row, values, run);
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
  for (const Metric& metric : metrics_) {
    if (metric.takes_labels() ? p.y.labels == nullptr || per_row != 1 : per_row != n)
      throw std::invalid_argument("metrics: a metric does not fit the shape of y " + text(batch.y.shape) +
                                  " (predictions have " + std::to_string(n) + " columns)");
  }
  Input labels;
  labels.ids = p.y.labels;
  if (labels.ids) check_labels(labels, rows, steps * inner);

  if (pred.mask && inner == 1) {
    auto* skip = run.arena->allocate<std::uint8_t>(rows);
    for (std::int64_t r = 0; r < rows; r++) skip[r] = pred.mask[r] == 0;
    p.masked = p.skip = skip;
  }
  if (loss_->ignores()) {
    auto* skip = run.arena->allocate<std::uint8_t>(rows);
    loss_->skip_ignored(p.y.labels, p.masked, rows, skip);
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

double Model::add_regularizers(float* grads, const Run& run) const {
  double sum = 0;
  for (std::size_t i = 0; i < weights().size(); i++) {
    const WeightSpec& spec = *weights()[i].spec;
    if (!spec.regularizer || !trains_[i]) continue;
    sum += penalize(spec.regularizer, spec.shape, data_ + spec.offset, grads ? grads + spec.offset : nullptr, run);
  }
  return sum;
}

// Forward, loss and, if asked, gradients into grads_. Metrics and states change only after the last point of return.
double Model::evaluate(const Batch& batch, Run& run, bool update_metrics, bool backward, Result* seen) {
  check_shapes(batch);
  const std::int64_t count = batch.rows ? batch.count : batch.x.shape[0];
  if (network_->stateful() && count != network_->input_batch())
    throw std::invalid_argument("x: a stateful model takes batches of exactly " +
                                std::to_string(network_->input_batch()) + " samples, got " + std::to_string(count));
  std::vector<States> next = states_;
  if (network_->stateful()) {
    run.states = &states_;
    run.next_states = &next;
  }
  run.batch = count;
  const Layer& last = *network_->layers().back();
  const bool fused = last.logits_source() && loss_->fuses(last.output_activation());
  if (fused) run.logits_of = last.logits_source();
  std::vector<void*> caches;
  const Tensor x = network_->gather(batch.x, batch.rows, 0, count, *run.arena, run);
  if (x.ids)
    network_->check_ids(x.ids, elements(batch.x.shape) / batch.x.shape[0] * count,
                        elements(batch.x.shape) / batch.x.shape[0]);
  const Tensor pred = network_->run_layers(x, run, nullptr, &caches);
  const Prepared p = prepare(batch, pred, run);
  const Tensor scores = fused ? last.logits(caches.back()) : pred;
  float* each = run.arena->floats(pred.rows());
  Tensor dy;
  if (backward) {
    dy = make_zeros(run, pred, pred.features());
    dy.mask = p.masked ? pred.mask : nullptr;
  }
  // Now what is made of pred: backward uses its memory.
  if (seen) *seen = result_of(pred, run);
  std::vector<Metric::Value> counted;
  for (std::size_t i = 0; update_metrics && i < metrics_.size(); i++)
    counted.push_back(
        metrics_[i].with(pred, p.y, i >= weighted_from_ && batch.sample_weight ? p.weight : nullptr, p.masked, run));
  loss_->rows(scores, p.y, p.scaled, p.skip, fused || loss_->from_logits(), each, backward ? &dy : nullptr, run);
  double loss = 0;
  for (std::int64_t r = 0; r < pred.rows(); r++)
    if (!p.skip || !p.skip[r]) loss += static_cast<double>(p.weight[r]) * static_cast<double>(each[r]);
  loss *= p.scale;
  if (backward) {
    run.grads = grads_.data();
    std::size_t lowest = network_->layers().size();
    for (std::size_t i = weights().size(); i-- > 0;)
      if (trains_[i]) lowest = static_cast<std::size_t>(weights()[i].layer);
    for (std::size_t i = network_->layers().size(); i-- > lowest;)
      dy = network_->layers()[i]->backward(dy, caches[i], run, i > lowest);
  }
  loss += run.penalty + add_regularizers(backward ? grads_.data() : nullptr, run);
  run.check();
  run.poll = nullptr;
  if (update_metrics) {
    for (std::size_t i = 0; i < metrics_.size(); i++) metrics_[i].restore(counted[i]);
    loss_total_ += loss * static_cast<double>(count);
    loss_count_ += static_cast<double>(count);
  }
  if (network_->stateful() && update_metrics) states_ = std::move(next);
  return loss;
}

namespace {

bool finite(const std::vector<Moving>& moving) {
  for (const Moving& m : moving)
    for (std::int64_t i = 0; m.value && i < m.spec->size(); i++)
      if (!std::isfinite(m.value[i])) return false;
  return true;
}

}  // namespace

double Model::train_on_batch(const Batch& batch, const Poll& poll, Result* seen) {
  const auto lock = exclusive(mutating_);
  Optimizer& opt = optimizer();
  const Network::Lease lease(*network_);
  const Packed copies = packed(Precision::float32, true);
  Run run = make_run(lease, copies, poll);
  run.training = run.keep = true;
  std::vector<Moving> moving = moving_;
  run.moving = &moving;
  const double loss = evaluate(batch, run, true, true, seen);
  if (finite(moving) && opt.apply(data_, grads_.data(), trainable_, run)) {
    move(moving);
    constrain();
    changed();
  } else {
    skipped_steps++;
  }
  rng_counter++;
  return loss;
}

double Model::test_on_batch(const Batch& batch, const Poll& poll, Result* seen) {
  const auto lock = exclusive(mutating_);
  const Network::Lease lease(*network_);
  const Packed copies = packed(Precision::float32, false);
  Run run = make_run(lease, copies, poll);
  return evaluate(batch, run, true, false, seen);
}

double Model::gradients(const Batch& batch, std::vector<std::vector<float>>* out, const Poll& poll) {
  const auto lock = exclusive(mutating_);
  const Network::Lease lease(*network_);
  const Packed copies = packed(Precision::float32, true);
  Run run = make_run(lease, copies, poll);
  run.keep = true;
  const double loss = evaluate(batch, run, false, true, nullptr);
  for (std::size_t i = 0; i < weights().size(); i++) {
    const WeightSpec& spec = *weights()[i].spec;
    if (trains_[i])
      out->emplace_back(grads_.data() + spec.offset, grads_.data() + spec.offset + spec.size());
    else
      out->emplace_back(static_cast<std::size_t>(spec.size()), 0.0f);
  }
  return loss;
}

std::vector<Moving> Model::moving(const std::vector<bool>& trainable) const {
  std::vector<Moving> all;
  for (std::size_t i = 0; i < weights().size(); i++)
    if (weights()[i].spec->statistic && (trainable.empty() || trainable[i])) all.push_back({weights()[i].spec});
  return all;
}

void Model::move(const std::vector<Moving>& moving) {
  for (const Moving& m : moving)
    if (m.value) std::copy_n(m.value, m.spec->size(), data_ + m.spec->offset);
  if (!moving.empty()) changed();
}

void Model::constrain() {
  for (std::size_t i = 0; i < weights().size(); i++)
    if (trains_[i])
      seqcore::constrain(weights()[i].spec->constraint, weights()[i].spec->shape, data_ + weights()[i].spec->offset);
}

namespace {
constexpr const char* kProduct = "u_product";  // Keras's word for Nadam's one number
}

std::vector<std::pair<std::string, Output>> Model::optimizer_variables() {
  std::vector<std::pair<std::string, Output>> all;
  for (auto& [name, slot] : optimizer().slots())
    for (std::size_t i = 0; i < weights().size(); i++) {
      const WeightSpec& spec = *weights()[i].spec;
      if (!trains_[i]) continue;
      all.emplace_back(
          name + "/" + std::to_string(i),
          Output{Floats(slot->data() + spec.offset, slot->data() + spec.offset + spec.size()), spec.shape});
    }
  if (const float* product = optimizer().momentum_product()) all.emplace_back(kProduct, Output{{*product}, {}});
  return all;
}

void Model::set_optimizer_variables(const std::vector<std::pair<std::string, Input>>& values) {
  const auto lock = exclusive(mutating_);
  std::vector<std::pair<float*, const Input*>> writes;
  for (const auto& [name, value] : values) {
    float* to = name == kProduct ? optimizer().momentum_product() : nullptr;
    if (to && !value.shape.empty())
      throw std::invalid_argument("optimizer variable '" + name + "': expected a scalar, got shape " +
                                  text(value.shape));
    for (auto& [slot_name, slot] : optimizer().slots())
      for (std::size_t i = 0; i < weights().size(); i++)
        if (trains_[i] && name == slot_name + "/" + std::to_string(i)) {
          if (value.shape != weights()[i].spec->shape)
            throw std::invalid_argument("optimizer variable '" + name + "': expected shape " +
                                        text(weights()[i].spec->shape) + ", got " + text(value.shape));
          to = slot->data() + weights()[i].spec->offset;
        }
    if (!to) throw std::invalid_argument("unknown optimizer variable '" + name + "'");
    writes.emplace_back(to, &value);
  }
  for (const auto& [to, value] : writes) {
    std::copy_n(value->values, elements(value->shape), to);
  }
}

void Model::finalize_ema() {
  const auto lock = exclusive(mutating_);
  optimizer().finalize_ema(data_, trainable_);
  changed();
}

}  // namespace seqcore
