// Embedding: rows of a table by integer index. With mask_zero, index 0 is padding.
#include <cstring>

#include "layers/config.h"
#include "layers/factories.h"
#include "layers/products.h"
#include "layers/step.h"

namespace seqcore {

namespace {

class Embedding final : public Layer {
 public:
  explicit Embedding(const Json& description) {
    Config c(description);
    input_dim_ = c.positive("input_dim");
    output_dim_ = c.positive("output_dim");
    mask_zero_ = c.boolean("mask_zero", false);
    spec_ = c.weight("embeddings", "RandomUniform");
    spec_.shape = {input_dim_, output_dim_};
    activity = c.penalty("activity_regularizer");
    c.ignore({"input_length"});
    c.done();
  }

  bool takes_ids() const override { return true; }
  std::int64_t vocabulary() const override { return input_dim_; }

  Dims build(const Dims& input) override {
    if (input.rank + 1 > Dims::kMaxRank) throw std::invalid_argument("Embedding: input of too many dimensions");
    if (mask_zero_ && input.rank != 1)
      throw std::invalid_argument("Embedding: mask_zero needs input of shape (batch, steps), got " + to_string(input));
    add_weight(spec_);
    Dims out = input;
    out.d[out.rank++] = output_dim_;
    return out;
  }

  std::unique_ptr<Step> make_step(const StepPlace& at) const override;

 private:
  class EmbeddingStep;
  struct Cache {
    const std::int32_t* ids;
  };

  Tensor do_forward(const Tensor& x, Run& run, void** cache) const override {
    Dims dims = x.dims;
    dims.d[dims.rank++] = output_dim_;
    Tensor y = make_tensor(run, dims, x.batch);
    y.mask = x.mask;
    const std::int64_t rows = y.rows();
    const float* table = weight(run.weights, 0);
    run.rows(rows, static_cast<double>(output_dim_), 1, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t r = from; r < to; r++)
        std::memcpy(y.data + r * y.ld, table + x.ids[r] * output_dim_,
                    static_cast<std::size_t>(output_dim_) * sizeof(float));
    });
    if (mask_zero_) {
      auto* mask = run.masks->allocate<std::uint8_t>(rows);
      for (std::int64_t r = 0; r < rows; r++) mask[r] = x.ids[r] != 0;
      y.mask = mask;
    }
    auto* c = run.arena->allocate<Cache>(1);
    c->ids = x.ids;
    *cache = c;
    return y;
  }

  // Rows are added in order whatever the threads: each worker owns a stretch of columns.
  Tensor do_backward(const Tensor& dy, void* cache, Run& run, bool) const override {
    const std::int32_t* ids = static_cast<const Cache*>(cache)->ids;
    float* grad = weight(run.grads, 0);
    std::memset(grad, 0, static_cast<std::size_t>(input_dim_ * output_dim_) * sizeof(float));
    const RowList rows = valid_rows(run, dy);
    run.rows(output_dim_, static_cast<double>(rows.n), kPad, [&](std::int64_t from, std::int64_t to, int) {
      for (std::int64_t i = 0; i < rows.n; i++) {
        const std::int64_t r = rows.list ? rows.list[i] : i;
        float* g = grad + ids[r] * output_dim_ + from;
        run.k.add(to - from, g, dy.data + r * dy.ld + from, g);
      }
    });
    return {};
  }

  std::int64_t input_dim_, output_dim_;
  bool mask_zero_;
  WeightSpec spec_;
};

class Embedding::EmbeddingStep final : public Step {
 public:
  EmbeddingStep(const Embedding& layer, const StepPlace& at)
      : table_(layer.weight(at.weights, 0)), dim_(layer.output_dim_), mask_zero_(layer.mask_zero_) {}
  void run(StepCall& call) noexcept override {
    call.x = table_ + *call.ids * dim_;
    call.masked = mask_zero_ && *call.ids == 0;
  }

 private:
  const float* table_;
  std::int64_t dim_;
  bool mask_zero_;
};

std::unique_ptr<Step> Embedding::make_step(const StepPlace& at) const {
  return std::make_unique<EmbeddingStep>(*this, at);
}

}  // namespace

std::unique_ptr<Layer> make_embedding(const Json& description) { return std::make_unique<Embedding>(description); }

}  // namespace seqcore
