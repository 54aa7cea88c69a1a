// ARC: two LRU lists (seen once, seen again), a ghost of each, and a target that hits in the ghosts move.
#include <algorithm>

#include "replacement.h"
#include "replacement_lists.h"

namespace memfit {

PagingOutcome replace_arc(const Accesses& accesses, int32_t capacity, const PagingStop& stop) {
  enum { kOnce, kAgain, kOnceGhost, kAgainGhost };
  PageLists lists(accesses.pages, 4);
  int32_t misses = 0, evictions = 0;
  double target = 0.0;  // wanted size of kOnce
  const auto replace = [&](bool again_ghost) {
    const int32_t once = lists.size(kOnce);
    ++evictions;
    if (once > 0 && (once > target || (again_ghost && once == target))) {
      lists.push(kOnceGhost, lists.pop(kOnce));
    } else {
      lists.push(kAgainGhost, lists.pop(kAgain));
    }
  };
  const auto step = [&](int32_t t) {
    const int32_t page = accesses.page[t];
    const uint8_t home = lists.home(page);
    const bool hit = home <= kAgain;
    if (hit) {
      lists.move(page, kAgain);
    } else {
      ++misses;
      const double once_ghosts = lists.size(kOnceGhost), again_ghosts = lists.size(kAgainGhost);
      if (home == kOnceGhost) {
        target = std::min(target + std::max(1.0, again_ghosts / once_ghosts), static_cast<double>(capacity));
        replace(false);
        lists.move(page, kAgain);
      } else if (home == kAgainGhost) {
        target = std::max(target - std::max(1.0, once_ghosts / again_ghosts), 0.0);
        replace(true);
        lists.move(page, kAgain);
      } else {
        const int32_t first = lists.size(kOnce) + lists.size(kOnceGhost);
        const int32_t all = first + lists.size(kAgain) + lists.size(kAgainGhost);
        if (first == capacity) {
          if (lists.size(kOnce) < capacity) {
            lists.pop(kOnceGhost);
            replace(false);
          } else {
            lists.pop(kOnce);
            ++evictions;
          }
        } else if (all >= capacity) {
          if (all == 2 * static_cast<int64_t>(capacity)) lists.pop(kAgainGhost);
          replace(false);
        }
        lists.push(kOnce, page);
      }
    }
    if (accesses.hit) accesses.hit[t] = hit;
  };
  each_access(accesses.count, stop, step);
  return {misses, evictions};
}

}  // namespace memfit
