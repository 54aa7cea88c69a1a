// FIFO without a queue: the n-th miss loads the n-th page of the queue, so the queue holds the pages loaded by the last
// `capacity` misses, and one number a page says whether it is in.
#include "replacement.h"

namespace memfit {

PagingOutcome replace_fifo(const Accesses& accesses, int32_t capacity, const PagingStop& stop) {
  std::vector<int32_t> loaded(accesses.pages, -1);  // the miss that loaded it last
  int32_t misses = 0, oldest = 0;                   // the first miss whose page is still in
  const auto step = [&](int32_t t) {
    int32_t& mark = loaded[accesses.page[t]];
    const bool hit = mark >= oldest;
    if (!hit) {
      mark = misses++;
      if (misses - oldest > capacity) ++oldest;
    }
    if (accesses.hit) accesses.hit[t] = hit;
  };
  each_access(accesses.count, stop, step);
  return {misses, oldest};
}

}  // namespace memfit
