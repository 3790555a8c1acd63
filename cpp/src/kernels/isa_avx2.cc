// The kernels compiled for AVX2 and FMA; the flags are CMake's. Used through dispatch.h only.
#define SEQCORE_ISA avx2
#include "simd/avx2.h"

#include "kernels/isa.inl"
