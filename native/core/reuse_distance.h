// Exact LRU stack distances of traces and nests (reuse_stack.h), compiled twice: the processor decides which one runs.
#pragma once
#include <cstdint>
#include <vector>

#include "core/cache_simulation.h"

namespace memfit {

struct ReuseCounts {
  std::vector<int64_t> distance;  // [d]: accesses of that distance; the last: first uses
  std::vector<int64_t> misses;    // [array][capacity]: misses of a fully associative LRU cache of so many lines
  std::vector<int64_t> cold;      // [array]
  bool stopped = false;
};

// `lines`: more than every line of the trace.
ReuseCounts reuse_of_trace(const CacheTrace& trace, int64_t lines, const CacheStop& stop);
ReuseCounts reuse_of_nest(const Nest& nest, const std::vector<int64_t>& capacities, const CacheStop& stop);

namespace portable {
ReuseCounts reuse_of_trace(const CacheTrace& trace, int64_t lines, const CacheStop& stop);
ReuseCounts reuse_of_nest(const Nest& nest, const std::vector<int64_t>& capacities, const CacheStop& stop);
}  // namespace portable
namespace avx2 {
ReuseCounts reuse_of_trace(const CacheTrace& trace, int64_t lines, const CacheStop& stop);
ReuseCounts reuse_of_nest(const Nest& nest, const std::vector<int64_t>& capacities, const CacheStop& stop);
}  // namespace avx2

}  // namespace memfit
