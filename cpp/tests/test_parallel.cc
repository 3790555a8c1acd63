// Threads: every task once, one budget, fork, denormals, no threads left. Built with ThreadSanitizer too.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/flush_guard.h"
#include "base/meeting.h"
#include "base/parallel.h"
#include "processes.h"
#include "says.h"

using namespace seqcore;

namespace {

// One region over n tasks that writes what only the task determines; whether each ran once, workers in range and no
// worker twice at a time.
bool region_is_right(std::int64_t n, int max_threads) {
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(n));
  constexpr int kWorkers = 64;
  std::atomic<int> active[kWorkers] = {};
  std::atomic<bool> right{true};
  const int most = max_threads > 0 ? max_threads : num_threads();
  parallel_for(n, max_threads, [&](std::int64_t task, int worker) {
    if (worker < 0 || worker >= most || worker >= kWorkers) {
      right = false;
      return;
    }
    if (active[worker]++ != 0) right = false;
    ++runs[static_cast<std::size_t>(task)];
    --active[worker];
  });
  for (const std::atomic<int>& count : runs) right = right && count == 1;
  return right;
}

void test_regions() {
  CHECK(default_threads() >= 1 && num_threads() == default_threads());
  CHECK(task_count() == 1);
  for (int threads = 1; threads <= 7; ++threads) {
    set_num_threads(threads);
    CHECK(num_threads() == threads);
    for (const std::int64_t n : {0, 1, 2, 3, 7, 8, 100, 1000}) {
      for (const int most : {0, 1, 2, 5, 50}) CHECK(region_is_right(n, most));
    }
  }
  parallel_for(-1, 0, [&](std::int64_t, int) { CHECK(false); });
  CHECK_SAYS(std::invalid_argument, "in [1, 2048], got 0", set_num_threads(0));
  CHECK_SAYS(std::invalid_argument, "in [1, 2048], got -3", set_num_threads(-3));
  CHECK(num_threads() == 7);
}

