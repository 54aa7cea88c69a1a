// LRU without a list: the pages in memory are those used since some instant `oldest`, so the trace itself is the queue.
// A victim is the first access from `oldest` on that is still the last one to its page; each access is passed once.
#include "replacement.h"

namespace memfit {

PagingOutcome replace_lru(const Accesses& accesses, int32_t capacity, const PagingStop& stop) {
  std::vector<int32_t> used(accesses.pages, -1);  // position of the last use
  int32_t misses = 0, evictions = 0, oldest = 0;
  const auto step = [&](int32_t t) {
    int32_t& last = used[accesses.page[t]];
    const bool hit = last >= oldest;
    last = t;
    if (!hit) {
      ++misses;
      if (misses - evictions > capacity) {
        while (used[accesses.page[oldest]] != oldest) ++oldest;
        ++oldest;
        ++evictions;
      }
    }
    if (accesses.hit) accesses.hit[t] = hit;
  };
  each_access(accesses.count, stop, step);
  return {misses, evictions};
}

}  // namespace memfit
