// Run::rows, a template and so in a header. Included by layer.h only.
#pragma once

#include <algorithm>

#include "base/parallel.h"

namespace seqcore {

template <class F>
void Run::rows(std::int64_t n, double cost, std::int64_t grain, F&& body) const {
  const std::int64_t region =
      std::max<std::int64_t>(grain, static_cast<std::int64_t>(kRegionFlops / std::max(cost, 1.0)));
  for (std::int64_t begin = 0; begin < n; begin += region) {
    const std::int64_t end = std::min(n, begin + region);
    const int team = workers(static_cast<double>(end - begin) * cost);
    const std::int64_t share = (((end - begin) + team - 1) / team + grain - 1) / grain * grain;
    const std::int64_t tasks = (end - begin + share - 1) / share;
    parallel_for(tasks, team, [&](std::int64_t task, int worker) {
      const std::int64_t from = begin + task * share;
      body(from, std::min(end, from + share), worker);
    });
    check();
  }
}

}  // namespace seqcore
