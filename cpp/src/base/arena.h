// A bump allocator for the buffers of one call: 64-byte aligned, freed all at once, kept for the next call.
// Not thread-safe: one call, one arena. Who may use it: layers and model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace seqcore {

class Arena {
 public:
  Arena() = default;
  Arena(Arena&&) noexcept = default;
  Arena& operator=(Arena&&) noexcept = default;

  // n uninitialised elements of a trivial type, 64-byte aligned; n == 0 gives a valid, unusable pointer.
  // Throws std::bad_alloc (also when n * sizeof(T) would overflow).
  template <class T>
  T* allocate(std::int64_t n) {
    return static_cast<T*>(bytes(n, sizeof(T)));
  }
  float* floats(std::int64_t n) { return allocate<float>(n); }
  float* zeros(std::int64_t n);
  // Forgets all allocations, as reset does, and makes this one.
  float* only(std::int64_t n);

  // Forgets all allocations and keeps the memory, merged into one block, so that the same sequence fits next time.
  // Throws std::bad_alloc, and is empty then.
  void reset();
  // Gives the memory back.
  void release();
  std::size_t capacity() const;

 private:
  struct Free {
    std::size_t size = 0;
    void operator()(std::byte* p) const noexcept;
  };
  struct Block {
    std::unique_ptr<std::byte[], Free> data;
    std::size_t size;
    std::size_t used;
  };
  void* bytes(std::int64_t n, std::size_t size);
  std::vector<Block> blocks_;
};

}  // namespace seqcore
