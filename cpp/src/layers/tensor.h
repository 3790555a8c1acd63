// What flows between layers: a view of floats with the shape of one sample and the batch.
#pragma once

#include <cstdint>
#include <string>

namespace seqcore {

// The shape of one sample, batch excluded; -1 stands for "any" (time steps, before the data is there).
struct Dims {
  static constexpr int kMaxRank = 6;
  int rank = 0;
  std::int64_t d[kMaxRank] = {};

  std::int64_t features() const { return d[rank - 1]; }
  bool operator==(const Dims& o) const {
    if (rank != o.rank) return false;
    for (int i = 0; i < rank; i++)
      if (d[i] != o.d[i]) return false;
    return true;
  }
};

// "(None, 10, 8)": the shape as Keras writes it, batch first.
std::string to_string(const Dims& dims, std::int64_t batch = -1);

// Sample dims (T, d2, …, dk, F) are stored time-major, [T][batch][d2]…[dk][ld], rank 1 as [batch][ld]: row r of T*batch
// times inner. Integer inputs have no feature axis: dims (T, d2, …) as ids[T][batch][d2]….
struct Tensor {
  float* data = nullptr;
  const std::int32_t* ids = nullptr;
  Dims dims;
  std::int64_t batch = 0;
  std::int64_t ld = 0;
  // [T][batch], 0 = masked; null = none. On a gradient it promises that masked rows are exactly zero.
  const std::uint8_t* mask = nullptr;

  std::int64_t steps() const { return dims.rank >= 2 ? dims.d[0] : 1; }
  std::int64_t inner() const {
    std::int64_t n = 1;
    for (int i = 1; i + 1 < dims.rank; i++) n *= dims.d[i];
    return n;
  }
  std::int64_t features() const { return dims.features(); }
  std::int64_t rows() const { return steps() * batch * inner(); }
};

}  // namespace seqcore
