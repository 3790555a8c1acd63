// Models from the files that Python's `save` writes, for serving: what is there for training stays behind.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "model/snapshot.h"

namespace seqcore {

// Throw std::invalid_argument, saying what is wrong with the file; load_model also std::system_error.
std::shared_ptr<const Snapshot> load_model(const std::string& path);
std::shared_ptr<const Snapshot> parse_model(const std::byte* data, std::size_t size);  // a file's bytes

}  // namespace seqcore
