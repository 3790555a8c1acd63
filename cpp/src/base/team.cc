#include "base/team.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "base/fork.h"
#include "base/parallel.h"
#include "base/spin.h"

namespace seqcore {

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
  const int born = forks();
  Meeting meeting;
  Body body = nullptr;
  void* context = nullptr;
  Clock::time_point alone_until{};
  std::mutex gate;
  std::condition_variable wake;

  void help(Helper& me, int part) {
    const BodyScope scope;
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
      body(context, part, count + 1, meeting);
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
}

Team::~Team() {
  Shared& s = *shared_;
  if (s.born != forks()) {  // the threads are the parent's
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

int Team::parts() const { return shared_->count + 1; }

void Team::run(Body body, void* context) noexcept {
  Shared& s = *shared_;
  const BodyScope scope;
  const bool waits = s.alone_until != Clock::time_point{} && Clock::now() < s.alone_until;
  if (s.born != forks() || waits || !s.claim()) {
    Meeting alone;
    body(context, 0, 1, alone);
  } else {
    s.body = body;
    s.context = context;
    s.meeting.begin(s.count + 1);
    for (int i = 0; i < s.count; i++) s.helpers[i].state.store(Shared::working, std::memory_order_release);
    body(context, 0, s.count + 1, s.meeting);
    for (int i = 0; i < s.count; i++)
      while (s.helpers[i].state.load(std::memory_order_acquire) == Shared::working) pause();
    s.alone_until = s.meeting.waited() > Shared::kTooLong ? Clock::now() + Shared::kDoWithout : Clock::time_point{};
  }
}

}  // namespace seqcore
