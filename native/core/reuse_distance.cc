#include "core/reuse_distance.h"

namespace memfit {

ReuseCounts reuse_of_nest(const Nest& nest, const std::vector<int64_t>& capacities, const CacheStop& stop) {
  return avx2::here() ? avx2::reuse_of_nest(nest, capacities, stop) : portable::reuse_of_nest(nest, capacities, stop);
}
ReuseCounts reuse_of_trace(const CacheTrace& trace, int64_t lines, const CacheStop& stop) {
  return avx2::here() ? avx2::reuse_of_trace(trace, lines, stop) : portable::reuse_of_trace(trace, lines, stop);
}

}  // namespace memfit
