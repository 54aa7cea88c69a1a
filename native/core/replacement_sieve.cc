// SIEVE: a queue that hits do not reorder, and a hand that walks from the oldest page to the newest and stays in place.
#include "replacement.h"
#include "replacement_lists.h"

namespace memfit {

PagingOutcome replace_sieve(const Accesses& accesses, int32_t capacity, const PagingStop& stop) {
  constexpr uint8_t inside = 1, visited = 3;
  std::vector<uint8_t> state(accesses.pages, 0);
  PageLists queue(accesses.pages, 1);
  int32_t misses = 0, evictions = 0;
  int32_t hand = -1;  // -1: at the oldest
  const auto step = [&](int32_t t) {
    const int32_t page = accesses.page[t];
    const bool hit = state[page] != 0;
    if (hit) {
      state[page] = visited;
    } else {
      if (misses - evictions == capacity) {
        int32_t victim = hand < 0 ? queue.last(0) : hand;
        while (state[victim] == visited) {
          state[victim] = inside;
          victim = queue.ahead(victim);
          if (queue.is_sentinel(victim)) victim = queue.last(0);
        }
        hand = queue.ahead(victim);
        if (queue.is_sentinel(hand)) hand = -1;
        state[victim] = 0;
        queue.remove(victim);
        ++evictions;
      }
      queue.push(0, page);
      state[page] = inside;
      ++misses;
    }
    if (accesses.hit) accesses.hit[t] = hit;
  };
  each_access(accesses.count, stop, step);
  return {misses, evictions};
}

}  // namespace memfit
