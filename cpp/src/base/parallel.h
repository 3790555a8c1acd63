// Threads: how many, and one way to use them. The only threads and the only OpenMP of the project are in parallel.cc.
//
// Contract
// - Nothing starts at import. The default is what the process may use (affinity and cgroup quota, at least 1).
// - parallel_for is one region: the caller and up to num_threads()-1 helpers take tasks in order from a shared counter.
//   Results never depend on who ran what. The body must not throw and must not call parallel_for (it would run serial).
// - There is one set of helpers for the process, num_threads()-1 at most. They belong to one region at a time; callers on
//   other threads run serial meanwhile, so 32 threads in predict make no 64 threads.
// - The caller waits only for helpers that have come: one that the system does not schedule is not missed. Threads without
//   work spin for some tens of microseconds, then sleep. Where no thread can be started, the caller does the work.
// - In the child of a fork every call runs serial until set_num_threads is called there; then it has its own helpers.
// - Every thread that runs a body has denormals flushed (MXCSR/FPCR) while it does, and gets its own mode back after.
#pragma once

#include <cstdint>
#include <type_traits>

namespace seqcore {

int default_threads();
const char* parallel_backend();  // "openmp" or "std::thread"
int num_threads();
void set_num_threads(
    int n);  // REQUIRES: 1 <= n <= 2048, else std::invalid_argument. Takes effect with the next region.

// Denormals read and written as zero while it lives; the thread's mode is restored after. Cheap when already set.
class FlushGuard {
 public:
  FlushGuard() noexcept;
  ~FlushGuard();
  FlushGuard(const FlushGuard&) = delete;
  FlushGuard& operator=(const FlushGuard&) = delete;

 private:
  std::uint64_t saved_;
};

namespace detail {
using Body = void (*)(void* context, std::int64_t task, int worker);
void run(std::int64_t tasks, int max_threads, Body body, void* context);
}  // namespace detail

// body(task, worker) for every task in [0, tasks); worker is in [0, max_threads) and unique among concurrent bodies
// (for scratch). max_threads <= 0 means num_threads().
template <class F>
void parallel_for(std::int64_t tasks, int max_threads, F&& body) {
  using Plain = std::remove_reference_t<F>;
  detail::run(
      tasks, max_threads,
      [](void* context, std::int64_t task, int worker) { (*static_cast<Plain*>(context))(task, worker); }, &body);
}

}  // namespace seqcore
