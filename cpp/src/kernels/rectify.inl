// relu and elu with their parameters. Included by isa.inl, once per ISA. Where these are the ones that an Activation
// stands for (leaky_relu: slope 0.2; elu: slope 1), the bits are that one's.

namespace seqcore::SEQCORE_ISA {
namespace {

void rectify(const RectifyArgs& args) {
  const vec threshold = set1(args.threshold), most = set1(args.max), slope = set1(args.slope);
  const bool flat = args.slope == 0, exponential = args.exponential;
  const float* x = args.x;
  float* y = args.y;
  for (std::int64_t r = 0; r < args.rows; ++r, x += args.ldx, y += args.ldy)
    for_each(args.n, [=](auto at) {
      const vec v = at.load(x);
      const vec d = sub(v, threshold);
      // Without a slope -inf gives 0; NaN stays NaN.
      const vec below = flat ? select(unordered(d, d), d, zero()) : mul(slope, exponential ? vexpm1(d) : d);
      at.store(y, select(gt(v, threshold), min(most, v), below));
    });
}

void rectify_backward(const RectifyArgs& args) {
  const vec threshold = set1(args.threshold), most = set1(args.max), slope = set1(args.slope), one = set1(1.0f);
  const bool exponential = args.exponential;
  const float* x = args.x;
  float* y = args.y;
  for (std::int64_t r = 0; r < args.rows; ++r, x += args.ldx, y += args.ldy)
    for_each(args.n, [=](auto at) {
      const vec v = at.load(x);
      const vec below = exponential ? fma(slope, vexpm1(sub(v, threshold)), slope) : slope;
      const vec above = select(lt(v, most), one, zero());
      at.store(y, mul(at.load(y), select(gt(v, threshold), above, below)));
    });
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
