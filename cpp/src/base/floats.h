// A vector of floats on 64 bytes whose memory is written before it is read: resize does not fill it.
#pragma once

#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace seqcore {

template <class T>
struct Uninitialized {
  using value_type = T;
  Uninitialized() = default;
  template <class U>
  Uninitialized(const Uninitialized<U>&) noexcept {}
  T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_alloc();
    return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64)));
  }
  void deallocate(T* p, std::size_t) noexcept { ::operator delete(p, std::align_val_t(64)); }
  template <class U>
  void construct(U* p) noexcept {
    ::new (static_cast<void*>(p)) U;
  }
  template <class U, class... Args>
  void construct(U* p, Args&&... args) {
    ::new (static_cast<void*>(p)) U(std::forward<Args>(args)...);
  }
  template <class U>
  bool operator==(const Uninitialized<U>&) const noexcept {
    return true;
  }
  template <class U>
  bool operator!=(const Uninitialized<U>&) const noexcept {
    return false;
  }
};
using Floats = std::vector<float, Uninitialized<float>>;

}  // namespace seqcore
