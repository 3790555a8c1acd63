// A Team: all parts at once or the caller alone, forks, neighbours, sleep, an end. Built with ThreadSanitizer too.
#ifdef __linux__
#include <sched.h>
#endif
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <memory>
#include <thread>
#include <vector>

#include "base/parallel.h"
#include "base/team.h"
#include "check.h"
#include "processes.h"

using namespace seqcore;

namespace {

// Own helpers: all parts once, at once, meeting; or the caller alone.
void test_parts() {
  for (const int parts : {1, 2, 3, 7}) {
    Team team(parts);
    CHECK(team.parts() >= 1 && team.parts() <= parts);
    std::vector<std::int64_t> sums(static_cast<std::size_t>(parts), 0);
    std::atomic<int> wrong{0}, alone{0};
    std::int64_t expected = 0;
    const int rounds = kSanitized ? 300 : 20000;
    for (int round = 0; round < rounds; ++round) {
      std::atomic<std::int64_t> first{0};
      team.run([&](int part, int count, Meeting& meeting) {
        if (count != 1 && count != team.parts()) wrong++;
        if (count == 1) alone++;
        first += part + 1;
        meeting.wait();  // all have added
        const std::int64_t all = count * (count + 1) / 2;
        if (first != all) wrong++;
        if (part == 0) expected += all;
        for (int p = part; p < parts; p += count) sums[static_cast<std::size_t>(p)] += all;
      });
      if (round % (rounds / 3) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // they fall asleep
    }
    CHECK(wrong == 0 && (parts > 1 || alone == rounds));
    for (const std::int64_t sum : sums) CHECK(sum == expected);
  }
}

// Many teams at once, ended while their helpers spin, sleep or have never been called.
void test_many() {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&wrong, i] {
      for (int round = 0; round < (kSanitized ? 10 : 60); ++round) {
        Team team(2);
        std::atomic<int> done{0};
        int parts = 0;
        for (int k = 0; k < round % 7; ++k)
          team.run([&](int part, int count, Meeting&) {
            done++;
            if (part == 0) parts += count;
          });
        wrong += done != parts;
        if ((round + i) % 11 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
      }
    });
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0);
}

void test_fork() {
  Team team(2);
  const auto once = [](Team& t) {
    std::atomic<int> done{0};
    int parts = 0;
    t.run([&](int part, int count, Meeting& meeting) {
      meeting.wait();
      done++;
      if (part == 0) parts = count;
      meeting.wait();
    });
    return done == parts ? parts : -1;
  };
  CHECK(once(team) >= 1);
  for (int i = 0; i < 5; ++i)
    CHECK(in_child([&] {
            bool right = true;
            for (int k = 0; k < 3; ++k) right &= once(team) == 1;  // its helpers are the parent's
            if (!kSanitized) {                                     // ThreadSanitizer starts none in a child
              Team own(2);
              right &= once(own) >= 1;
            }
            return right;
          }) == 0);
  CHECK(once(team) >= 1);
}

// Own teams beside a thread that takes a processor: whoever is late, a body is run by all or by the caller, and in order.
void test_beside_a_hog() {
#ifdef __linux__
  cpu_set_t all, one;
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  int first = 0;
  while (!CPU_ISSET(first, &all)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  for (const bool caller_too : {false, true}) {
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);  // the hog and the helpers inherit it
    std::atomic<bool> stop{false};
    std::thread hog([&] {
      while (!stop) {
      }
    });
    {
      Team team(3);
      if (!caller_too) sched_setaffinity(0, sizeof all, &all);
      int wrong = 0;
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(kSanitized ? 400 : 200);
      for (int round = 1; std::chrono::steady_clock::now() < end; ++round) {
        int step[3] = {}, size = 0;  // plain: what a part wrote before a meeting the others read after
        team.run([&](int part, int parts, Meeting& meeting) {
          if (part == 0) size = parts;
          for (int i = 1; i <= 3; ++i) {
            step[part] += round;
            meeting.wait();
            bool right = true;
            for (int other = 0; other < parts; ++other) right = right && step[other] == i * round;
            meeting.wait();
            if (!right) step[part] = -1000000000;
          }
        });
        for (int part = 0; part < 3; ++part) wrong += step[part] != (part < size ? 3 * round : 0);
        wrong += size != 1 && size != 3;
      }
      CHECK(wrong == 0);
    }
    stop = true;
    hog.join();
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
  }
#endif
}

