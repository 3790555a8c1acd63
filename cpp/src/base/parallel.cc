#include "base/parallel.h"

#include <pthread.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "base/processors.h"
#include "base/spin.h"

namespace seqcore {
namespace {

constexpr auto kIdle = std::chrono::microseconds(200);  // a helper without work: to wake one takes 50 to 100
// Helpers are judged by so long a time of regions. If alone the caller would have been as fast, or the helpers bring less
// than a quarter of their number, there are half as many of them for kFewer, twice as long each time.
constexpr auto kTrial = std::chrono::milliseconds(10);
constexpr auto kFewer = std::chrono::milliseconds(100), kFewerAtMost = std::chrono::milliseconds(400);

// Atomics only, never a lock: the child of a fork may find them in any state, and in_child puts them right.
std::atomic<int> default_count{0};  // 0: not known yet
std::atomic<int> wanted{0};         // 0: the default
std::atomic<bool> serial{false};

thread_local bool inside = false;  // a body runs on this thread

// The helpers and the one job they may join. A caller opens the door, works, closes it when no task is left, and waits
// only for those who came in: a helper that the system has not scheduled in time is not waited for, so a busy neighbour
// costs no more than its core. One that is taken off its core inside a job does keep the caller waiting: then there are
// fewer for a while, or none. Never destroyed: helpers live as long as the process.
class Pool {
 public:
  // Runs the job with at most `workers` threads, the caller included; false if the helpers are taken or not worth it.
  bool run(std::int64_t tasks, int workers, detail::Body body, void* context) {
    const int helpers = take(workers - 1);
    if (helpers == 0) return false;
    body_ = body;
    context_ = context;
    shares_ = static_cast<int>(std::min<std::int64_t>(helpers + 1, kMostShares));
    for (int i = 0; i < shares_; i++)
      left_[i].tasks.store(tasks * i / shares_ << 32 | tasks * (i + 1) / shares_, std::memory_order_relaxed);
    seat_body_ = nullptr;
    const Clock::time_point called = Clock::now();
    open(helpers);
    const Clock::time_point start = Clock::now();
    const std::int64_t mine = work(0, 0);
    door_.fetch_and(~kOpen);
    const Clock::duration worked = Clock::now() - start;
    await_helpers();
    if (mine > 0) settle(helpers, worked * tasks / mine, Clock::now() - called);
    taken_.store(false, std::memory_order_release);
    return true;
  }

  // How many helpers callers may have now.
  int most() const {
    const int most = most_.load(std::memory_order_relaxed);
    return most < kMaxThreads && Clock::now().time_since_epoch().count() >= fewer_until_ ? kMaxThreads : most;
  }

  bool awake() const { return helpers_ > 0 && sleepers_ == 0; }

  bool run_teams(Grid most, Clock::duration patience, detail::SeatBody body, void* context) {
    const int helpers = take(most.seats() - 1);
    if (helpers == 0) return false;
    seat_body_ = body;
    context_ = context;
    gathered_.store(0, std::memory_order_relaxed);
    const Clock::time_point called = Clock::now();
    open(helpers);
    while (joined(door_.load()) < helpers && Clock::now() - called < patience) pause();
    const int came = joined(door_.fetch_and(~kOpen)) + 1;
    grid_ = fit(most, came);
    for (int i = 0; i < grid_.teams; i++) meetings_[i].begin(grid_.parts);
    give_seats(came);
    worked_.store(0, std::memory_order_relaxed);
    gathered_.store(1, std::memory_order_release);
    sit(0);
    await_helpers();
    std::chrono::nanoseconds worked(worked_.load(std::memory_order_relaxed));
    for (int i = 0; i < grid_.teams; i++) worked -= meetings_[i].spun();
    settle(helpers, worked, Clock::now() - called);
    taken_.store(false, std::memory_order_release);
    return true;
  }

