// Run::rows, a template and so in a header. Included by layer.h only.
#pragma once

#include <algorithm>

#include "base/parallel.h"

namespace seqcore {

template <class F>
void Run::rows(std::int64_t n, double cost, std::int64_t least, F&& body, int most) const {
  const std::int64_t region = std::max<std::int64_t>(1, static_cast<std::int64_t>(kRegionFlops / std::max(cost, 1.0)));
  for (std::int64_t begin = 0; begin < n; begin += region) {
    const std::int64_t size = std::min(region, n - begin);
    const int deserved = workers(static_cast<double>(size) * cost),
              team = most > 0 ? std::min(deserved, most) : deserved;
    std::int64_t pieces = team;
    while (team > 1 && pieces < 4 * team && size >= 2 * pieces * least &&
           static_cast<double>(size) * cost >= 2 * static_cast<double>(pieces) * kThreadFlops)
      pieces *= 2;
    const std::int64_t share = (size + pieces - 1) / pieces;
    parallel_for((size + share - 1) / share, team, [&](std::int64_t task, int worker) {
      const std::int64_t from = begin + task * share;
      body(from, std::min(begin + size, from + share), worker);
    });
    several = several || team > 1;
    check();
  }
}

}  // namespace seqcore
