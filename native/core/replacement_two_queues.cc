// 2Q, full version: pages seen once wait in a FIFO, pages seen again after it live in an LRU list.
#include "replacement.h"
#include "replacement_lists.h"

namespace memfit {

PagingOutcome replace_two_queues(const Accesses& accesses, int32_t capacity, const PagingStop& stop) {
  enum { kIn, kOut, kMain };
  const int32_t in = capacity / 4, out = capacity / 2;
  PageLists lists(accesses.pages, 3);
  int32_t misses = 0, evictions = 0;
  const auto reclaim = [&] {
    if (misses - evictions < capacity) return;
    ++evictions;
    if (lists.size(kIn) > in) {
      const int32_t page = lists.pop(kIn);
      if (out == 0) return;
      if (lists.size(kOut) == out) lists.pop(kOut);
      lists.push(kOut, page);
    } else {
      lists.pop(kMain);
    }
  };
  const auto step = [&](int32_t t) {
    const int32_t page = accesses.page[t];
    const uint8_t home = lists.home(page);
    const bool hit = home == kIn || home == kMain;
    if (home == kMain) {
      lists.move(page, kMain);
    } else if (!hit) {
      if (home == kOut) lists.remove(page);
      reclaim();
      lists.push(home == kOut ? kMain : kIn, page);
      ++misses;
    }
    if (accesses.hit) accesses.hit[t] = hit;
  };
  each_access(accesses.count, stop, step);
  return {misses, evictions};
}

}  // namespace memfit
