#include <algorithm>
#include <limits>
#include <vector>

#include "core/reuse_distance.h"

namespace memfit::portable {
namespace {
#include "core/reuse_stack.h"
#include "core/reuse_walk.h"
}  // namespace
ReuseCounts reuse_of_nest(const Nest& nest, const std::vector<int64_t>& capacities, const CacheStop& stop) {
  return ReuseWalk(nest, capacities, stop).run();
}
ReuseCounts reuse_of_trace(const CacheTrace& trace, int64_t lines, const CacheStop& stop) {
  return trace.wide ? walk_distances(trace.wide, trace, lines, stop) : walk_distances(trace.narrow, trace, lines, stop);
}
}  // namespace memfit::portable
