// The threads that the process shares: how many, and two ways to use them. The only OpenMP of the project is in parallel.cc,
// the only other threads are a Team's.
//
// Contract
// - Nothing starts at import. The default is what the process may use (affinity and cgroup quota, at least 1).
// - parallel_for is one region: the caller and up to num_threads()-1 helpers have a share of the tasks each, the same of as
//   many tasks in the next region, and then take from the ends of the others'. Results never depend on who ran what. The
//   body must not throw and must not call parallel_for (it would run serial).
// - There is one set of helpers for the process, num_threads()-1 at most. They belong to one region at a time; callers on
//   other threads run serial meanwhile, so 32 threads in predict make no 64 threads.
// - parallel_team is a region whose threads run at the same time, in teams, each of which meets at its barrier: as many as
//   come within `patience`. A helper sits where it sat the last time, if it can.
// - The caller waits only for helpers that have come: one that the system does not schedule is not missed. If helpers bring
//   little all the same (another process keeps a core busy), callers do with half as many for a while, or with none, many
//   times as long as was lost. Helpers without work spin for 200 microseconds, then sleep. Where no thread can be
//   started, the caller does the work.
// - In the child of a fork every call runs serial until set_num_threads is called there; then it has its own helpers.
// - Every thread that runs a body has denormals flushed (MXCSR/FPCR) while it does, and gets its own mode back after.
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/flush_guard.h"
#include "base/meeting.h"

namespace seqcore {

inline constexpr int kMaxThreads = 2048;
int default_threads();
const char* parallel_backend();  // "openmp" or "std::thread"
int num_threads();
int threads_now();     // how many of them a region would have if it began now: fewer while helpers bring too little
bool helpers_awake();  // none of them sleeps: a region would begin at once
void set_num_threads(
    int n);  // REQUIRES: 1 <= n <= kMaxThreads, else std::invalid_argument. Takes effect with the next region.

// While a body runs on this thread: denormals are zero, and a region that it begins runs on it alone.
class BodyScope {
 public:
  BodyScope() noexcept;
  ~BodyScope();
  BodyScope(const BodyScope&) = delete;
  BodyScope& operator=(const BodyScope&) = delete;

 private:
  const FlushGuard flush_;
  const bool outer_;
};

// Threads in teams that do not meet, of parts that do.
struct Grid {
  int teams, parts;
  int seats() const { return teams * parts; }
};
inline constexpr int kMostTeams = 64;
// The grid within `most` that has a use for most of so many threads; of such, the one with the largest teams.
Grid fit(Grid most, int threads);

// A thread's place in it.
struct Seat {
  int team, teams, part, parts;
  Meeting& meeting;  // the team's
};

namespace detail {
using Body = void (*)(void* context, std::int64_t task, int worker);
void run(std::int64_t tasks, int max_threads, Body body, void* context);
using SeatBody = void (*)(void* context, const Seat& seat);
void run_teams(Grid most, double patience, SeatBody body, void* context);
}  // namespace detail

// body(task, worker) for every task in [0, tasks), fewer than 2^31; worker is in [0, max_threads) and unique among
// concurrent bodies (for scratch). max_threads <= 0 means num_threads().
template <class F>
void parallel_for(std::int64_t tasks, int max_threads, F&& body) {
  using Plain = std::remove_reference_t<F>;
  detail::run(
      tasks, max_threads,
      [](void* context, std::int64_t task, int worker) { (*static_cast<Plain*>(context))(task, worker); }, &body);
}

// body(seat) on all seats at once or, where fewer threads come, in a smaller grid. All parts of a team must call
// meeting.wait() equally often. Of more teams than kMostTeams there are as many; patience: in seconds.
template <class F>
void parallel_team(Grid most, double patience, F&& body) {
  using Plain = std::remove_reference_t<F>;
  detail::run_teams(
      most, patience, [](void* context, const Seat& seat) { (*static_cast<Plain*>(context))(seat); }, &body);
}

}  // namespace seqcore
