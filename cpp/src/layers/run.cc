#include "layers/run.h"

#include <cstring>

namespace seqcore {

int Run::workers(double flops) const {
  if (flops < (several ? kSplitAgain : kSplitFlops)) return 1;
  const double most = flops / (several ? kThreadAgain : kThreadFlops);
  return std::clamp(static_cast<int>(std::min(most, 1e6)), 1, threads);
}

Tensor make_tensor(Run& run, const Dims& dims, std::int64_t batch) {
  Tensor t;
  t.dims = dims;
  t.batch = batch;
  t.ld = pad(dims.features());
  t.data = run.arena->floats(t.rows() * t.ld);
  return t;
}

Tensor make_tensor(Run& run, const Tensor& like, std::int64_t features) {
  Dims dims = like.dims;
  dims.d[dims.rank - 1] = features;
  Tensor t = make_tensor(run, dims, like.batch);
  t.mask = like.mask;
  return t;
}

Tensor make_zeros(Run& run, const Tensor& like, std::int64_t features) {
  Tensor t = make_tensor(run, like, features);
  std::memset(t.data, 0, static_cast<std::size_t>(t.rows() * t.ld) * sizeof(float));
  return t;
}

}  // namespace seqcore
