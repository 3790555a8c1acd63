#include "base/flush_guard.h"

namespace seqcore {

// MXCSR: all exceptions masked, round to nearest, FTZ and DAZ. FPCR: FZ and nothing else.
#if defined(__x86_64__)
constexpr unsigned kMode = 0x1F80 | 0x8040, kFlags = 0x3F;
FlushGuard::FlushGuard() noexcept : saved_(__builtin_ia32_stmxcsr()) {
  if ((saved_ & ~std::uint64_t{kFlags}) != kMode) __builtin_ia32_ldmxcsr(kMode);
}
FlushGuard::~FlushGuard() {
  if ((saved_ & ~std::uint64_t{kFlags}) != kMode) __builtin_ia32_ldmxcsr(static_cast<unsigned>(saved_));
}
#elif defined(__aarch64__)
constexpr std::uint64_t kMode = std::uint64_t{1} << 24;
FlushGuard::FlushGuard() noexcept {
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
  if (saved_ != kMode) __asm__ volatile("msr fpcr, %0" : : "r"(kMode) : "memory");
}
FlushGuard::~FlushGuard() {
  if (saved_ != kMode) __asm__ volatile("msr fpcr, %0" : : "r"(saved_) : "memory");
}
#else
FlushGuard::FlushGuard() noexcept : saved_(0) {}
FlushGuard::~FlushGuard() = default;
#endif

}  // namespace seqcore
