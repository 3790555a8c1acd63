#include "layers/products.h"

#include <algorithm>
#include <limits>

namespace seqcore {

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

Bands::Bands(std::int64_t samples, std::int64_t time) : batch(samples), steps(time) {
  constexpr std::int64_t kSamples = 2 * kRowsOfTile, kMostBands = 16;
  const std::int64_t blocks = (batch * steps + kGradBlock - 1) / kGradBlock;
  const std::int64_t some = (batch + kSamples - 1) / kSamples, two = std::min<std::int64_t>(batch / kRowsOfTile, 2);
  const std::int64_t most = std::min(std::max(some, two), kMostBands);
  for (count = 1; 2 * count <= most && count < blocks;) count *= 2;
}

RowList banded_rows(Run& run, const std::uint8_t* mask, std::ptrdiff_t mask_step, const Bands& bands,
                    std::int64_t first, std::int64_t last) {
  const std::int64_t start = bands.begin(first), batch = bands.begin(last) - start;
  if (last - first == 1) return valid_rows(run, mask, mask_step, bands.steps, batch);
  auto* list = run.arena->allocate<std::int32_t>(bands.steps * batch + 1);
  auto* ends = run.arena->allocate<std::int64_t>(last - first);
  RowList rows{list, 0, static_cast<int>(last - first), ends};
  for (std::int64_t band = first; band < last; band++) {
    for (std::int64_t t = 0; t < bands.steps; t++)
      for (std::int64_t b = bands.begin(band) - start; b < bands.begin(band + 1) - start; b++) {
        list[rows.n] = static_cast<std::int32_t>(t * batch + b);
        rows.n += !mask || mask[t * mask_step + b] != 0;
      }
    ends[band - first] = rows.n;
  }
  return rows;
}

// By rows; where there are too few of them for the team, by columns.
void product(const ProductPart* parts, int count, Run& run) {
  const ProductArgs& any = parts->args;
  std::int64_t n = 0, scratch = 0;
  double k = 0;
  for (int i = 0; i < count; i++) {
    n += parts[i].rows.n;
    scratch = std::max(scratch, pad(run.k.product_scratch(any.a[0].k, parts[i].rows.n, any.precision)));
  }
  for (int s = 0; s < any.segments; s++) k += static_cast<double>(any.a[s].k);
  float* scratches = scratch > 0 ? run.scratch->only(scratch * run.threads) : nullptr;
  // The parts' rows are one list.
  const auto piece = [&](std::int64_t row, std::int64_t end, std::int64_t from, std::int64_t to, int worker) {
    for (const ProductPart* p = parts; p < parts + count; row -= p->rows.n, end -= p->rows.n, p++) {
      const std::int64_t first = std::max<std::int64_t>(row, 0);
      ProductArgs mine = p->args;
      mine.dot = &run.k.dot;
      mine.scratch = scratches + worker * scratch;
      mine.m = std::min(end, p->rows.n) - first;
      if (mine.m <= 0) continue;
      mine.rows = p->rows.list ? p->rows.list + first : nullptr;
      mine.row_begin = p->rows.list ? 0 : first;
      mine.n_begin = from;
      mine.n_end = to;
      run.k.product(mine);
    }
  };
  const std::int64_t panel = 2 * run.k.width, panels = (any.n + panel - 1) / panel;
  const auto columns = static_cast<double>(any.n);
  if (n >= kRowsOfTile * run.workers(2 * k * columns * static_cast<double>(n))) {
    run.rows(n, {2 * k * columns, columns}, 8 * kRowsOfTile,
             [&](std::int64_t from, std::int64_t to, int worker) { piece(from, to, 0, any.n, worker); });
  } else {
    run.rows(panels, 2 * k * columns * static_cast<double>(n) / static_cast<double>(panels), 8,
             [&](std::int64_t from, std::int64_t to, int worker) {
               piece(0, n, from * panel, std::min(any.n, to * panel), worker);
             });
  }
}

namespace {

// How the threads of weight_gradient share the work: groups of bands, and tiles of the output for each.
struct GradCut {
  int groups = 1;
  std::int64_t waiting = 0;  // bands whose sums are added last: those of all groups but the first
  std::int64_t k_share = 0, n_share = 0, k_tiles = 1, tiles = 1;
};

// Of all ways the one that takes the slowest thread the shortest, in multiply-adds: those of its tile; kCopied for each
// number of A and D that it copies for it, and kForeign if another thread made it (rows are shared out alike everywhere);
// kAdded for each number of the sums that wait.
constexpr double kCopied = 4, kForeign = 40, kAdded = 30;
GradCut cut(const GradArgs& args, std::int64_t k, std::int64_t rows, int bands, int team) {
  const std::int64_t blocks = (args.n + kPad - 1) / kPad, columns = args.groups * args.n;
  const bool many = team > 1 && args.n >= kPad * team && columns >= 256 * team;
  GradCut best;
  double least = std::numeric_limits<double>::max();
  for (int groups = 1; groups <= std::min(team, bands); groups++) {
    GradCut now;
    now.groups = groups;
    now.waiting = groups > 1 ? bands - bands / groups : 0;
    if (now.waiting * k * columns > rows * (k + columns) / 8) break;  // of what is read, and kept, a small part
    const int threads = team / groups;
    const std::int64_t most = (bands + groups - 1) / groups, pieces = many ? 2 * threads : threads;
    const double mine = static_cast<double>(rows * most) / bands;
    const double read = kCopied + kForeign * (1 - static_cast<double>(groups) / team);
    const double added = kAdded * static_cast<double>(now.waiting * k * columns) / team;
    for (std::int64_t cuts = 1; cuts <= std::clamp<std::int64_t>(k, 1, pieces); cuts++) {
      const std::int64_t across = std::clamp<std::int64_t>(pieces / cuts, 1, blocks);
      now.k_share = (k + cuts - 1) / cuts;
      now.n_share = (blocks + across - 1) / across * kPad;
      now.k_tiles = std::max<std::int64_t>((k + now.k_share - 1) / std::max<std::int64_t>(now.k_share, 1), 1);
      now.tiles = now.k_tiles * ((args.n + now.n_share - 1) / now.n_share);
      const auto a = static_cast<double>(now.k_share), d = static_cast<double>(args.groups * now.n_share);
      const auto turns = static_cast<double>((now.tiles + threads - 1) / threads);
      const double time = mine * turns * (a * d + read * (a + d)) + added;
      if (time >= least) continue;
      least = time;
      best = now;
    }
  }
  return best;
}

// The same sum in memory of its own: rows of all columns, the bias behind the last.
GradArgs aside(GradArgs args, float* memory) {
  args.c_row = args.groups * args.n;
  args.c_group = args.bias_group = args.n;
  for (int f = 0; f < args.factors; memory += args.a[f++].k * args.c_row) args.a[f].c = memory;
  if (args.bias) args.bias = memory;
  return args;
}

// Adds to the tile of `to` what `from` has there.
void add_tile(const Kernels& k, const GradArgs& from, const GradArgs& to) {
  const auto add = [&](float* sum, std::ptrdiff_t sum_group, const float* more, std::ptrdiff_t more_group) {
    for (int g = 0; g < to.groups; g++) {
      float* const at = sum + g * sum_group + to.n_begin;
      k.add(to.n_end - to.n_begin, at, more + g * more_group + to.n_begin, at);
    }
  };
  std::int64_t first = 0;  // of the factor's columns
  for (int f = 0; f < to.factors; first += to.a[f++].k)
    for (std::int64_t i = std::max<std::int64_t>(to.k_begin - first, 0); i < std::min(to.k_end - first, to.a[f].k); i++)
      add(to.a[f].c + i * to.c_row, to.c_group, from.a[f].c + i * from.c_row, from.c_group);
  if (to.bias && to.k_begin == 0) add(to.bias, to.bias_group, from.bias, from.bias_group);
}

struct Band {
  const GradPart* part;
  std::int64_t begin, end;  // in its list
};

// Where a group of bands is: the band, and the next row in its list.
struct GradPlace {
  int band, last;
  std::int64_t row;
};

// Goes on by about so many rows: piece(band, begin, end), each in one band, a multiple of kGradBlock from where that begins.
template <class F>
void advance(GradPlace& at, const Band* bands, std::int64_t some, F&& piece) {
  while (at.band < at.last && some > 0) {
    const Band& band = bands[at.band];
    const std::int64_t whole = std::max<std::int64_t>(some / kGradBlock, 1) * kGradBlock;
    const std::int64_t begin = at.row, end = std::min(band.end, begin + whole);
    piece(at.band, begin, end);
    some -= end - begin;
    at.row = end;
    if (end == band.end && ++at.band < at.last) at.row = bands[at.band].begin;
  }
}

}  // namespace

void weight_gradient(const GradPart* parts, int count, Run& run, int threads) {
  const GradArgs& any = parts->args;
  std::int64_t k = 0, n = 0;
  int all = 0;
  for (int f = 0; f < any.factors; f++) k += any.a[f].k;
  for (int i = 0; i < count; i++) {
    n += parts[i].rows.n;
    all += parts[i].rows.bands;
  }
  auto* const bands = run.arena->allocate<Band>(all);
  Band* next = bands;
  for (const GradPart* p = parts; p < parts + count; p++)
    for (int i = 0; i < p->rows.bands; i++) *next++ = {p, p->rows.begin(i), p->rows.end(i)};

  const std::int64_t columns = any.groups * any.n;
  const double cost = 2.0 * static_cast<double>(std::max<std::int64_t>(k, 1) * columns);
  const int team = threads > 0 ? threads : run.workers(cost * static_cast<double>(n));
  const GradCut how = cut(any, k, n, all, team);
  const int groups = how.groups, first_waiting = groups > 1 ? all / groups : all;
  // Behind the workers' scratch the sum of a band that is added when it is done, then those of the bands that wait.
  const std::int64_t scratch = pad(run.k.grad_scratch(k)), size = all > 1 ? pad((k + 1) * columns) : 0;
  float* const scratches = run.scratch->only(scratch * team + (1 + how.waiting) * size);
  float* const sums = scratches + scratch * team;
  const auto waiting_sum = [&](int band) { return sums + (1 + band - first_waiting) * size; };

  auto* const places = run.arena->allocate<GradPlace>(groups);
  for (int g = 0; g < groups; g++) {
    const int band = all * g / groups;
    places[g] = {band, all * (g + 1) / groups, bands[band].begin};
  }
  const std::int64_t stretch = std::max<std::int64_t>(1, static_cast<std::int64_t>(kRegionFlops / cost) / groups);
  for (bool done = false; !done;) {
    parallel_for(groups * how.tiles, team, [&](std::int64_t task, int worker) {
      const std::int64_t tile = task % how.tiles;
      GradPlace at = places[task / how.tiles];
      advance(at, bands, stretch, [&](int band, std::int64_t begin, std::int64_t end) {
        if (begin == end && band > 0) return;  // an empty band; the first makes the sum zero
        const auto [part, first, last] = bands[band];
        const bool waits = band >= first_waiting, direct = !waits && (band == 0 || last - first <= kGradBlock);
        GradArgs to = part->args;
        to.k_begin = tile % how.k_tiles * how.k_share;
        to.k_end = std::min(k, to.k_begin + how.k_share);
        to.n_begin = tile / how.k_tiles * how.n_share;
        to.n_end = std::min(any.n, to.n_begin + how.n_share);
        GradArgs mine = direct ? to : aside(to, waits ? waiting_sum(band) : sums);
        mine.m = end - begin;
        mine.rows = part->rows.list ? part->rows.list + begin : nullptr;
        mine.row_begin = part->rows.list ? 0 : begin;
        mine.accumulate = begin > first || (direct && band > 0);
        mine.scratch = scratches + worker * scratch;
        run.k.grad(mine);
        if (!direct && !waits && end == last) add_tile(run.k, mine, to);
      });
    });
    run.several = run.several || team > 1;
    run.check();
    done = true;
    for (int g = 0; g < groups; g++) {
      advance(places[g], bands, stretch, [](int, std::int64_t, std::int64_t) {});
      done = done && places[g].band == places[g].last;
    }
  }
  if (how.waiting == 0) return;
  run.rows(k, 2 * kAdded * static_cast<double>(how.waiting * columns), 1, [&](std::int64_t from, std::int64_t to, int) {
    GradArgs tile = any;
    tile.k_begin = from;
    tile.k_end = to;
    tile.n_begin = 0;
    tile.n_end = any.n;
    for (int band = first_waiting; band < all; band++)
      if (bands[band].begin < bands[band].end) add_tile(run.k, aside(tile, waiting_sum(band)), tile);
  });
}

}  // namespace seqcore
