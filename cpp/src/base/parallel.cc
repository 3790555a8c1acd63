#include "base/parallel.h"

#include <pthread.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "base/processors.h"

namespace seqcore {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSpin = std::chrono::microseconds(40);   // what a thread may burn before it sleeps
constexpr auto kIdle = std::chrono::microseconds(200);  // a helper without work: to wake one takes 50 to 100
constexpr auto kNap = std::chrono::microseconds(20);    // between looks at a meeting where a part is missing
// Helpers are judged by so long a time of regions. If alone the caller would have been as fast, or the helpers bring less
// than a quarter of their number, there are half as many of them for kFewer, twice as long each time.
constexpr auto kTrial = std::chrono::milliseconds(10);
constexpr auto kFewer = std::chrono::milliseconds(100), kFewerAtMost = std::chrono::milliseconds(400);

// Atomics only, never a lock: the child of a fork may find them in any state, and in_child puts them right.
std::atomic<int> default_count{0};  // 0: not known yet
std::atomic<int> wanted{0};         // 0: the default
std::atomic<bool> serial{false};
std::atomic<int> forks{0};  // between the process that loaded this and now

thread_local bool inside = false;  // a body runs on this thread

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Whether `ready` came true while spinning.
template <class F>
bool spin(F&& ready, Clock::duration patience = kSpin) {
  const auto end = Clock::now() + patience;
  do {
    for (int i = 0; i < 64; i++) {
      if (ready()) return true;
      pause();
    }
  } while (Clock::now() < end);
  return false;
}

// Spins, and beyond that gives the processor away between looks: whoever is missing may be waiting for it.
template <class F>
void wait_for(F&& ready) {
  if (!spin(ready))
    while (!ready()) std::this_thread::sleep_for(kNap);
}

}  // namespace

Grid fit(Grid most, int threads) {
  Grid best{1, 1};
  for (int parts = std::min(most.parts, threads); parts > 0; parts--) {
    const int teams = std::min(most.teams, threads / parts);
    if (teams * parts > best.seats()) best = {teams, parts};
  }
  return best;
}

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
    const FlushGuard flush;
    inside = true;
    std::int64_t done = 0;
    for (std::int64_t task; (task = take_task(share)) >= 0; ++done) body_(context_, task, worker);
    inside = false;
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
    const FlushGuard flush;
    inside = true;
    const auto [teams, parts] = grid_;
    const int team = seat / parts;
    const std::chrono::nanoseconds start = on_core();
    seat_body_(context_, {team, teams, seat % parts, parts, meetings_[team]});
    worked_.fetch_add((on_core() - start).count(), std::memory_order_relaxed);
    inside = false;
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

void Meeting::wait() {
  if (parts_ == 1) return;
  const std::uint32_t round = round_.load(std::memory_order_relaxed);
  if (here_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<std::uint32_t>(parts_)) {
    here_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  const auto over = [&] { return round_.load(std::memory_order_acquire) != round; };
  for (int i = 0; i < 64; ++i) {
    if (over()) return;
    pause();
  }
  const Clock::time_point start = Clock::now();
  wait_for(over);
  const std::chrono::nanoseconds waited = Clock::now() - start;
  waited_.fetch_add(waited.count(), std::memory_order_relaxed);
  const std::chrono::nanoseconds spun = std::min<std::chrono::nanoseconds>(waited, kSpin);  // then it naps
  spun_.fetch_add(spun.count(), std::memory_order_relaxed);
}

namespace {

std::atomic<Pool*> pool{nullptr};

Pool& the_pool() {
  Pool* now = pool.load();
  if (now) return *now;
  auto* fresh = new Pool;
  if (pool.compare_exchange_strong(now, fresh)) return *fresh;
  delete fresh;
  return *now;
}

std::shared_mutex& fork_gate() {
  static auto* const gate = new std::shared_mutex;
  return *gate;
}
void before_fork() { fork_gate().lock(); }
void after_fork() { fork_gate().unlock(); }

// The child has none of the helpers, and whatever state the pool was in: it is left behind.
void in_child() {
  pool = nullptr;
  inside = false;
  serial = true;
  forks++;
  new (&fork_gate()) std::shared_mutex;  // the one who locked it was the parent's thread
}
[[maybe_unused]] const int registered = (fork_gate(), pthread_atfork(before_fork, after_fork, in_child));

}  // namespace

ForkGate::ForkGate() { fork_gate().lock_shared(); }
ForkGate::~ForkGate() { fork_gate().unlock_shared(); }

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
  const FlushGuard flush;
  const bool outer = inside;
  inside = true;
  for (std::int64_t task = 0; task < tasks; ++task) body(context, task, 0);
  inside = outer;
}

void run_teams(Grid most, double patience, SeatBody body, void* context) {
  const auto patient = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(patience));
  const Grid grid = fit({std::min(most.teams, kMostTeams), most.parts}, threads_for(most.seats()));
  if (grid.seats() > 1 && the_pool().run_teams(grid, patient, body, context)) return;
  const FlushGuard flush;
  const bool outer = inside;
  inside = true;
  Meeting alone;
  body(context, {0, 1, 0, 1, alone});
  inside = outer;
}

}  // namespace detail

// ------------------------------------------------------------------------------------------------------------- Team

// A helper's word says what it is at. The caller claims all that are awake, and only then lets them go, or back.
struct Team::Shared {
  enum State : int { asleep, awake, claimed, working, over };
  static constexpr auto kTeamSpin = std::chrono::milliseconds(1);
  static constexpr auto kTooLong = std::chrono::microseconds(200);
  static constexpr auto kDoWithout = std::chrono::milliseconds(5);

