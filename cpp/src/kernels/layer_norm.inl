// Layer normalisation over the last axis. Included by isa.inl, once per ISA.

namespace seqcore::SEQCORE_ISA {
namespace {

// y = (x - mean) inv_std gamma + beta, inv_std = 1 / sqrt(mean((x - mean)^2) + epsilon). x may be y.
void layer_norm(const LayerNormArgs& args) {
  const float count = static_cast<float>(args.n);
  const float* gamma = args.gamma;
  const float* beta = args.beta;
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.ldx;
    float* y = args.y + r * args.ldy;
    const float mean = sum(args.n, [=](auto at, vec acc) { return add(acc, at.load(x)); }) / count;
    const float variance = sum(args.n,
                               [=](auto at, vec acc) {
                                 const vec d = sub(at.load(x), set1(mean));
                                 return fma(d, d, acc);
                               }) /
                           count;
    const float inv_std = first(div(set1(1.0f), sqrt(set1(variance + args.epsilon))));
    if (args.mean) args.mean[r] = mean;
    if (args.inv_std) args.inv_std[r] = inv_std;
    for_each(args.n, [=](auto at) {
      const vec xhat = mul(sub(at.load(x), set1(mean)), set1(inv_std));
      const vec scaled = gamma ? mul(xhat, at.load(gamma)) : xhat;
      at.store(y, beta ? add(scaled, at.load(beta)) : scaled);
    });
  }
}

// With g = dy gamma and xhat the normalised x: dx = inv_std (g - mean(g) - xhat mean(g xhat)), args.xhat = dy xhat.
// Overwrites both, which may be dy or x.
void layer_norm_backward(const LayerNormGradArgs& args) {
  const float count = static_cast<float>(args.n);
  const float* gamma = args.gamma;
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.ldx;
    const float* dy = args.dy + r * args.lddy;
    float* dx = args.dx ? args.dx + r * args.lddx : nullptr;
    float* product = args.xhat ? args.xhat + r * args.ldxhat : nullptr;
    const vec mean = set1(args.mean[r]);
    const vec inv_std = set1(args.inv_std[r]);
    const auto gradient = [=](auto at) { return gamma ? mul(at.load(dy), at.load(gamma)) : at.load(dy); };
    const auto normalised = [=](auto at) { return mul(sub(at.load(x), mean), inv_std); };
    vec mean_g = zero();
    vec mean_gx = zero();
    if (dx) {
      mean_g = set1(sum(args.n, [=](auto at, vec acc) { return add(acc, gradient(at)); }) / count);
      mean_gx = set1(sum(args.n, [=](auto at, vec acc) { return fma(gradient(at), normalised(at), acc); }) / count);
    }
    for_each(args.n, [=](auto at) {
      const vec d = at.load(dy);
      const vec g = gradient(at);
      const vec xhat = normalised(at);
      if (dx) at.store(dx, mul(inv_std, fnma(xhat, mean_gx, sub(g, mean_g))));
      if (product) at.store(product, mul(d, xhat));
    });
  }
}

}  // namespace
}  // namespace seqcore::SEQCORE_ISA
