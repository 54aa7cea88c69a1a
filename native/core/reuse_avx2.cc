#include <algorithm>
#include <limits>
#include <vector>

#include "core/reuse_distance.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2,bmi,popcnt")
namespace memfit::avx2 {
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
}  // namespace memfit::avx2
#pragma GCC pop_options
#else
namespace memfit::avx2 {
ReuseCounts reuse_of_nest(const Nest& nest, const std::vector<int64_t>& capacities, const CacheStop& stop) {
  return portable::reuse_of_nest(nest, capacities, stop);
}
ReuseCounts reuse_of_trace(const CacheTrace& trace, int64_t lines, const CacheStop& stop) {
  return portable::reuse_of_trace(trace, lines, stop);
}
}  // namespace memfit::avx2
#endif
