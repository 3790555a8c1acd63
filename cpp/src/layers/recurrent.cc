#include "layers/recurrent.h"

#include <cstring>

#include "base/meeting.h"
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

Recurrent::Recurrent(Config c, const OverTime* of_cell) : RecurrentLayer(of_cell ? *of_cell : OverTime(c)) {
  units_ = c.positive("units");
  activation_ = c.activation("activation", "tanh");
  const bool gru = c.class_name().rfind("GRU", 0) == 0;
  kind_ = cell_kind(c.class_name(), gru && c.boolean("reset_after", true));
  if (kind_ != CellKind::simple_rnn) recurrent_activation_ = c.activation("recurrent_activation", "sigmoid");
  use_bias_ = c.boolean("use_bias", true);
  kernel_spec_ = c.weight("kernel", "GlorotUniform");
  recurrent_spec_ = c.weight("recurrent_kernel", "Orthogonal", "recurrent");
  bias_spec_ = c.weight("bias", "Zeros");
  if (kind_ == CellKind::lstm && c.boolean("unit_forget_bias", true))
    bias_spec_.initializer =
        Json(Json::Object{{"class_name", Json("UnitForgetBias")},
                          {"config", Json(Json::Object{{"bias_initializer", bias_spec_.initializer}})}});
  if (!of_cell) activity = c.penalty("activity_regularizer");
  dropout_ = c.rate("dropout");
  recurrent_dropout_ = c.rate("recurrent_dropout");
  seed_ = c.seed();
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

// A team's parts take groups of units, where units need each other only from step to step; else the first takes all.
class Recurrent::RecurrentStep final : public Step {
 public:
  RecurrentStep(const Recurrent& layer, const StepPlace& at)
      : k_(at.k),
        bytes_(static_cast<std::size_t>(pad(layer.units_)) * sizeof(float)),
        state_(at.states[static_cast<std::size_t>(layer.state_at_)]),
        y_(static_cast<std::size_t>(pad(layer.units_)), 0.0f),
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
    float *h = state_.h.data(), *c = state_.c.data(), *y = y_.data();
    if (!call.masked && call.parts == 1) {
      k_.step(plans_[0], call.x, h, y, c, call.backwards);
      state_.h.swap(y_);
    } else if (call.masked) {
      call.one_part([&] {
        if (zero_output_for_mask_)
          std::memset(y, 0, bytes_);
        else
          std::memcpy(y, h, bytes_);
      });
    } else {
      if (shared_)
        k_.step(plans_[static_cast<std::size_t>(call.part) + 1], call.x, h, y, c, call.backwards);
      else
        call.one_part([&] { k_.step(plans_[0], call.x, h, y, c, call.backwards); });
      if (call.part == 0) std::memcpy(h, y, bytes_);  // nobody reads h any more in this step
    }
    call.x = y;
  }

 private:
  const Kernels& k_;
  std::size_t bytes_;
  States& state_;
  Floats y_;  // h takes turns with it, but for a team's parts, who would see that too early or too late
  bool zero_output_for_mask_, shared_;
  std::vector<float*> plans_;
};

std::unique_ptr<Step> Recurrent::make_step(const StepPlace& at) const {
  return std::make_unique<RecurrentStep>(*this, at);
}

}  // namespace seqcore
