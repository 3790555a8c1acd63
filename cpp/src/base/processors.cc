#include "base/processors.h"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <vector>

namespace seqcore {

std::chrono::nanoseconds on_core() {
#ifdef CLOCK_THREAD_CPUTIME_ID
  timespec now{};
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0)
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
#endif
  return std::chrono::steady_clock::now().time_since_epoch();
}

#ifdef __linux__

namespace {

int affinity_count() {
  for (int bits = 1024; bits <= 1 << 20; bits *= 2) {
    std::vector<unsigned long> mask(static_cast<std::size_t>(bits) / (8 * sizeof(unsigned long)));
    auto* set = reinterpret_cast<cpu_set_t*>(mask.data());
    const std::size_t size = mask.size() * sizeof(unsigned long);
    if (sched_getaffinity(0, size, set) == 0) return CPU_COUNT_S(size, set);
    if (errno != EINVAL) break;
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

// ceil(quota / period) of one control group, or `none`.
constexpr double none = std::numeric_limits<double>::infinity();
double quota_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || !(period > 0)) return none;
  return static_cast<double>(std::strtoll(quota.c_str(), nullptr, 10)) / period;
}
double quota_v1(const std::string& folder) {
  double quota = 0, period = 0;
  std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
  std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  return quota > 0 && period > 0 ? quota / period : none;
}

// The least quota from the process's control group up to the root.
double cgroup_quota() {
  double least = none;
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // hierarchy:controllers:path
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(",cpu,") == std::string::npos) continue;
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      if (path == "/") path.clear();
      least = std::min(least, v2 ? quota_v2("/sys/fs/cgroup" + path) : quota_v1("/sys/fs/cgroup/cpu" + path));
      if (path.find('/') == std::string::npos) break;
    }
  }
  return least;
}

}  // namespace

int usable_processors() {
  const int cpus = std::max(affinity_count(), 1);
  const double quota = cgroup_quota();
  return quota < cpus ? std::max(static_cast<int>(std::ceil(quota)), 1) : cpus;
}

#else

int usable_processors() { return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1); }

#endif

}  // namespace seqcore
