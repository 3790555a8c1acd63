// ActivityRegularization: gives its input, whose penalty is added to the loss.
#include "layers/config.h"
#include "layers/factories.h"

namespace seqcore {

namespace {

class ActivityRegularization final : public Layer {
 public:
  explicit ActivityRegularization(const Json& description) {
    Config c(description);
    activity.l1 = c.not_negative("l1", 0);
    activity.l2 = c.not_negative("l2", 0);
    c.done();
  }

  Dims build(const Dims& input) override { return input; }

 private:
  Tensor do_forward(const Tensor& x, Run&, void** cache) const override {
    *cache = nullptr;
    return x;
  }
  Tensor do_backward(const Tensor& dy, void*, Run&, bool) const override { return dy; }
};

}  // namespace

std::unique_ptr<Layer> make_activity_regularization(const Json& description) {
  return std::make_unique<ActivityRegularization>(description);
}

}  // namespace seqcore
