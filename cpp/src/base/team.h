// Threads of an owner's own, for work that is too short for the process's helpers (parallel.h).
#pragma once

#include <memory>
#include <type_traits>

#include "base/meeting.h"

namespace seqcore {

// Helpers start with a team and end with it, spin between bodies of microseconds for about a millisecond, then sleep. The
// caller does a body alone where one sleeps (and wakes it for the next), after one kept the others waiting (for a while),
// and in the child of a fork (for good).
class Team {
 public:
  explicit Team(int parts);  // REQUIRES: parts >= 1. Where threads cannot be started it has fewer parts.
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  int parts() const;

  // body(part, parts(), meeting) on all parts at once, or body(0, 1, meeting) on the caller. One call at a time.
  template <class F>
  void run(F&& body) noexcept {
    using Plain = std::remove_reference_t<F>;
    run([](void* context, int part, int parts,
           Meeting& meeting) { (*static_cast<Plain*>(context))(part, parts, meeting); },
        &body);
  }

 private:
  struct Shared;
  using Body = void (*)(void* context, int part, int parts, Meeting& meeting);
  void run(Body body, void* context) noexcept;
  std::unique_ptr<Shared> shared_;
};

}  // namespace seqcore
