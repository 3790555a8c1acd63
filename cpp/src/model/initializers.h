// Initializers: Keras's, computed in one order from Philox alone (no libm, no LAPACK), so that initial weights are the
// same bits on every machine. Double precision inside, rounded once.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"

namespace seqcore {

// config: {"class_name": "GlorotUniform", "config": {"seed": 1, …}}. Zeros, Ones, Constant(value), RandomUniform(minval,
// maxval), RandomNormal(mean, stddev), TruncatedNormal(mean, stddev), VarianceScaling(scale, mode, distribution),
// Glorot/He/Lecun Uniform/Normal, Orthogonal(gain), Identity(gain). Unknown names and keys: std::invalid_argument.
// Every sampled entry is a pure function of (seed, index), except Orthogonal's. A "seed" in config (non-null) wins over
// `seed`. Defaults, fans and the factor 0.8796 of truncated normals are Keras's. REQUIRES: sizes >= 0; Orthogonal takes
// two axes or more, Identity two (std::invalid_argument).
void initialize(const Json& config, const std::vector<std::int64_t>& shape, std::uint64_t seed, float* out);

}  // namespace seqcore
