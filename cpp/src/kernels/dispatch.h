// Which ISA's kernels this process uses. Who may use it: everything above the kernels.
#pragma once

#include <vector>

#include "kernels/kernels.h"

namespace seqcore {

// The table of the best ISA that the processor and the operating system offer, chosen at the first call. The
// environment variable SEQCORE_ISA (scalar, avx2, avx512, neon; empty = automatic), read then, forces one: throws
// std::invalid_argument, naming the choices, if this machine cannot run it.
const Kernels& kernels();

// The ISAs this machine can run, worst first. "scalar" is always there.
std::vector<const char*> available_isas();

// The table of one of them, null for any other name.
const Kernels* kernels_for(const char* isa);

// Asks the system for the tiles (AMX) in which some processors multiply words, once for the whole process, as Linux wants
// it. Without them those products are slower, and have the same bits. Not done at import: a process that has them needs
// larger stacks for its signals. Whether this process's kernels have them now.
bool allow_tiles() noexcept;

}  // namespace seqcore