// Helpers start with a team, sleep when nobody calls, wake for a later call, see denormals as zero, and end with it.
void test_life() {
  const int before = task_count();
  volatile float tiny = 1e-39f;
  {
    std::unique_ptr<Team> team;
    std::thread([&] { team = std::make_unique<Team>(2); }).join();  // made, run and ended on different threads
    CHECK(team->parts() == 2);
    std::atomic<int> wrong{0};
    const auto size = [&] {
      int parts = 0;
      team->run([&](int part, int count, Meeting& meeting) {
        if (part == 0) parts = count;
        wrong += tiny * 0.5f != 0.0f;
        const std::thread::id self = std::this_thread::get_id();
        parallel_for(3, 0,
                     [&](std::int64_t, int worker) { wrong += worker != 0 || std::this_thread::get_id() != self; });
        meeting.wait();
      });
      wrong += tiny * 0.5f == 0.0f;
      return parts;
    };
    const auto sooner_or_later = [&](int parts, int rest) {
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (std::chrono::steady_clock::now() < end) {
        if (size() == parts) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(rest));
      }
      return false;
    };
    for (int round = 0; round < 5; ++round) {
      CHECK(sooner_or_later(2, 0));   // awake
      CHECK(sooner_or_later(1, 10));  // asleep
    }
    std::thread([&] { CHECK(sooner_or_later(2, 0)); }).join();
    CHECK(wrong == 0 && task_count() >= before + 1);
    bool idle = false;
    for (int i = 0; i < 20 && !idle; ++i) {  // in 50 ms of rest no more than the millisecond of spinning, nearly always
      (void)size();
      const std::clock_t start = std::clock();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      idle = std::clock() - start < CLOCKS_PER_SEC / 50;
    }
    CHECK(idle);
    std::thread([&] { team.reset(); }).join();
  }
  for (int i = 0; i < 2000 && task_count() > before; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(task_count() <= before);
  // Ended about when its helpers fall asleep.
  for (int i = 0; i < 60; ++i) {
    Team team(3);
    if (i % 2) team.run([](int, int, Meeting&) {});
    std::this_thread::sleep_for(std::chrono::microseconds(900 + 7 * i));
  }
}

// 100000 bodies of nothing much, whose plain writes are the caller's afterwards.
void test_tiny_bodies() {
  Team team(2);
  std::int64_t sums[2] = {}, expected = 0;
  for (int i = 0; i < (kSanitized ? 20000 : 100000); ++i) {
    team.run([&](int part, int parts, Meeting&) {
      for (int p = part; p < 2; p += parts) sums[p] += i;
    });
    expected += i;
    if (sums[0] != expected || sums[1] != expected) break;
  }
  CHECK(sums[0] == expected && sums[1] == expected);
}

// A child runs its parent's team alone and ends it without waiting for threads that are not there, whatever these did.
void test_fork_ends() {
  for (const int rest : {0, 0, 5}) {
    auto team = std::make_unique<Team>(3);
    team->run([](int, int, Meeting& meeting) { meeting.wait(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(rest));
    CHECK(in_child([&] {
            int parts = 0;
            team->run([&](int, int count, Meeting& meeting) {
              meeting.wait();
              parts = count;
            });
            team.reset();
            return parts == 1;
          }) == 0);
  }
  Team busy(2);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) busy.run([](int, int, Meeting& meeting) { meeting.wait(); });
  });
  for (int i = 0; i < 10; ++i)
    CHECK(in_child([] {
            if (kSanitized) return true;
            Team own(2);
            int parts = 0;
            for (int k = 0; k < 1000 && parts < 2; ++k) {
              own.run([&](int part, int count, Meeting&) {
                if (part == 0) parts = count;
              });
              std::this_thread::sleep_for(std::chrono::milliseconds(parts < 2));
            }
            return parts == 2;
          }) == 0);
  stop = true;
  other.join();
}

// Where the system starts no more threads, a team has fewer parts. Runs in a process of its own.
void test_no_more_threads() {
  const rlimit little = {std::uint64_t{64} << 20, std::uint64_t{64} << 20};
  CHECK(setrlimit(RLIMIT_AS, &little) == 0);
  Team team(64);  // 8 MiB of stack each
  CHECK(team.parts() < 64);
  for (int i = 0; i < 100; ++i) {
    std::atomic<int> ran{0};
    int parts = 0;
    team.run([&](int part, int count, Meeting& meeting) {
      if (part == 0) parts = count;
      ran++;
      meeting.wait();
    });
    CHECK(ran == parts && (parts == 1 || parts == team.parts()));
  }
}

}  // namespace

int main(int argc, char**) {
  if (argc > 1) {
    test_no_more_threads();
    return check::report();
  }
  set_num_threads(3);
  test_parts();
  test_many();
  test_fork();
  test_tiny_bodies();
  test_life();
  test_beside_a_hog();
  test_fork_ends();
  if (!kSanitized) CHECK(in_child([] { return execl("/proc/self/exe", "test_team", "refuse", nullptr) == 0; }) == 0);
  return check::report();
}
