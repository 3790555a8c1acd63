// What fork() must not tear apart, and how a thing learns that it is in a child: the threads are the parent's then, and a
// lock may be held by one of them for good.
#pragma once

namespace seqcore {

// Between the process that loaded this and now: what was made at another count was made in a parent.
int forks() noexcept;

// Held by a section that a child of fork() must find done: a fork waits for all of them. They are short, or rare.
class ForkGate {
 public:
  ForkGate();
  ~ForkGate();
  ForkGate(const ForkGate&) = delete;
  ForkGate& operator=(const ForkGate&) = delete;
};

}  // namespace seqcore
