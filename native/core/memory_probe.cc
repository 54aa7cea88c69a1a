#include "core/memory_probe.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#if defined(__linux__) || defined(__APPLE__)
#include <sys/mman.h>
#include <sys/resource.h>
#define MEMFIT_MAPS 1
#endif

namespace memfit {
namespace {

using Clock = std::chrono::steady_clock;
double now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

char* map(size_t bytes, bool huge) {
#ifdef MEMFIT_MAPS
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return nullptr;
#ifdef MADV_HUGEPAGE
  madvise(at, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#endif
  return static_cast<char*>(at);
#else
  (void)bytes;
  (void)huge;
  return nullptr;
#endif
}

void unmap(char* at, size_t bytes) {
#ifdef MEMFIT_MAPS
  if (at) munmap(at, bytes);
#else
  (void)at;
  (void)bytes;
#endif
}

ProbeTimes summary(std::vector<double>& values, bool most) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  if (most) std::reverse(values.begin(), values.end());
  return {values[0], values[values.size() / 4], values[values.size() / 2], static_cast<int64_t>(values.size())};
}

typedef uint64_t Four __attribute__((vector_size(32), aligned(8), may_alias));

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
uint64_t read_all(const char* from, size_t bytes) {
  Four a = {0, 0, 0, 0}, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
  for (size_t i = 0; i + 256 <= bytes; i += 256) {
    const Four* at = reinterpret_cast<const Four*>(from + i);
    a |= at[0];
    b |= at[1];
    c |= at[2];
    d |= at[3];
    e |= at[4];
    f |= at[5];
    g |= at[6];
    h |= at[7];
  }
  a = (a | b | c | d) | (e | f | g | h);
  return a[0] | a[1] | a[2] | a[3];
}

}  // namespace

MemoryProbe::MemoryProbe(size_t bytes, bool huge) : bytes_(bytes) {
  memory_ = map(bytes_, huge);
  if (memory_)
    for (size_t i = 0; i < bytes_; i += 4096) memory_[i] = 1;
}

MemoryProbe::~MemoryProbe() { unmap(memory_, bytes_); }

ProbeTimes MemoryProbe::chase(size_t count, size_t stride, size_t turn, double seconds, uint64_t seed) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  uint64_t z = seed * 0x9e3779b97f4a7c15ull + 1;
  for (size_t i = count; i > 1; --i) {
    z ^= z << 13;
    z ^= z >> 7;
    z ^= z << 17;
    std::swap(order[i - 1], order[z % i]);
  }
  const auto place = [&](uint32_t i) {
    const size_t at = i * stride + (turn ? (i * turn * 64) % stride / 64 * 64 : 0);
    return reinterpret_cast<void**>(memory_ + std::min(at, bytes_ - 64));
  };
  for (size_t i = 0; i < count; ++i) *place(order[i]) = place(order[(i + 1) % count]);
  void** at = place(order[0]);
  for (size_t i = 0; i < std::min<size_t>(count, 1 << 17); ++i) at = static_cast<void**>(*at);
  std::vector<double> times;
  int steps = 2048;
  const double end = now() + seconds;
  for (double start = now(); start < end || times.size() < 5;) {
    const double before = now();
    for (int i = 0; i < steps; i += 8) {
      at = static_cast<void**>(*at);
      at = static_cast<void**>(*at);
      at = static_cast<void**>(*at);
      at = static_cast<void**>(*at);
      at = static_cast<void**>(*at);
      at = static_cast<void**>(*at);
      at = static_cast<void**>(*at);
      at = static_cast<void**>(*at);
    }
    start = now();
    times.push_back((start - before) * 1e9 / steps);
    if (start - before < 8e-6 && steps < (1 << 15)) steps *= 2;
    if (times.size() > 20000) break;
  }
  sink_ += reinterpret_cast<uintptr_t>(at);
  return summary(times, false);
}

ProbeTimes MemoryProbe::stream(size_t bytes, int kind, double seconds) {
  bytes = std::min(bytes, kind == 1 ? bytes_ / 2 : bytes_) / 256 * 256;
  std::vector<double> rates;
  if (!bytes) return {};
  const size_t slice = std::min<size_t>(bytes, 1 << 20);  // a window of a long array is a part of it
  const size_t repeats = std::max<size_t>(1, (1 << 17) / bytes);
  size_t at = 0;
  const double end = now() + seconds;
  while (now() < end || rates.size() < 3) {
    const double before = now();
    for (size_t r = 0; r < repeats; ++r) {
      char* here = memory_ + at;
      if (kind == 0) sink_ += read_all(here, slice);
      if (kind == 1) std::memcpy(memory_ + bytes_ / 2 + at, here, slice);
      if (kind == 2) std::memset(here, static_cast<int>(r), slice);
#if defined(__GNUC__)
      __asm__ volatile("" ::: "memory");
#endif
    }
    rates.push_back(static_cast<double>(slice * repeats) / ((now() - before) * 1e9));
    at = at + 2 * slice <= bytes ? at + slice : 0;
    if (rates.size() > 20000) break;
  }
  return summary(rates, true);
}

std::vector<double> MemoryProbe::first_touch(size_t bytes, bool huge) {
#ifdef MEMFIT_MAPS
  char* memory = map(bytes, huge);
  if (!memory) return {0, 0};
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  const double start = now();
  for (size_t i = 0; i < bytes; i += 4096) memory[i] = 1;
  const double seconds = now() - start;
  getrusage(RUSAGE_SELF, &after);
  unmap(memory, bytes);
  return {seconds, static_cast<double>(after.ru_minflt - before.ru_minflt)};
#else
  (void)bytes;
  (void)huge;
  return {0, 0};
#endif
}

}  // namespace memfit
