// The kernels compiled for AVX-512 F, DQ, VL, BW; the flags are CMake's. Used through dispatch.h only.
#define SEQCORE_ISA avx512
#include "simd/avx512.h"

#include "kernels/isa.inl"
