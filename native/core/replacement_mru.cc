// MRU: the most recently used page in memory is that of the access before, whatever it was.
#include "replacement.h"

namespace memfit {

PagingOutcome replace_mru(const Accesses& accesses, int32_t capacity, const PagingStop& stop) {
  std::vector<uint8_t> inside(accesses.pages, 0);
  int32_t misses = 0, evictions = 0;
  const auto step = [&](int32_t t) {
    uint8_t& here = inside[accesses.page[t]];
    const bool hit = here != 0;
    if (!hit) {
      ++misses;
      here = 1;
      if (misses - evictions > capacity) {
        inside[accesses.page[t - 1]] = 0;
        ++evictions;
      }
    }
    if (accesses.hit) accesses.hit[t] = hit;
  };
  each_access(accesses.count, stop, step);
  return {misses, evictions};
}

}  // namespace memfit