void test_helpers_help() {
  set_num_threads(2);
  std::atomic<int> here{0};
  std::atomic<bool> met{false};
  parallel_for(2, 0, [&](std::int64_t, int) {  // each waits for the other, on its own thread
    ++here;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (here < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    if (here == 2) met = true;
  });
  CHECK(met);
}

// Teams: every part of each once, and no part ahead of another of its team across a meeting.
bool teams_are_right(int most_teams, int most_parts, int meetings) {
  constexpr int kSeats = 64;
  std::atomic<int> seen[kSeats] = {}, size{0};
  std::atomic<bool> right{true};
  const int limit = std::min(most_teams * most_parts, num_threads());
  parallel_team({most_teams, most_parts}, 1e-3, [&](const Seat& seat) {
    const int first = seat.team * seat.parts;
    if (seat.part < 0 || seat.part >= seat.parts || seat.team < 0 || seat.team >= seat.teams ||
        seat.parts > most_parts || seat.teams > most_teams || seat.teams * seat.parts > limit) {
      right = false;
      return;
    }
    size = seat.teams * seat.parts;
    for (int i = 1; i <= meetings; ++i) {
      ++seen[first + seat.part];
      seat.meeting.wait();
      for (int other = 0; other < seat.parts; ++other)
        if (seen[first + other] < i || seen[first + other] > i + 1) right = false;
    }
    ++seen[first + seat.part];
  });
  for (int i = 0; i < kSeats; ++i) right = right && seen[i] == (i < size ? meetings + 1 : 0);
  return right;
}

void test_fit() {
  const auto fits = [](int teams, int parts, int threads, int fit_teams, int fit_parts) {
    const Grid grid = fit({teams, parts}, threads);
    return grid.teams == fit_teams && grid.parts == fit_parts;
  };
  CHECK(fits(2, 8, 16, 2, 8) && fits(2, 8, 100, 2, 8));
  CHECK(fits(2, 8, 15, 2, 7) && fits(4, 4, 15, 3, 4));
  CHECK(fits(1, 16, 15, 1, 15) && fits(16, 1, 15, 15, 1));
  CHECK(fits(3, 5, 1, 1, 1) && fits(3, 5, 2, 1, 2) && fits(3, 5, 7, 2, 3));
}

void test_teams() {
  for (int threads = 1; threads <= 7; ++threads) {
    set_num_threads(threads);
    for (const int teams : {1, 2, 3})
      for (const int parts : {1, 2, 3})
        for (const int meetings : {0, 1, 50}) CHECK(teams_are_right(teams, parts, meetings));
  }
  set_num_threads(2);
  for (const Grid most : {Grid{1, 2}, Grid{2, 1}}) {
    int largest = 0;
    for (int i = 0; i < 200 && largest < 2; ++i) {
      parallel_team(most, 1e-3, [&](const Seat& seat) {
        if (seat.team + seat.part == 0) largest = seat.teams * seat.parts;
        seat.meeting.wait();
      });
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    CHECK(largest == 2);
  }
  std::atomic<int> wrong{0};
  parallel_for(2, 0, [&](std::int64_t, int) { wrong += !teams_are_right(1, 2, 3); });  // inside a region: alone
  CHECK(wrong == 0);
}

using Clock = std::chrono::steady_clock;

// What is true for 100 ms after the caller was kept waiting, if it can be seen at all: `stall` says whether the caller was,
// while it was on its core itself; `holds` is looked at where all of it lay within that time.
template <class Stall, class Holds>
bool for_a_while_after(Stall&& stall, Holds&& holds) {
  for (int attempt = 0; attempt < 500; ++attempt) {
    if (!stall()) continue;
    const Clock::time_point start = Clock::now();
    const bool held = holds();
    if (Clock::now() - start < std::chrono::milliseconds(90)) return held;
    std::this_thread::sleep_for(std::chrono::milliseconds(450));
  }
  return false;
}

// A helper that keeps the caller waiting more than it helps: for a while after the caller works alone.
void test_without_the_slow() {
  set_num_threads(2);
  Clock::duration mine{};
  const auto helped = [&](std::chrono::milliseconds delay) {
    std::atomic<int> here{0};
    std::atomic<bool> met{false};
    const Clock::time_point start = Clock::now();
    parallel_for(2, 0, [&](std::int64_t, int worker) {
      ++here;
      const auto end = Clock::now() + std::chrono::milliseconds(1);
      while (here < 2 && Clock::now() < end) std::this_thread::yield();
      if (worker == 0) {
        mine = Clock::now() - start;
        return;
      }
      met = true;
      std::this_thread::sleep_for(delay);
    });
    return met.load();
  };
  const auto soon = [&] {
    for (int i = 0; i < 500; ++i)
      if (helped(std::chrono::milliseconds(0))) return true;
    return false;
  };
  CHECK(soon());
  const auto stalls = [&] { return helped(std::chrono::milliseconds(20)) && mine < std::chrono::milliseconds(3); };
  const auto alone = [&] {
    bool any = false;
    for (int i = 0; i < 10; ++i) any = helped(std::chrono::milliseconds(0)) || any;
    return !any;
  };
  CHECK(for_a_while_after(stalls, alone));
  std::this_thread::sleep_for(std::chrono::milliseconds(450));
  CHECK(soon());
}

struct Workers {
  int count;
  Clock::duration caller;  // how long it worked
};

// Workers of one region with a task for each of `threads`, the caller's taking 2 ms and the others' `others`.
Workers workers_of(int threads, std::chrono::microseconds others) {
  std::atomic<unsigned> seen{0};
  Clock::duration caller{};
  const Clock::time_point start = Clock::now();
  parallel_for(threads, 0, [&](std::int64_t, int worker) {
    seen |= 1u << worker;
    std::this_thread::sleep_for(worker == 0 ? std::chrono::microseconds(2000) : others);
    if (worker == 0) caller = Clock::now() - start;
  });
  return {__builtin_popcount(seen), caller};
}

// Many helpers stay if the caller waits for longer than it works but is far ahead of itself alone, and are halved if not.
void test_many_helpers() {
  set_num_threads(7);
  std::this_thread::sleep_for(std::chrono::milliseconds(450));  // whatever they were found to be before is forgotten
  int most = 0;
  for (int i = 0; i < 60; ++i) {
    const int workers = workers_of(7, std::chrono::microseconds(4500)).count;
    if (i >= 40) most = std::max(most, workers);
  }
  CHECK(most > 4);
  set_num_threads(4);
  const auto stalls = [] {
    const Workers workers = workers_of(4, std::chrono::milliseconds(60));
    return workers.count >= 3 && workers.caller < std::chrono::milliseconds(8);
  };
  const auto few = [] {
    int many = 0;
    for (int i = 0; i < 5; ++i) many += workers_of(4, std::chrono::microseconds(2000)).count > 2;
    return many == 0;
  };
  CHECK(for_a_while_after(stalls, few));
}

void test_nested() {
  set_num_threads(4);
  std::vector<std::atomic<int>> sums(8);
  parallel_for(8, 0, [&](std::int64_t outer, int) {
    const std::thread::id self = std::this_thread::get_id();
    parallel_for(10, 0, [&](std::int64_t inner, int worker) {
      const bool serial = worker == 0 && std::this_thread::get_id() == self;
      sums[static_cast<std::size_t>(outer)] += serial ? static_cast<int>(inner) : 1000;
    });
  });
  for (const std::atomic<int>& sum : sums) CHECK(sum == 45);
}

void test_many_callers() {
  set_num_threads(4);
  std::atomic<int> wrong{0}, met{0}, done{0};
  std::atomic<bool> stop{false};
  std::mutex turn;
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  std::vector<std::thread> callers;
  for (int i = 0; i < 32; ++i) {
    callers.emplace_back([&] {
      for (int round = 0; round < 50; ++round) wrong += !region_is_right(20, 0);  // all at once
      for (++met; met < 32;) pause();
      {
        const std::lock_guard<std::mutex> mine(turn);  // one by one: each finds the whole budget free
        wrong += !region_is_right(20, 0);
      }
      ++done;
      while (!stop) pause();
    });
  }
  while (done < 32) pause();
  CHECK(wrong == 0);
  CHECK(task_count() <=
        1 + 32 + 6 + 1);  // at most 7 threads were asked for so far; a sanitizer may have one of its own
  stop = true;
  for (std::thread& caller : callers) caller.join();
  // The helpers are free again for any thread.
  for (int round = 0; round < 5; ++round) std::thread(test_helpers_help).join();
}

// How often all that were asked for sat where they had the last time, of `times` times that they all came.
int same_seats(int teams, int parts, int times) {
  int same = 0;
  std::vector<std::thread::id> last, now(static_cast<std::size_t>(teams * parts));
  for (int full = 0, i = 0; full < times && i < 100; ++i) {
    bool all = false;
    parallel_team({teams, parts}, 0.1, [&](const Seat& seat) {
      now[static_cast<std::size_t>(seat.team * seat.parts + seat.part)] = std::this_thread::get_id();
      if (seat.team + seat.part == 0) all = seat.teams == teams && seat.parts == parts;
      seat.meeting.wait();
    });
    if (!all) {
      std::this_thread::sleep_for(std::chrono::milliseconds(450));  // what helpers were found to be is forgotten
      continue;
    }
    if (full++ > 0) same += now == last;
    last = now;
  }
  return same;
}

// A helper sits where it sat. In a child, which has no more helpers than it asks for.
void test_seats() {
  if (kSanitized) return;
  CHECK(in_child([] {
          set_num_threads(3);
          return same_seats(1, 3, 5) == 4 && same_seats(3, 1, 5) == 4;
        }) == 0);
}

void test_fork() {
  set_num_threads(4);
  CHECK(region_is_right(100, 0));
  const auto child_is_right = [] {
    const bool first = num_threads() == 1 && region_is_right(100, 0) && region_is_right(100, 4);
    if (!first || kSanitized) return first;
    set_num_threads(3);
    return region_is_right(100, 0) && region_is_right(100, 0);
  };
  std::atomic<bool> stop{false};
  for (int i = 0; i < 60; ++i) CHECK(in_child(child_is_right) == 0);
  std::thread busy([&] {
    while (!stop) (void)region_is_right(50, 0);
  });
  for (int i = 0; i < 40; ++i) CHECK(in_child(child_is_right) == 0);
  stop = true;
  busy.join();
  // A child of a child.
  CHECK(in_child([&] { return child_is_right() && in_child(child_is_right) == 0; }) == 0);
  CHECK(region_is_right(100, 0) && num_threads() == 4);
}

// Where the system starts no more threads, calls run on the threads there are. Runs
// in a process of its own, in which there was no team yet.
void test_no_more_threads() {
  const rlimit little = {std::uint64_t{64} << 20, std::uint64_t{64} << 20};
  set_num_threads(32);  // 8 MiB of stack each
  CHECK(setrlimit(RLIMIT_AS, &little) == 0);
  for (int i = 0; i < 100; ++i) CHECK(region_is_right(100, 0));
}

void test_flush() {
  volatile float tiny = 1e-39f;
  const auto flushed = [&] { return tiny * 0.5f == 0.0f; };
#if defined(__x86_64__)
  const auto mode = [] { return __builtin_ia32_stmxcsr() & ~0x3Fu; };  // without the flags of what happened
  const unsigned before = mode();
#endif
  CHECK(!flushed());
  {
    const FlushGuard outer;
    CHECK(flushed());
    {
      const FlushGuard inner;
      CHECK(flushed());
    }
    CHECK(flushed());
  }
  CHECK(!flushed());
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    std::atomic<int> wrong{0};
    for (int round = 0; round < 20; ++round) {
      parallel_for(12, 0, [&](std::int64_t, int) { wrong += !flushed(); });
      CHECK(!flushed());
    }
    CHECK(wrong == 0);
  }
#if defined(__x86_64__)
  CHECK(mode() == before);
  // A host that rounds upwards gets nearest inside and its own mode back.
  __builtin_ia32_ldmxcsr(0x1F80 | 0x4000);
  volatile float one = 1.0f, small = 1e-10f;
  {
    const FlushGuard guard;
    CHECK(one + small == 1.0f);
  }
  CHECK(one + small != 1.0f && mode() == (0x1F80 | 0x4000));
  __builtin_ia32_ldmxcsr(before);
#endif
}

}  // namespace

int main(int argc, char**) {
  if (argc > 1) {
    test_no_more_threads();
    return check::report();
  }
  test_regions();
  test_flush();
  test_helpers_help();
  test_fit();
  test_teams();
  test_without_the_slow();
  test_many_helpers();
  test_nested();
  test_many_callers();
  test_seats();
  test_fork();
  if (!kSanitized && std::string(parallel_backend()) != "openmp")  // libgomp ends the process there
    CHECK(in_child([] { return execl("/proc/self/exe", "test_parallel", "refuse", nullptr) == 0; }) == 0);
  return check::report();
}
