// Handles: numbers that stand for objects. A number that stands for none, because its object was removed or never was,
// is found out without touching memory that is not ours.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <utility>

#include "base/fork.h"

namespace seqcore {

// T is a smart pointer. kKind, 1 to 255, tells one table's handles from another's. find takes no lock.
template <class T, std::uint64_t kKind>
class Handles {
 public:
  constexpr Handles() = default;

  // Throws std::bad_alloc.
  std::uint64_t add(T object) {
    const ForkGate gate;
    const std::lock_guard<std::mutex> lock(changing_);
    if (free_ == 0) grow();
    const std::uint32_t index = free_ - 1;
    Slot& slot = *at(index);
    free_ = slot.next_free;
    slot.object = std::move(object);
    const std::uint32_t generation = slot.generation.load(std::memory_order_relaxed) + 1;  // odd: in use
    slot.generation.store(generation, std::memory_order_release);
    return std::uint64_t{generation} << 32 | kKind << 24 | index;
  }

  // The object, or null. It is the caller's to see that nobody removes it meanwhile.
  const T* find(std::uint64_t handle) const noexcept {
    const Slot* const slot = slot_of(handle);
    return slot ? &slot->object : nullptr;
  }

  bool remove(std::uint64_t handle) noexcept {
    T object;  // destroyed after the lock is given back
    const ForkGate gate;
    const std::lock_guard<std::mutex> lock(changing_);
    Slot* const slot = slot_of(handle);
    if (!slot) return false;
    slot->generation.fetch_add(1, std::memory_order_release);
    object = std::move(slot->object);
    slot->next_free = free_;
    free_ = static_cast<std::uint32_t>(handle & kIndex) + 1;
    return true;
  }

 private:
  static constexpr std::uint32_t kIndex = (1u << 24) - 1;
  static constexpr std::uint32_t kBlock = 1024, kBlocks = (kIndex + 1) / kBlock;

  struct Slot {
    std::atomic<std::uint32_t> generation{0};  // even: free
    std::uint32_t next_free = 0;
    T object;
  };

  Slot* at(std::uint32_t index) const noexcept {
    Slot* const block = blocks_[index / kBlock].load(std::memory_order_acquire);
    return block ? block + index % kBlock : nullptr;
  }
  Slot* slot_of(std::uint64_t handle) const noexcept {
    if ((handle >> 24 & 255) != kKind || (handle >> 32 & 1) == 0) return nullptr;
    Slot* const slot = at(static_cast<std::uint32_t>(handle & kIndex));
    return slot && slot->generation.load(std::memory_order_acquire) == handle >> 32 ? slot : nullptr;
  }
  void grow() {
    if (count_ == kBlocks) throw std::bad_alloc();
    Slot* const block = new Slot[kBlock];
    const std::uint32_t first = count_ * kBlock;
    for (std::uint32_t i = 0; i + 1 < kBlock; i++) block[i].next_free = first + i + 2;
    free_ = first + 1;
    blocks_[count_++].store(block, std::memory_order_release);
  }

  std::mutex changing_;                      // guards the next two
  std::uint32_t free_ = 0, count_ = 0;       // the first free slot, from 1 on, 0 if none; blocks
  std::atomic<Slot*> blocks_[kBlocks] = {};  // never given back: what a stale handle points at stays readable
};

}  // namespace seqcore
