// S3-FIFO: a small queue that filters, a main queue, and a ghost queue of pages lately dropped by the small one.
#include "replacement.h"
#include "replacement_lists.h"

namespace memfit {

PagingOutcome replace_s3_fifo(const Accesses& accesses, int32_t capacity, const PagingStop& stop) {
  enum { kSmall, kMain, kGhost };
  constexpr uint8_t most = 3, outside = 255;
  const int32_t small = capacity / 10 > 1 ? capacity / 10 : 1;
  const int32_t main = capacity - small;
  PageLists queues(accesses.pages, 3);
  std::vector<uint8_t> uses(accesses.pages, outside);  // since it came in or was last spared, at most 3
  int32_t misses = 0, evictions = 0;
  const auto evict_main = [&] {
    while (queues.size(kMain) > 0) {
      const int32_t page = queues.pop(kMain);
      if (uses[page] == 0) {
        uses[page] = outside;
        ++evictions;
        return;
      }
      --uses[page];
      queues.push(kMain, page);
    }
  };
  const auto evict_small = [&] {
    while (queues.size(kSmall) > 0) {
      const int32_t page = queues.pop(kSmall);
      if (uses[page] <= 1) {
        uses[page] = outside;
        ++evictions;
        if (main > 0) {
          if (queues.size(kGhost) == main) queues.pop(kGhost);
          queues.push(kGhost, page);
        }
        return;
      }
      if (queues.size(kMain) >= main) evict_main();
      uses[page] = 0;
      queues.push(kMain, page);
    }
  };
  const auto step = [&](int32_t t) {
    const int32_t page = accesses.page[t];
    const bool hit = uses[page] != outside;
    if (hit) {
      if (uses[page] < most) ++uses[page];
    } else {
      while (misses - evictions >= capacity) {
        if (queues.size(kSmall) >= small) evict_small(); else evict_main();
      }
      if (queues.home(page) == kGhost) {
        queues.move(page, kMain);
      } else {
        queues.push(kSmall, page);
      }
      uses[page] = 0;
      ++misses;
    }
    if (accesses.hit) accesses.hit[t] = hit;
  };
  each_access(accesses.count, stop, step);
  return {misses, evictions};
}

}  // namespace memfit
