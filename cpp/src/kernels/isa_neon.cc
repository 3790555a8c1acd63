// The kernels compiled for AArch64's Advanced SIMD; the flags are CMake's. Used through dispatch.h only.
#define SEQCORE_ISA neon
#include "simd/neon.h"

#include "kernels/isa.inl"
