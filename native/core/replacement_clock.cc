// CLOCK: a ring of frames and a hand; one byte a page holds "inside" and "used since the hand last passed".
#include "replacement.h"

namespace memfit {

PagingOutcome replace_clock(const Accesses& accesses, int32_t capacity, const PagingStop& stop) {
  constexpr uint8_t inside = 1, used = 3;
  std::vector<uint8_t> state(accesses.pages, 0);
  const int32_t frames = capacity < accesses.pages ? capacity : accesses.pages;
  std::vector<int32_t> ring(frames > 0 ? frames : 1);
  int32_t misses = 0, evictions = 0, hand = 0;
  const auto step = [&](int32_t t) {
    const int32_t page = accesses.page[t];
    const bool hit = state[page] != 0;
    if (hit) {
      state[page] = used;
    } else {
      if (misses - evictions == frames) {
        while (state[ring[hand]] == used) {
          state[ring[hand]] = inside;
          if (++hand == frames) hand = 0;
        }
        state[ring[hand]] = 0;
        ++evictions;
      }
      ring[hand] = page;
      state[page] = inside;
      if (++hand == frames) hand = 0;
      ++misses;
    }
    if (accesses.hit) accesses.hit[t] = hit;
  };
  each_access(accesses.count, stop, step);
  return {misses, evictions};
}

}  // namespace memfit
