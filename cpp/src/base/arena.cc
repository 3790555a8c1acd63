#include "base/arena.h"

#ifdef __unix__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

namespace seqcore {
namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kSmallest = std::size_t{1} << 16;  // blocks for small requests, so that they share one

#ifdef __unix__
// Large blocks come from the system itself and go back to it at once: malloc keeps what is freed, and a model's next call
// wants one block where the first one had many. In huge pages, where there are any.
constexpr std::size_t kFromSystem = std::size_t{1} << 20;
#else
constexpr std::size_t kFromSystem = std::numeric_limits<std::size_t>::max();
#endif

std::byte* acquire(std::size_t size) {
#ifdef __unix__
  if (size >= kFromSystem) {
    void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    madvise(p, size, MADV_HUGEPAGE);
#endif
    return static_cast<std::byte*>(p);
  }
#endif
  return static_cast<std::byte*>(::operator new[](size, std::align_val_t{kAlign}));
}

}  // namespace

void Arena::Free::operator()(std::byte* p) const noexcept {
#ifdef __unix__
  if (size >= kFromSystem) {
    munmap(p, size);
    return;
  }
#endif
  ::operator delete[](p, std::align_val_t{kAlign});
}

void* Arena::bytes(std::int64_t n, std::size_t size) {
  constexpr std::size_t limit = std::numeric_limits<std::ptrdiff_t>::max() - kAlign;
  if (n < 0 || static_cast<std::uint64_t>(n) > limit / size) throw std::bad_alloc();
  const std::size_t exact = std::max<std::size_t>(static_cast<std::size_t>(n) * size, 1);
  const std::size_t need = (exact + kAlign - 1) / kAlign * kAlign;
  if (blocks_.empty() || need > blocks_.back().size - blocks_.back().used) {
    const std::size_t block = std::max(need, kSmallest);
    blocks_.reserve(blocks_.size() + 1);
    blocks_.push_back({std::unique_ptr<std::byte[], Free>(acquire(block), {block}), block, 0});
  }
  Block& last = blocks_.back();
  void* p = last.data.get() + last.used;
  last.used += need;
  return p;
}

float* Arena::zeros(std::int64_t n) {
  float* p = floats(n);
  std::memset(p, 0, static_cast<std::size_t>(n) * sizeof(float));
  return p;
}

float* Arena::only(std::int64_t n) {
  if (blocks_.size() > 1 || (n > 0 && static_cast<std::uint64_t>(n) > capacity() / sizeof(float))) release();
  reset();
  return floats(n);
}

void Arena::reset() {
  if (blocks_.size() > 1) {
    const std::size_t total = capacity();
    blocks_.clear();  // first, so that the peak is not twice the need
    blocks_.push_back({std::unique_ptr<std::byte[], Free>(acquire(total), Free{total}), total, 0});
  }
  for (Block& block : blocks_) block.used = 0;
}

void Arena::release() { blocks_.clear(); }

std::size_t Arena::capacity() const {
  std::size_t total = 0;
  for (const Block& block : blocks_) total += block.size;
  return total;
}

}  // namespace seqcore