 private:
  // The door: number of the job | how many may join | how many did | how many are in | open.
  // What is left of a share of the tasks: the first << 32 | the end.
  static constexpr int kMostShares = 64;
  static constexpr std::int64_t kBegin = std::int64_t{1} << 32;
  static std::int64_t begin_of(std::int64_t tasks) { return tasks >> 32; }
  static std::int64_t end_of(std::int64_t tasks) { return tasks & (kBegin - 1); }
  struct alignas(64) Left {
    std::atomic<std::int64_t> tasks{0};
  };

  static constexpr std::uint64_t kOpen = 1;
  static constexpr int kActiveAt = 1, kJoinedAt = 13, kLimitAt = 25, kEpochAt = 37;
  static constexpr std::uint64_t kCount = 0xFFF, kActiveOne = std::uint64_t{1} << kActiveAt,
                                 kActive = kCount << kActiveAt, kJoinedOne = std::uint64_t{1} << kJoinedAt,
                                 kEpochOne = std::uint64_t{1} << kEpochAt, kEpoch = ~(kEpochOne - 1);
  static int joined(std::uint64_t door) { return static_cast<int>(door >> kJoinedAt & kCount); }
  static int room(std::uint64_t door) { return static_cast<int>(door >> kLimitAt & kCount) - joined(door); }

  // How many of so many helpers the caller has now; it is the taker if there are any.
  int take(int helpers) {
    if (taken_.exchange(true, std::memory_order_acquire)) return 0;
    most_ = most();
    helpers = std::min(helpers, most_.load(std::memory_order_relaxed));
    if (helpers == 0)
      taken_.store(false, std::memory_order_release);
    else
      grow(helpers);
    return helpers;
  }

  // After a region with so many helpers that took so long, and would have taken about `alone` without them.
  void settle(int helpers, Clock::duration alone, Clock::duration took) {
    alone_ += alone;
    took_ += took;
    needed_ += took * std::max(helpers + 1, 4) / 4;
    if (took_ < kTrial) return;
    if (alone_ < needed_) {
      most_ = std::min<int>(most_, num_threads() - 1) / 2;
      fewer_for_ = std::clamp<Clock::duration>(2 * fewer_for_, kFewer, kFewerAtMost);
      fewer_until_ = (Clock::now() + fewer_for_).time_since_epoch().count();
    } else if (most_ == kMaxThreads) {
      fewer_for_ = Clock::duration(0);
    }
    alone_ = took_ = needed_ = Clock::duration(0);
  }

  void open(int helpers) {
    const std::uint64_t epoch = (door_.load(std::memory_order_relaxed) & kEpoch) + kEpochOne;
    door_.store(epoch | kOpen | static_cast<std::uint64_t>(helpers) << kLimitAt);
    rouse(helpers);
  }

  // Wakes two, who wake two each if there is room for more: to wake many takes longer than a small region.
  void rouse(int room) {
    const int asleep = std::min(sleepers_.load(), room);
    if (asleep <= 0) return;
    { const std::lock_guard<std::mutex> lock(gate_); }
    wake_.notify_one();
    if (asleep > 1) wake_.notify_one();
  }

  void await_helpers() {
    const auto empty = [this] { return (door_.load(std::memory_order_acquire) & kActive) == 0; };
    if (spin(empty)) return;
    std::unique_lock<std::mutex> lock(gate_);
    waiting_.store(true);
    idle_.wait(lock, [this] { return (door_.load() & kActive) == 0; });
    waiting_.store(false);
  }

  // A task of one's own share from its front, else of another's from its end; -1: there is none.
  std::int64_t take_task(int own) {
    for (int i = 0; i < shares_; i++) {
      std::atomic<std::int64_t>& left = left_[(own + i) % shares_].tasks;
      for (std::int64_t now = left.load(std::memory_order_relaxed); begin_of(now) < end_of(now);)
        if (left.compare_exchange_weak(now, i == 0 ? now + kBegin : now - 1, std::memory_order_relaxed))
          return i == 0 ? begin_of(now) : end_of(now) - 1;
    }
    return -1;
  }
  bool any_task() const {
    return std::any_of(left_, left_ + shares_, [](const Left& left) {
      const std::int64_t now = left.tasks.load(std::memory_order_relaxed);
      return begin_of(now) < end_of(now);
    });
  }

