#include "kernels/dispatch.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#if defined(SEQCORE_HAVE_AVX2) || defined(SEQCORE_HAVE_AVX512)
#include <cpuid.h>
#endif
#if defined(SEQCORE_HAVE_AVX512) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/dots.h"

namespace seqcore {

namespace scalar {
extern const Kernels kTable;
}
#ifdef SEQCORE_HAVE_AVX2
namespace avx2 {
extern const Kernels kTable;
}
#endif
#ifdef SEQCORE_HAVE_AVX512
namespace avx512 {
extern const Kernels kTable;
}
#endif
#ifdef SEQCORE_HAVE_NEON
namespace neon {
extern const Kernels kTable;
}
#endif

namespace {

// What the processor has and the operating system saves on a context switch.
struct Cpu {
  bool avx2 = false;
  bool avx512 = false;
  bool vnni = false;  // of AVX-512
  bool bf16 = false;
  bool amx = false;  // its tiles, of bfloat16 and of int8
};

Cpu detect() {
  Cpu cpu;
#if defined(SEQCORE_HAVE_AVX2) || defined(SEQCORE_HAVE_AVX512)
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return cpu;
  constexpr unsigned kFma = 1u << 12, kOsXsave = 1u << 27, kAvx = 1u << 28;
  if ((ecx & (kFma | kOsXsave | kAvx)) != (kFma | kOsXsave | kAvx)) return cpu;
  unsigned xcr0, high;
  __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return cpu;
  constexpr unsigned kAvx2 = 1u << 5;
  constexpr unsigned kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  cpu.avx2 = (xcr0 & 0x6) == 0x6 && (ebx & kAvx2);
  cpu.avx512 = cpu.avx2 && (xcr0 & 0xE6) == 0xE6 && (ebx & kAvx512) == kAvx512;
  cpu.vnni = cpu.avx512 && (ecx & 1u << 11);
  constexpr unsigned kAmx = 1u << 22 | 1u << 24 | 1u << 25, kTiles = 0x60000;  // BF16, TILE, INT8; both their states
  cpu.amx = cpu.vnni && (edx & kAmx) == kAmx && (xcr0 & kTiles) == kTiles;
  if (cpu.avx512 && eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) cpu.bf16 = eax & 1u << 5;
#ifdef SEQCORE_EMULATE_AVX512
  cpu.avx512 = cpu.vnni = cpu.bf16 = cpu.avx2;
  cpu.amx = false;
#endif
#endif
  return cpu;
}

#ifdef SEQCORE_HAVE_AVX512
// The table with the products of words that this processor has instructions for. Made when the library is loaded: what is
// made at its first use keeps others waiting meanwhile, and in the child of a fork for ever. Before the globals of a program
// that has it as a static library: they may run models.
const Kernels avx512_table __attribute__((init_priority(101))) = [] {
  const Cpu cpu = detect();
  Kernels k = avx512::kTable;
  if (cpu.vnni) {
    k.dot.int8 = avx512_vnni::dot;
    k.dot.int8_row = avx512_vnni::row;
    k.dot.byte_offset = 128;
    k.dot.int8_by = "avx512_vnni";
  }
  if (cpu.bf16) {
    k.dot.bfloat16 = avx512_bf16::dot;
    k.dot.bfloat16_row = avx512_bf16::row;
    k.dot.bfloat16_by = "avx512_bf16";
  }
  if (cpu.amx) {
    k.dot.bfloat16 = amx::bfloat16;
    k.dot.bfloat16_row = amx::bfloat16_row;
    k.dot.bfloat16_by = "amx_bf16";
    k.dot.int8 = amx::int8;
    k.dot.int8_by = "amx_int8";
  }
  return k;
}();
#endif

// Worst first.
std::vector<const Kernels*> tables() {
  std::vector<const Kernels*> result{&scalar::kTable};
  [[maybe_unused]] const Cpu cpu = detect();
#ifdef SEQCORE_HAVE_AVX2
  if (cpu.avx2) result.push_back(&avx2::kTable);
#endif
#ifdef SEQCORE_HAVE_AVX512
  if (cpu.avx512) result.push_back(&avx512_table);
#endif
#ifdef SEQCORE_HAVE_NEON
  result.push_back(&neon::kTable);
#endif
  return result;
}

const Kernels& choose() {
  const char* name = std::getenv("SEQCORE_ISA");
  if (!name || !*name) return *tables().back();
  if (const Kernels* k = kernels_for(name)) return *k;
  std::string choices;
  for (const char* isa : available_isas()) choices += choices.empty() ? isa : std::string(", ") + isa;
  throw std::invalid_argument("SEQCORE_ISA: expected one of " + choices + " on this machine, got '" + name + "'.");
}

}  // namespace

const Kernels& kernels() {
  static std::atomic<const Kernels*> chosen{nullptr};  // several threads may choose at once: the same
  const Kernels* k = chosen.load(std::memory_order_acquire);
  if (!k) chosen.store(k = &choose(), std::memory_order_release);
  return *k;
}

std::vector<const char*> available_isas() {
  std::vector<const char*> names;
  for (const Kernels* k : tables()) names.push_back(k->isa);
  return names;
}

const Kernels* kernels_for(const char* isa) {
  for (const Kernels* k : tables())
    if (std::strcmp(k->isa, isa) == 0) return k;
  return nullptr;
}

bool allow_tiles() noexcept {
#if defined(SEQCORE_HAVE_AVX512) && defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // Linux: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static std::atomic<int> answer{-1};                          // not asked yet
  int allowed = answer.load(std::memory_order_acquire);
  if (allowed < 0) {
    allowed = kernels().dot.bfloat16 == amx::bfloat16 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    __atomic_store_n(&amx::allowed, allowed != 0, __ATOMIC_RELAXED);
    answer.store(allowed, std::memory_order_release);
  }
  return allowed != 0;
#else
  return false;
#endif
}

}  // namespace seqcore
