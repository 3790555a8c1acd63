// One call of a network: how many threads come, how often it is polled, and batches turned to time-major.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "base/parallel.h"
#include "check.h"
#include "kernels/dispatch.h"
#include "model/network.h"

using namespace seqcore;

namespace {

// A layer asks how many threads its work deserves, and has scratch for those: no more may come, whatever has run since.
void check_workers() {
  set_num_threads(7);
  Run run(kernels(), 7);
  const int threads = run.workers(7e6);
  CHECK(threads == 3 && run.workers(7e6) == 3);  // to ask changes nothing
  for (int i = 0; i < 20; ++i) {
    std::atomic<int> last{0};
    std::atomic<std::int64_t> done{0};
    const auto body = [&](std::int64_t from, std::int64_t to, int worker) {
      for (int seen = last; seen < worker && !last.compare_exchange_weak(seen, worker);) {
      }
      done += to - from;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    };
    run.rows(70, 1e5, 1, body, threads);
    CHECK(last < threads && done == 70);
  }
  CHECK(run.several && run.workers(7e6) == 7 && run.workers(4e5) == 1);
}

// Regions end after so much arithmetic or so many numbers written, whichever comes first, but have an item a thread.
void check_polls() {
  set_num_threads(2);
  const std::pair<Cost, int> cases[] = {
      {1e7, 1}, {1e8, 10}, {{1, 1e5}, 3}, {Cost::copy(1e5), 3}, {Cost::copy(1e7), 50}};
  for (const auto& [cost, polls] : cases) {
    Run run(kernels(), 2);
    int asked = 0;
    run.poll = [&] { return ++asked < 0; };
    std::atomic<std::int64_t> done{0};
    run.rows(100, cost, 1, [&](std::int64_t from, std::int64_t to, int) { done += to - from; });
    CHECK(asked == polls && done == 100);
  }
}

// Picked rows, in stretches of time: no item is lost between two, and whoever stops it is heard after the first.
void check_time_major() {
  set_num_threads(2);
  const std::int64_t samples = 3, steps = 1999, block = 700, count = 4, pick[] = {2, 0, 1, 2};
  std::vector<float> from(static_cast<std::size_t>(samples * steps * block));
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i % 8388593);
  std::vector<float> to(static_cast<std::size_t>(count * steps * block), -1);
  Run run(kernels(), 2);
  int asked = 0;
  run.poll = [&] { return ++asked < 0; };
  to_time_major(from.data(), pick, 0, count, steps, block, to.data(), run);
  CHECK(asked == 2);
  std::int64_t wrong = 0;
  for (std::int64_t t = 0; t < steps; ++t)
    for (std::int64_t b = 0; b < count; ++b)
      for (std::int64_t i = 0; i < block; ++i)
        wrong += to[static_cast<std::size_t>((t * count + b) * block + i)] !=
                 from[static_cast<std::size_t>((pick[b] * steps + t) * block + i)];
  CHECK(wrong == 0);
  asked = 0;
  run.poll = [&] { return ++asked > 0; };
  try {
    to_time_major(from.data(), pick, 0, count, steps, block, to.data(), run);
    CHECK(false);
  } catch (const Cancelled&) {
    CHECK(asked == 1);
  }
}

}  // namespace

int main() {
  check_workers();
  check_polls();
  check_time_major();
  return check::report();
}
