// The kernels compiled for the baseline; the flags are CMake's. Used through dispatch.h only.
#define SEQCORE_ISA scalar
#include "simd/scalar.h"

#include "kernels/isa.inl"
