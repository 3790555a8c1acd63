#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <utility>

#include "base/utf8.h"

namespace seqcore {
namespace {

// A new file beside `path`, gone again unless it is renamed.
class Temporary {
 public:
  explicit Temporary(const std::string& folder) {
    static std::atomic<unsigned> count{0};
    int fd = -1;
    for (int attempt = 0; fd < 0 && attempt < 1000; ++attempt) {
      name_ = folder + "/.seqcore-" + std::to_string(::getpid()) + "-" + std::to_string(count++) + ".tmp";
      fd = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd < 0 && errno != EEXIST && errno != EINTR) break;
    }
    if (fd < 0) system_failure("cannot create a file in", folder);
    fd_ = fd;
  }
  ~Temporary() {
    if (fd_ >= 0) ::close(fd_);
    if (!name_.empty()) ::unlink(name_.c_str());
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;

  void write(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t n = ::write(fd_, bytes, std::min(size, kMaxTransfer));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) system_failure("cannot write", name_);
      bytes += n;
      size -= static_cast<std::size_t>(n);
    }
  }
  void rename(const std::string& path) {
    if (::fsync(fd_) != 0) system_failure("cannot write", name_);
    if (::close(std::exchange(fd_, -1)) != 0) system_failure("cannot write", name_);
    if (::rename(name_.c_str(), path.c_str()) != 0) system_failure("cannot replace", path);
    name_.clear();
  }

 private:
  std::string name_;
  int fd_ = -1;
};

}  // namespace

void system_failure(const std::string& doing, const std::string& path, int code) {
  throw std::system_error(code, std::generic_category(), doing + " " + quoted(path));
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

void write_file(const std::string& path, const std::vector<Bytes>& pieces) {
  struct stat status;
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    system_failure("cannot replace", path, S_ISDIR(status.st_mode) ? EISDIR : EINVAL);
  }
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
  Temporary temporary(folder);
  for (const Bytes& piece : pieces) temporary.write(piece.data, piece.size);
  temporary.rename(path);
  // A folder that may not be read, or a file system without fsync for folders, is no failure: the file is in place.
  const Descriptor opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (opened.get() >= 0 && ::fsync(opened.get()) != 0 && errno == EIO) system_failure("cannot write", folder);
}

}  // namespace seqcore
