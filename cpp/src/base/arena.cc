#include "base/arena.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

namespace seqcore {
namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kSmallest = std::size_t{1} << 16;  // blocks for small requests, so that they share one

std::byte* acquire(std::size_t size) {
  return static_cast<std::byte*>(::operator new[](size, std::align_val_t{kAlign}));
}

}  // namespace

void Arena::Free::operator()(std::byte* p) const noexcept { ::operator delete[](p, std::align_val_t{kAlign}); }

void* Arena::bytes(std::int64_t n, std::size_t size) {
  constexpr std::size_t limit = std::numeric_limits<std::ptrdiff_t>::max() - kAlign;
  if (n < 0 || static_cast<std::uint64_t>(n) > limit / size) throw std::bad_alloc();
  const std::size_t exact = std::max<std::size_t>(static_cast<std::size_t>(n) * size, 1);
  const std::size_t need = (exact + kAlign - 1) / kAlign * kAlign;
  if (blocks_.empty() || need > blocks_.back().size - blocks_.back().used) {
    const std::size_t block = std::max(need, kSmallest);
    blocks_.reserve(blocks_.size() + 1);
    blocks_.push_back({std::unique_ptr<std::byte[], Free>(acquire(block)), block, 0});
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

void Arena::reset() {
  if (blocks_.size() > 1) {
    const std::size_t total = capacity();
    blocks_.clear();  // first, so that the peak is not twice the need
    blocks_.push_back({std::unique_ptr<std::byte[], Free>(acquire(total)), total, 0});
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
