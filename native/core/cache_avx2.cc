#include <algorithm>
#include <limits>
#include <new>
#include <vector>

#include "core/cache_moved.h"
#include "core/cache_simulation.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define MEMFIT_AVX2_LANES 1
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC diagnostic ignored "-Wignored-attributes"
#pragma GCC push_options
#pragma GCC target("avx2,bmi,popcnt")
namespace memfit::avx2 {
namespace {
#include "core/cache_lru.h"
#include "core/nest_walk.h"
#include "core/trace_walk.h"
}  // namespace
bool here() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"); }
#include "core/cache_engines.h"
}  // namespace memfit::avx2
#pragma GCC pop_options
#else
namespace memfit::avx2 {
bool here() { return false; }
CacheCounts trace_lru(const CacheShape& shape, const CacheTrace& trace, const CacheStop& stop) {
  return portable::trace_lru(shape, trace, stop);
}
NestCounts nest_lru(const CacheShape& shape, const Nest& nest, bool jump, const CacheStop& stop) {
  return portable::nest_lru(shape, nest, jump, stop);
}
}  // namespace memfit::avx2
#endif