  std::int64_t work(int worker, int share) {  // returns how many tasks it did
    const BodyScope scope;
    std::int64_t done = 0;
    for (std::int64_t task; (task = take_task(share)) >= 0; ++done) body_(context_, task, worker);
    return done;
  }

  // Where it sat the last time, who can: it has in its cache what it read there. Who has joined may not have said so yet.
  void give_seats(int came) {
    wait_for([&] {
      int said = 1;
      for (int id = 0; id < helpers_; id++) said += came_[id].load(std::memory_order_acquire);
      return said == came;
    });
    std::fill_n(free_, came, true);
    for (int id = 0; id < helpers_; id++) {
      if (!came_[id].load(std::memory_order_relaxed)) continue;
      int& seat = seats_[id];
      if (seat < came && free_[seat])
        free_[seat] = false;
      else
        seat = 0;  // the caller's
    }
    int next = 1;
    for (int id = 0; id < helpers_; id++) {
      if (!came_[id].load(std::memory_order_relaxed)) continue;
      came_[id].store(false, std::memory_order_relaxed);
      if (seats_[id] > 0) continue;
      while (!free_[next]) next++;
      seats_[id] = next++;
    }
  }

  void sit(int seat) {
    if (seat >= grid_.seats()) return;
    const BodyScope scope;
    const auto [teams, parts] = grid_;
    const int team = seat / parts;
    const std::chrono::nanoseconds start = on_core();
    seat_body_(context_, {team, teams, seat % parts, parts, meetings_[team]});
    worked_.fetch_add((on_core() - start).count(), std::memory_order_relaxed);
  }

  // Joins a job that this helper has not seen; its number is then in `seen`.
  bool join(std::uint64_t& seen, int& worker) {
    std::uint64_t door = door_.load();
    while ((door & kOpen) && (door & kEpoch) != seen) {
      if (room(door) <= 0) break;
      if (!door_.compare_exchange_weak(door, door + kJoinedOne + kActiveOne)) continue;
      seen = door & kEpoch;
      worker = joined(door) + 1;
      return true;
    }
    return false;
  }

  void help(int id) {
    std::uint64_t seen = 0;
    int worker = 0;
    for (;;) {
      const auto joined = [&] { return join(seen, worker); };
      const bool slept = !spin(joined, kIdle);
      if (slept) {
        std::unique_lock<std::mutex> lock(gate_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, joined);
        sleepers_.fetch_sub(1);
      }
      if (seat_body_) came_[id].store(true, std::memory_order_release);
      if (slept) {
        const std::uint64_t door = door_.load();
        if ((door & kOpen) && (seat_body_ || any_task())) rouse(room(door));
      }
      if (seat_body_) {
        wait_for([this] { return gathered_.load(std::memory_order_acquire) != 0; });
        sit(seats_[id]);
      } else {
        work(worker, id % (shares_ - 1) + 1);
      }
      const std::uint64_t door = door_.fetch_sub(kActiveOne);
      if ((door & kActive) == kActiveOne && waiting_.load()) {
        {
          const std::lock_guard<std::mutex> lock(gate_);
        }
        idle_.notify_one();
      }
    }
  }

  // With SEQCORE_OPENMP the helpers are the team of one OpenMP region that never ends, so that OMP_PLACES and OMP_PROC_BIND
  // mean what they say. Regions of the callers' own would keep a team for each of them, hang in the child of a fork, and
  // end in a barrier at which everybody waits for everybody. (libgomp ends the process when it cannot start a thread.)
  void grow(int helpers) {
    try {
#ifdef _OPENMP
      if (const int more = helpers - helpers_; more > 0) {
        std::thread([this, more, first = helpers_.load()] {
#pragma omp parallel num_threads(more)
          help(first + omp_get_thread_num());
        }).detach();
        helpers_ = helpers;
      }
#else
      for (; helpers_ < helpers; helpers_++) std::thread([this, id = helpers_.load()] { help(id); }).detach();
#endif
    } catch (const std::system_error&) {  // no more threads: those there are do the tasks
    } catch (const std::bad_alloc&) {     // nor memory for them
    }
  }

