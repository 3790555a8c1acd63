// Files: safetensors, data only. Small, strict, fuzzed. `read`, never mmap.
// Layout: 8 bytes little-endian header length, JSON header, tensor bytes without gaps or overlaps, nothing after.
// Caps: header 8 MiB, 65536 tensors, 1024 entries of metadata, rank 8, checked 64-bit products. Names are opaque keys,
// never paths. Reading needs at most 16 MiB beside what the file has; writing refuses what reading would.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace seqcore {

struct StoredTensor {
  std::string name;
  std::string dtype;  // "F32", "F64", "I32", "I64", "U64", "U8"
  std::vector<std::int64_t> shape;
  std::vector<std::byte> data;  // little-endian, C order
};
struct StoredFile {
  std::vector<StoredTensor> tensors;
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Throws std::invalid_argument for a bad file (says what and where), std::system_error for the system's errors.
StoredFile read_safetensors(const std::string& path);
StoredFile parse_safetensors(const std::byte* data, std::size_t size);  // what read does after reading; for fuzzing

// Atomic, as write_file (base/files.h). std::invalid_argument for contents that do not fit together.
void write_safetensors(const std::string& path, const StoredFile& file);

}  // namespace seqcore
