// The machine's processors: how many there are for this process, and what a thread has of them. Who may use it: parallel.
#pragma once

#include <chrono>

namespace seqcore {

int usable_processors();  // by affinity and cgroup quota, at least 1

// What the thread has had of its processors: time off them, for a busy neighbour, is no work.
std::chrono::nanoseconds on_core();

}  // namespace seqcore
