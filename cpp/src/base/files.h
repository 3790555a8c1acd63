// Whole files, written atomically; and what reading and writing share. POSIX.
#pragma once

#include <cerrno>
#include <cstddef>
#include <string>
#include <vector>

namespace seqcore {

struct Bytes {
  const void* data;
  std::size_t size;
};

// Atomic: a temporary file in the same folder, fsync, rename over `path` (a symbolic link is replaced, what is no
// regular file is refused), fsync of the folder. On any error the old file is intact, the temporary one removed, and
// std::system_error thrown. The pieces are written one after another.
void write_file(const std::string& path, const std::vector<Bytes>& pieces);

// Throws std::system_error that says what could not be done to which path.
[[noreturn]] void system_failure(const std::string& doing, const std::string& path, int code = errno);

// A file descriptor, closed at the end; -1 where opening failed.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// One call moves less than 2 GiB on Linux, and macOS refuses more.
constexpr std::size_t kMaxTransfer = std::size_t{1} << 30;

}  // namespace seqcore
