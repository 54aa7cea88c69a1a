#include "core/cache_simulation.h"

#include <algorithm>
#include <limits>

#include "core/cache_any.h"

namespace memfit {
namespace {
template <int V>
class LruCache;  // compiled elsewhere, twice
#include "core/nest_walk.h"
#include "core/trace_walk.h"
}  // namespace

int levels_that_evict(const CacheShape& shape, const Nest& nest) {
  const int levels = static_cast<int>(shape.levels.size());
  if (shape.inclusion == Inclusion::exclusive || !separate(nest)) return levels;
  for (const auto& level : shape.levels)
    if (level.next_line) return levels;
  for (int i = 1; i < levels; ++i) {
    const int64_t sets = shape.levels[i].sets;
    int64_t ways = 0;
    for (const auto& array : nest.arrays) ways += (array.last_line - array.first_line + sets) / sets;
    if (ways <= shape.levels[i].ways) return i;
  }
  return levels;
}

CacheCounts simulate_trace(const CacheShape& shape, const CacheTrace& trace, bool general, const CacheStop& stop) {
  if (!general && shape.plain_lru(kMostVectorWays))
    return avx2::here() ? avx2::trace_lru(shape, trace, stop) : portable::trace_lru(shape, trace, stop);
  AnyCache cache(shape);
  return walk_trace(cache, trace, stop);
}

NestCounts simulate_nest(const CacheShape& shape, const Nest& nest, bool general, bool jump, const CacheStop& stop) {
  const int levels = static_cast<int>(shape.levels.size()), some = general ? levels : levels_that_evict(shape, nest);
  CacheShape inner = shape;
  inner.levels.resize(some);
  NestCounts counts;
  if (!general && inner.plain_lru(kMostVectorWays)) {
    counts = avx2::here() ? avx2::nest_lru(inner, nest, jump, stop) : portable::nest_lru(inner, nest, jump, stop);
  } else {
    std::vector<uint32_t> sets;
    for (const auto& level : inner.levels) sets.push_back(level.sets);
    AnyCache cache(inner);
    counts = NestWalk<AnyCache>(nest, sets, cache, jump, stop).run();
  }
  if (some == levels) return counts;
  const auto touched = footprint(nest);
  std::vector<int64_t> served(nest.arrays.size() * (levels + 1), 0);
  for (size_t a = 0; a < nest.arrays.size(); ++a) {
    const int64_t* from = counts.served.data() + a * (some + 1);
    int64_t* to = served.data() + a * (levels + 1);
    std::copy(from, from + some, to);
    to[some] = from[some] - touched[a];
    to[levels] = touched[a];
  }
  counts.served = std::move(served);
  counts.write_backs.resize(levels, 0);
  counts.prefetches.resize(levels, 0);
  return counts;
}

}  // namespace memfit
