#include "base/fork.h"

#include <pthread.h>

#include <atomic>
#include <new>
#include <shared_mutex>

namespace seqcore {
namespace {

std::atomic<int> count{0};

std::shared_mutex& fork_gate() {
  static auto* const gate = new std::shared_mutex;
  return *gate;
}
void before_fork() { fork_gate().lock(); }
void after_fork() { fork_gate().unlock(); }
void in_child() {
  count++;
  new (&fork_gate()) std::shared_mutex;  // the one who locked it was the parent's thread
}
[[maybe_unused]] const int registered = (fork_gate(), pthread_atfork(before_fork, after_fork, in_child));

}  // namespace

int forks() noexcept { return count.load(std::memory_order_relaxed); }

ForkGate::ForkGate() { fork_gate().lock_shared(); }
ForkGate::~ForkGate() { fork_gate().unlock_shared(); }

}  // namespace seqcore