  struct alignas(64) Helper {
    std::atomic<int> state{awake};
    std::thread thread;
  };
  std::unique_ptr<Helper[]> helpers;
  int count = 0;
  const int born = forks;
  Meeting meeting;
  detail::TeamBody body = nullptr;
  void* context = nullptr;
  Clock::time_point alone_until{};
  std::mutex gate;
  std::condition_variable wake;

  void help(Helper& me, int part) {
    const FlushGuard flush;
    inside = true;
    for (;;) {
      int state = awake;
      const auto called = [&] {
        state = me.state.load(std::memory_order_acquire);
        return state == working || state == over;
      };
      if (!spin(called, kTeamSpin)) {
        state = awake;
        if (me.state.compare_exchange_strong(state, asleep)) {
          std::unique_lock<std::mutex> lock(gate);
          wake.wait(lock, [&] { return me.state.load() != asleep; });
        }
        continue;
      }
      if (state == over) return;
      body(context, part, meeting.parts_, meeting);
      me.state.store(awake, std::memory_order_release);
    }
  }

  // All helpers, or none; those that sleep are woken for the next time.
  bool claim() {
    int got = 0;
    bool sleeper = false;
    for (; got < count; got++) {
      int state = awake;
      if (!helpers[got].state.compare_exchange_strong(state, claimed, std::memory_order_acquire)) break;
    }
    if (got == count) return count > 0;
    for (int i = 0; i < got; i++) helpers[i].state.store(awake, std::memory_order_release);
    for (int i = 0; i < count; i++) {
      int state = asleep;
      sleeper |= helpers[i].state.compare_exchange_strong(state, awake);
    }
    if (sleeper) {
      {
        const std::lock_guard<std::mutex> lock(gate);
      }
      wake.notify_all();
    }
    return false;
  }
};

Team::Team(int parts) : shared_(std::make_unique<Shared>()) {
  Shared& s = *shared_;
  s.helpers = std::make_unique<Shared::Helper[]>(static_cast<std::size_t>(std::max(parts - 1, 0)));
  try {
    for (; s.count < parts - 1; s.count++) {
      Shared::Helper& helper = s.helpers[s.count];
      const int part = s.count + 1;
      helper.thread = std::thread([&s, &helper, part] { s.help(helper, part); });
    }
  } catch (const std::system_error&) {  // no more threads: fewer parts
  } catch (const std::bad_alloc&) {     // nor memory for them
  }
  s.meeting.parts_ = s.count + 1;
}

Team::~Team() {
  Shared& s = *shared_;
  if (s.born != forks) {  // the threads are the parent's
    static_cast<void>(shared_.release());
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(s.gate);
    for (int i = 0; i < s.count; i++) s.helpers[i].state = Shared::over;
  }
  s.wake.notify_all();
  for (int i = 0; i < s.count; i++) s.helpers[i].thread.join();
}

int Team::parts() const { return shared_->meeting.parts_; }

void Team::run(detail::TeamBody body, void* context) noexcept {
  Shared& s = *shared_;
  const FlushGuard flush;
  const bool outer = inside;
  inside = true;
  const bool waits = s.alone_until != Clock::time_point{} && Clock::now() < s.alone_until;
  if (s.born != forks.load(std::memory_order_relaxed) || waits || !s.claim()) {
    Meeting alone;
    body(context, 0, 1, alone);
  } else {
    s.body = body;
    s.context = context;
    s.meeting.waited_.store(0, std::memory_order_relaxed);
    for (int i = 0; i < s.count; i++) s.helpers[i].state.store(Shared::working, std::memory_order_release);
    body(context, 0, s.meeting.parts_, s.meeting);
    for (int i = 0; i < s.count; i++)
      while (s.helpers[i].state.load(std::memory_order_acquire) == Shared::working) pause();
    s.alone_until = s.meeting.waited() > Shared::kTooLong ? Clock::now() + Shared::kDoWithout : Clock::time_point{};
  }
  inside = outer;
}

// MXCSR: all exceptions masked, round to nearest, FTZ and DAZ. FPCR: FZ and nothing else.
#if defined(__x86_64__)
constexpr unsigned kMode = 0x1F80 | 0x8040, kFlags = 0x3F;
FlushGuard::FlushGuard() noexcept : saved_(__builtin_ia32_stmxcsr()) {
  if ((saved_ & ~std::uint64_t{kFlags}) != kMode) __builtin_ia32_ldmxcsr(kMode);
}
FlushGuard::~FlushGuard() {
  if ((saved_ & ~std::uint64_t{kFlags}) != kMode) __builtin_ia32_ldmxcsr(static_cast<unsigned>(saved_));
}
#elif defined(__aarch64__)
constexpr std::uint64_t kMode = std::uint64_t{1} << 24;
FlushGuard::FlushGuard() noexcept {
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
  if (saved_ != kMode) __asm__ volatile("msr fpcr, %0" : : "r"(kMode) : "memory");
}
FlushGuard::~FlushGuard() {
  if (saved_ != kMode) __asm__ volatile("msr fpcr, %0" : : "r"(saved_) : "memory");
}
#else
FlushGuard::FlushGuard() noexcept : saved_(0) {}
FlushGuard::~FlushGuard() = default;
#endif

}  // namespace seqcore
