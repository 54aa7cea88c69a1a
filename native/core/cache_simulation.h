// A cache hierarchy under a recorded trace, or under a nest of loops.
//
// Which code runs: least recently used levels of at most 64 ways, uncoupled, by LruCache (compiled twice, the processor
// decides), everything else by AnyCache. Of a nest, levels from which nothing can ever be evicted are not simulated: what
// misses there is what the nest touches, once each.
#pragma once
#include <cstdint>
#include <vector>

#include "core/cache_shape.h"
#include "core/nest_program.h"

namespace memfit {

struct CacheTrace {
  const uint64_t* wide = nullptr;  // addresses, one of the two
  const uint32_t* narrow = nullptr;
  const uint8_t* write = nullptr;  // not 0: a write; or null: all reads
  int64_t count = 0;
  int32_t line_shift = 6;
  uint64_t first_line = 0;         // subtracted from every line
  std::vector<NestArray> arrays;   // to count by, in lines after the subtraction; others count as the last
};

struct CacheCounts {
  std::vector<int64_t> served;  // [array + 1][depth]
  std::vector<int64_t> write_backs, prefetches;
  bool near = true;  // false: lines beyond kMostLine; the counts mean nothing
};

constexpr uint32_t kMostVectorWays = 64;

CacheCounts simulate_trace(const CacheShape& shape, const CacheTrace& trace, bool general, const CacheStop& stop);
NestCounts simulate_nest(const CacheShape& shape, const Nest& nest, bool general, bool jump, const CacheStop& stop);

// Levels, from the first, that must be simulated: those outside of them never evict.
int levels_that_evict(const CacheShape& shape, const Nest& nest);

namespace portable {
CacheCounts trace_lru(const CacheShape& shape, const CacheTrace& trace, const CacheStop& stop);
NestCounts nest_lru(const CacheShape& shape, const Nest& nest, bool jump, const CacheStop& stop);
}  // namespace portable
namespace avx2 {
bool here();
CacheCounts trace_lru(const CacheShape& shape, const CacheTrace& trace, const CacheStop& stop);
NestCounts nest_lru(const CacheShape& shape, const Nest& nest, bool jump, const CacheStop& stop);
}  // namespace avx2

}  // namespace memfit
