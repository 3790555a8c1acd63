// The machine's processors: how many there are for this process, and where a thread is. Who may use it: parallel.
#pragma once

#include <chrono>

namespace seqcore {

int usable_processors();  // by affinity and cgroup quota, at least 1

// The processor that the thread is on, or -1: not known.
int processor();
bool on_processor(int cpu);
// Leaves the processor that the thread is on to whoever else wants it; false if it may use no other.
bool leave_processor();
// What the thread has had of its processors: time off them, for a busy neighbour, is no work.
std::chrono::nanoseconds on_core();

}  // namespace seqcore
