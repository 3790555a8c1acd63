#include "layers/layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/philox.h"
#include "layers/config.h"
#include "layers/step.h"

namespace seqcore {

std::string to_string(const Dims& dims, std::int64_t batch) {
  const auto entry = [](std::int64_t n) { return n < 0 ? std::string("None") : std::to_string(n); };
  std::string s = "(" + entry(batch);
  for (int i = 0; i < dims.rank; i++) s += ", " + entry(dims.d[i]);
  return s + (dims.rank == 0 ? ",)" : ")");
}

std::int64_t WeightSpec::size() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

int Run::workers(double flops) const {
  return flops < kSplitFlops ? 1 : std::clamp(static_cast<int>(std::min(flops / kThreadFlops, 1e6)), 1, threads);
}

// What watch keeps around do_forward's own cache.
struct Layer::Wrapped {
  void* inner;
  Tensor output;
};

Tensor Layer::forward(const Tensor& x, Run& run, void** cache) const {
  const Tensor y = do_forward(x, run, cache);
  watch(y, run, cache);
  return y;
}

Tensor Layer::backward(const Tensor& dy, void* cache, Run& run, bool need_dx) const {
  const Tensor total = unwatch(dy, run, &cache);
  return do_backward(total, cache, run, need_dx);
}

void Layer::watch(const Tensor& y, Run& run, void** cache) const {
  if (!activity) return;
  auto* wrapped = run.arena->allocate<Wrapped>(1);
  *wrapped = {*cache, y};
  *cache = wrapped;
  const double share = 1.0 / static_cast<double>(run.batch);  // of a sample, as in Keras
  for (std::int64_t r = 0; r < y.rows(); r++) {
    if (activity.l1 != 0) run.penalty += share * activity.l1 * run.k.sum_abs(y.features(), y.data + r * y.ld);
    if (activity.l2 != 0) run.penalty += share * activity.l2 * run.k.sum_squares(y.features(), y.data + r * y.ld);
  }
}

Tensor Layer::unwatch(const Tensor& dy, const Run& run, void** cache) const {
  if (!activity) return dy;
  const auto* wrapped = static_cast<const Wrapped*>(*cache);
  *cache = wrapped->inner;
  const Tensor& y = wrapped->output;
  // Masked rows have outputs too, and Keras counts them: their gradient is no longer zero.
  Tensor total = dy;
  total.mask = nullptr;
  const double share = 1.0 / static_cast<double>(run.batch);
  const auto l1 = static_cast<float>(share * activity.l1), l2 = static_cast<float>(share * 2 * activity.l2);
  for (std::int64_t r = 0; r < y.rows(); r++) {
    float* g = total.data + r * total.ld;
    const float* v = y.data + r * y.ld;
    for (std::int64_t i = 0; i < y.features(); i++) {
      const float sign = v[i] > 0 ? l1 : v[i] < 0 ? -l1 : 0.0f;
      g[i] = g[i] + (sign + l2 * v[i]);
    }
  }
  return total;
}

void Layer::place(Place& at) {
  for (WeightSpec& spec : specs_) {
    spec.offset = at.weights;
    at.weights += pad(spec.size());
  }
  for (int copy = 0; copy < kCopies; copy++) {
    packed_at_[copy] = at.packed[copy];
    at.packed[copy] += pad(packed_size(at.k, static_cast<Copy>(copy)));
  }
  state_at_ = at.states;
  at.states += static_cast<int>(stream_states().size());
  stream_ = at.streams++;
}

std::unique_ptr<Step> Layer::make_step(const StepPlace&) const { return nullptr; }

std::vector<WeightSpec*> Layer::weights() {
  std::vector<WeightSpec*> all;
  for (WeightSpec& spec : specs_) all.push_back(&spec);
  return all;
}

void Layer::name_weights(const std::string& prefix) {
  for (WeightSpec& spec : specs_) spec.name = prefix + spec.name;
}

int Layer::add_weight(WeightSpec spec) {
  double size = 1;
  for (const std::int64_t d : spec.shape) size *= static_cast<double>(d);
  if (size > static_cast<double>(std::numeric_limits<std::int32_t>::max()))
    throw std::invalid_argument("weight '" + spec.name + "' would have more than 2^31 elements");
  check_constraint(spec.constraint, spec.shape.size());
  specs_.push_back(std::move(spec));
  return static_cast<int>(specs_.size()) - 1;
}

std::uint64_t Layer::random_key(const Run& run, std::uint64_t purpose) const {
  const std::uint64_t seed = seed_.is_null() ? mix_seed(run.seed, static_cast<std::uint64_t>(stream_))
                                             : static_cast<std::uint64_t>(seed_.as_integer());
  return mix_seed(seed, purpose);
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

RowList valid_rows(Run& run, const std::uint8_t* mask, std::ptrdiff_t mask_step, std::int64_t steps,
                   std::int64_t batch) {
  RowList rows{nullptr, steps * batch};
  if (!mask) return rows;
  auto* list = run.arena->allocate<std::int32_t>(rows.n + 1);
  rows = {list, 0};
  for (std::int64_t t = 0; t < steps; t++)
    for (std::int64_t b = 0; b < batch; b++) {
      list[rows.n] = static_cast<std::int32_t>(t * batch + b);
      rows.n += mask[t * mask_step + b] != 0;
    }
  return rows;
}

RowList valid_rows(Run& run, const Tensor& dy) {
  if (!dy.mask || dy.inner() != 1) return {nullptr, dy.rows()};
  return valid_rows(run, dy.mask, dy.batch, dy.steps(), dy.batch);
}

// By rows; where there are too few of them for the team, by columns.
void product(ProductArgs args, RowList rows, Run& run) {
  double k = 0;
  for (int s = 0; s < args.segments; s++) k += static_cast<double>(args.a[s].k);
  args.dot = &run.k.dot;
  const std::int64_t scratch = pad(run.k.product_scratch(args.a[0].k, rows.n, args.precision));
  float* scratches = scratch > 0 ? run.scratch->only(scratch * run.threads) : nullptr;
  const auto part = [&](std::int64_t row, std::int64_t m, std::int64_t from, std::int64_t to, int worker) {
    ProductArgs mine = args;
    mine.scratch = scratches + worker * scratch;
    mine.m = m;
    mine.rows = rows.list ? rows.list + row : nullptr;
    mine.row_begin = rows.list ? 0 : row;
    mine.n_begin = from;
    mine.n_end = to;
    run.k.product(mine);
  };
  const std::int64_t panel = 2 * run.k.width, panels = (args.n + panel - 1) / panel;
  const double row_flops = 2 * k * static_cast<double>(args.n);
  if (rows.n >= kRowsOfTile * run.workers(row_flops * static_cast<double>(rows.n))) {
    run.rows(rows.n, row_flops, 8 * kRowsOfTile,
             [&](std::int64_t from, std::int64_t to, int worker) { part(from, to - from, 0, args.n, worker); });
  } else {
    run.rows(panels, row_flops * static_cast<double>(rows.n) / static_cast<double>(panels), 8,
             [&](std::int64_t from, std::int64_t to, int worker) {
               part(0, rows.n, from * panel, std::min(args.n, to * panel), worker);
             });
  }
}

// Tiles of the output, never of the sum. Each copies what it needs of A and D, its k and its columns of them, at the cost of
// kCopied multiply-adds a number; of all ways to cut them, the one that takes the slowest thread the shortest.
constexpr double kCopied = 4;
void weight_gradient(GradArgs args, RowList rows, Run& run) {
  std::int64_t k = 0;
  for (int f = 0; f < args.factors; f++) k += args.a[f].k;
  const double cost = 2.0 * static_cast<double>(k * args.groups * args.n);
  const int team = run.workers(cost * static_cast<double>(rows.n));
  const std::int64_t blocks = (args.n + kPad - 1) / kPad;
  const std::int64_t pieces = team > 1 && args.n >= kPad * team && args.groups * args.n >= 256 * team ? 2 * team : team;
  std::int64_t k_share = k, n_share = blocks * kPad, k_tiles = 1, tiles = 1;
  double least = std::numeric_limits<double>::max();
  for (std::int64_t cuts = 1; cuts <= std::clamp<std::int64_t>(k, 1, pieces); cuts++) {
    const std::int64_t columns = std::clamp<std::int64_t>(pieces / cuts, 1, blocks);
    const std::int64_t mine_k = (k + cuts - 1) / cuts, mine_n = (blocks + columns - 1) / columns * kPad;
    const std::int64_t across = (k + mine_k - 1) / std::max<std::int64_t>(mine_k, 1);
    const std::int64_t all = std::max<std::int64_t>(across, 1) * ((args.n + mine_n - 1) / mine_n);
    const auto a = static_cast<double>(mine_k), d = static_cast<double>(args.groups * mine_n);
    const double time = static_cast<double>((all + team - 1) / team) * (a * d + kCopied * (a + d));
    if (time >= least) continue;
    least = time;
    k_share = mine_k;
    n_share = mine_n;
    k_tiles = std::max<std::int64_t>(across, 1);
    tiles = all;
  }
  const std::int64_t scratch = pad(run.k.grad_scratch(k));
  float* scratches = run.scratch->only(scratch * team);
  const std::int64_t stretch =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(kRegionFlops / cost) / kGradBlock) * kGradBlock;
  for (std::int64_t begin = 0; begin < std::max<std::int64_t>(rows.n, 1); begin += stretch) {
    parallel_for(tiles, team, [&](std::int64_t tile, int worker) {
      GradArgs mine = args;
      mine.m = std::min(rows.n - begin, stretch);
      mine.rows = rows.list ? rows.list + begin : nullptr;
      mine.row_begin = rows.list ? 0 : begin;
      mine.accumulate = begin > 0;
      mine.k_begin = tile % k_tiles * k_share;
      mine.k_end = std::min(k, mine.k_begin + k_share);
      mine.n_begin = tile / k_tiles * n_share;
      mine.n_end = std::min(args.n, mine.n_begin + n_share);
      mine.scratch = scratches + worker * scratch;
      run.k.grad(mine);
    });
    run.check();
  }
}

}  // namespace seqcore