  std::atomic<bool> taken_{false};
  // The taker's to write:
  std::atomic<int> helpers_{0};
  std::atomic<int> most_{kMaxThreads};  // these two anybody reads
  std::atomic<Clock::rep> fewer_until_{0};
  Clock::duration fewer_for_{}, alone_{}, took_{}, needed_{};
  int shares_ = 0;
  detail::Body body_ = nullptr;
  detail::SeatBody seat_body_ = nullptr;
  void* context_ = nullptr;
  Grid grid_{1, 1};
  Meeting meetings_[kMostTeams];
  int seats_[kMaxThreads] = {};  // of the helpers
  bool free_[kMaxThreads] = {};  // of the seats
  std::atomic<bool> came_[kMaxThreads] = {};
  std::atomic<int> gathered_{0};
  std::atomic<std::int64_t> worked_{0};  // ns, of all seats together
  Left left_[kMostShares];
  alignas(64) std::atomic<std::uint64_t> door_{0};
  std::mutex gate_;
  std::condition_variable wake_, idle_;
  std::atomic<int> sleepers_{0};
  std::atomic<bool> waiting_{false};
};

std::atomic<Pool*> pool{nullptr};

Pool& the_pool() {
  Pool* now = pool.load();
  if (now) return *now;
  auto* fresh = new Pool;
  if (pool.compare_exchange_strong(now, fresh)) return *fresh;
  delete fresh;
  return *now;
}

// The child has none of the helpers, and whatever state the pool was in: it is left behind.
void in_child() {
  pool = nullptr;
  inside = false;
  serial = true;
}
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, in_child);

}  // namespace

Grid fit(Grid most, int threads) {
  Grid best{1, 1};
  for (int parts = std::min(most.parts, threads); parts > 0; parts--) {
    const int teams = std::min(most.teams, threads / parts);
    if (teams * parts > best.seats()) best = {teams, parts};
  }
  return best;
}

BodyScope::BodyScope() noexcept : outer_(inside) { inside = true; }
BodyScope::~BodyScope() { inside = outer_; }

int default_threads() {
  int count = default_count;
  if (count == 0) default_count = count = usable_processors();  // several threads may find it at once: the same
  return count;
}

const char* parallel_backend() {
#ifdef _OPENMP
  return "openmp";
#else
  return "std::thread";
#endif
}

int num_threads() {
  if (serial) return 1;
  const int count = wanted;
  return count > 0 ? count : default_threads();
}

int threads_now() {
  const Pool* const helpers = pool;
  return helpers ? std::min(num_threads(), helpers->most() + 1) : num_threads();
}

bool helpers_awake() {
  const Pool* const helpers = pool;
  return helpers && helpers->awake();
}

void set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads)
    throw std::invalid_argument("set_num_threads: n must be in [1, " + std::to_string(kMaxThreads) + "], got " +
                                std::to_string(n));
  wanted = n;
  serial = false;
}

namespace detail {

int threads_for(int max_threads) {
  const int threads = inside ? 1 : num_threads();
  return max_threads > 0 ? std::min(max_threads, threads) : threads;
}

void run(std::int64_t tasks, int max_threads, Body body, void* context) {
  if (tasks <= 0) return;
  const auto workers = static_cast<int>(std::min<std::int64_t>(tasks, threads_for(max_threads)));
  if (workers > 1 && the_pool().run(tasks, workers, body, context)) return;
  const BodyScope scope;
  for (std::int64_t task = 0; task < tasks; ++task) body(context, task, 0);
}

void run_teams(Grid most, double patience, SeatBody body, void* context) {
  const auto patient = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(patience));
  const Grid grid = fit({std::min(most.teams, kMostTeams), most.parts}, threads_for(most.seats()));
  if (grid.seats() > 1 && the_pool().run_teams(grid, patient, body, context)) return;
  const BodyScope scope;
  Meeting alone;
  body(context, {0, 1, 0, 1, alone});
}

}  // namespace detail
}  // namespace seqcore
