// What a hot path must not do, counted: allocations and locks by functions put in the place of the C library's, threads by
// the kernel's own number, system calls by a filter that ends the process at the first. Included by one file of a program.
// A sanitizer has its own functions in those places, so under one only operator new is counted, and no filter set.
#pragma once

#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#endif

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <new>
#include <string>

#include "check.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEQCORE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SEQCORE_SANITIZED 1
#endif
#endif

namespace hot_path {

inline std::atomic<long> allocations{0}, locks{0};
inline std::atomic<long> until_refused{-1};  // so many allocations succeed before one fails; below 0: all do

// Counts an allocation; whether it is to fail.
inline bool refused() {
  allocations++;
  return until_refused >= 0 && until_refused-- == 0;
}

inline void* next(const char* name) { return dlsym(RTLD_NEXT, name); }

// Threads of this process, by the kernel's count.
inline int threads() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("Threads:", 0) == 0) return std::atoi(line.c_str() + 8);
  return -1;
}

// Under qemu-user, which dies in forks of threaded programs; told by a call that it alone refuses.
inline bool emulated() {
#if defined(__linux__)
  return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0;
#else
  return false;
#endif
}

}  // namespace hot_path

// Seen by the C++ library as well; never inlined, or a compiler would know better than to call them.
#define SEQCORE_INTERPOSED __attribute__((visibility("default"), noinline))

#ifndef SEQCORE_SANITIZED
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);

SEQCORE_INTERPOSED void* malloc(std::size_t n) noexcept { return hot_path::refused() ? nullptr : __libc_malloc(n); }
SEQCORE_INTERPOSED void* calloc(std::size_t n, std::size_t size) noexcept {
  return hot_path::refused() ? nullptr : __libc_calloc(n, size);
}
SEQCORE_INTERPOSED void* realloc(void* p, std::size_t n) noexcept {
  return hot_path::refused() ? nullptr : __libc_realloc(p, n);
}
SEQCORE_INTERPOSED void* aligned_alloc(std::size_t alignment, std::size_t n) noexcept {
  return hot_path::refused() ? nullptr : __libc_memalign(alignment, n);
}
SEQCORE_INTERPOSED int posix_memalign(void** p, std::size_t alignment, std::size_t n) noexcept {
  *p = hot_path::refused() ? nullptr : __libc_memalign(alignment, n);
  return *p ? 0 : 12;  // ENOMEM
}
SEQCORE_INTERPOSED void free(void* p) noexcept {
  hot_path::allocations++;
  __libc_free(p);
}

// NAME counts and does what the C library's does.
#define SEQCORE_COUNT_LOCK(NAME, TYPE)                                               \
  SEQCORE_INTERPOSED int NAME(TYPE* object) noexcept {                               \
    static const auto own = reinterpret_cast<int (*)(TYPE*)>(hot_path::next(#NAME)); \
    hot_path::locks++;                                                               \
    return own(object);                                                              \
  }
SEQCORE_COUNT_LOCK(pthread_mutex_lock, pthread_mutex_t)
SEQCORE_COUNT_LOCK(pthread_mutex_trylock, pthread_mutex_t)
SEQCORE_COUNT_LOCK(pthread_mutex_unlock, pthread_mutex_t)
SEQCORE_COUNT_LOCK(pthread_rwlock_rdlock, pthread_rwlock_t)
SEQCORE_COUNT_LOCK(pthread_rwlock_wrlock, pthread_rwlock_t)
SEQCORE_COUNT_LOCK(pthread_cond_signal, pthread_cond_t)
SEQCORE_COUNT_LOCK(pthread_cond_broadcast, pthread_cond_t)
SEQCORE_COUNT_LOCK(sem_post, sem_t)
#undef SEQCORE_COUNT_LOCK
}
#else
SEQCORE_INTERPOSED void* operator new(std::size_t n) {
  void* const p = hot_path::refused() ? nullptr : std::malloc(n);
  if (p) return p;
  throw std::bad_alloc();
}
SEQCORE_INTERPOSED void* operator new(std::size_t n, std::align_val_t alignment) {
  void* p = nullptr;
  if (!hot_path::refused() && posix_memalign(&p, static_cast<std::size_t>(alignment), n) == 0) return p;
  throw std::bad_alloc();
}
SEQCORE_INTERPOSED void* operator new[](std::size_t n) { return operator new(n); }
SEQCORE_INTERPOSED void* operator new[](std::size_t n, std::align_val_t alignment) {
  return operator new(n, alignment);
}
SEQCORE_INTERPOSED void operator delete[](void* p) noexcept { std::free(p); }
SEQCORE_INTERPOSED void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
SEQCORE_INTERPOSED void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
SEQCORE_INTERPOSED void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
SEQCORE_INTERPOSED void operator delete(void* p) noexcept { std::free(p); }
SEQCORE_INTERPOSED void operator delete(void* p, std::size_t) noexcept { std::free(p); }
SEQCORE_INTERPOSED void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
SEQCORE_INTERPOSED void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
#endif

namespace hot_path {

// What f() counted.
struct Counts {
  long allocations, locks;
  int threads;
};
template <class F>
Counts count(F&& f) {
  const int before = threads();
  const long a = allocations, l = locks;
  f();
  const long a_end = allocations, l_end = locks;
  return {a_end - a, l_end - l, threads() - before};
}

// Calls f() with its first allocation failing, then its second, and so on until it needs no more: `failed` is called after
// each, with what f returned. Returns how many failed.
template <class F, class G>
long without_memory(F&& f, G&& failed) {
  for (long n = 0;; ++n) {
    until_refused = n;
    const auto result = f();
    const bool enough = until_refused >= 0;
    until_refused = -1;
    if (enough) return n;
    failed(result);
  }
}

enum class Calls { none, some, unknown };

// Whether f() makes a system call: in a child, under a filter that allows nothing but the end of the process.
template <class F>
Calls system_calls(F&& f) {
#if defined(__linux__) && !defined(SEQCORE_SANITIZED)
  const pid_t child = fork();
  if (child == 0) {
    sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const sock_fprog program = {sizeof rules / sizeof *rules, rules};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
      _exit(7);
    f();
    _exit(0);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return Calls::unknown;
  if (WIFSIGNALED(status)) return Calls::some;
  return WEXITSTATUS(status) == 0 ? Calls::none : Calls::unknown;
#else
  static_cast<void>(f);
  return Calls::unknown;
#endif
}

// f allocates nothing, takes no lock, starts no thread and makes no system call. The counters are seen to count first.
template <class F>
void check(const std::string& what, F&& f) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  const Counts sure = count([&] {
    void* volatile p = ::operator new(64);  // volatile, or the pair would be optimized away
    ::operator delete(p);
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
  });
  CHECK(sure.allocations > 0);
#ifndef SEQCORE_SANITIZED
  CHECK(sure.locks == 2);
#endif
  f();
  const Counts counts = count(f);
  CHECK_THAT(counts.allocations == 0 && counts.locks == 0 && counts.threads == 0,
             what + ": " + std::to_string(counts.allocations) + " allocations, " + std::to_string(counts.locks) +
                 " locks, " + std::to_string(counts.threads) + " threads");
  const Calls filter = system_calls([] { static_cast<void>(syscall(SYS_getppid)); });
  if (filter == Calls::unknown) {
    std::printf("%s: no filter for system calls here (sanitizer or emulator)\n", what.c_str());
  } else {
    CHECK(filter == Calls::some);
    CHECK_THAT(system_calls(f) == Calls::none, what + ": a system call");
  }
}

}  // namespace hot_path
