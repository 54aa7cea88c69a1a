// What this machine's memory does: how long one dependent load takes over a working set, and how fast bytes stream.
//
// Windows are short (tens of microseconds) and the best few count, so that other programs on the machine are waited out
// instead of averaged in.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace memfit {

struct ProbeTimes {
  double best = 0, low = 0, middle = 0;  // fastest window, lower quartile, median; nanoseconds a load, or bytes a nanosecond
  int64_t windows = 0;
};

class MemoryProbe {
 public:
  MemoryProbe(size_t bytes, bool huge);
  ~MemoryProbe();
  MemoryProbe(const MemoryProbe&) = delete;
  MemoryProbe& operator=(const MemoryProbe&) = delete;

  bool ok() const { return memory_ != nullptr; }
  // A random cycle over `count` places, `stride` bytes apart plus a turn of `turn` lines each; for at most `seconds`.
  ProbeTimes chase(size_t count, size_t stride, size_t turn, double seconds, uint64_t seed);
  // kind 0: read, 1: copy (bytes read), 2: write; over `bytes`.
  ProbeTimes stream(size_t bytes, int kind, double seconds);
  // Seconds and faults of touching `bytes` of fresh pages.
  static std::vector<double> first_touch(size_t bytes, bool huge);

 private:
  char* memory_ = nullptr;
  size_t bytes_ = 0;
  uint64_t sink_ = 0;
};

}  // namespace memfit
