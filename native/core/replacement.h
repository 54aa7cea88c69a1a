// Page replacement: which page leaves when a fast memory of `capacity` pages is full and another is asked for.
// One function a policy, one file each; all run over the same accesses and answer the same figures. Pages are dense
// numbers from 0, so that every list and set is a flat array. Papers: the Python twins name them.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace memfit {

// Asked now and then: true ends the run (its figures are then meaningless).
using PagingStop = std::function<bool()>;

// `hit`: one byte an access to fill with 1 or 0, or nullptr. At most 2^31 - 2 accesses.
struct Accesses {
  const int32_t* page;
  int32_t count;
  int32_t pages;
  uint8_t* hit;
};

struct PagingOutcome {
  int64_t misses = 0;
  int64_t evictions = 0;
};

PagingOutcome replace_fifo(const Accesses& accesses, int32_t capacity, const PagingStop& stop);
PagingOutcome replace_clock(const Accesses& accesses, int32_t capacity, const PagingStop& stop);
PagingOutcome replace_lru(const Accesses& accesses, int32_t capacity, const PagingStop& stop);
PagingOutcome replace_mru(const Accesses& accesses, int32_t capacity, const PagingStop& stop);
PagingOutcome replace_two_queues(const Accesses& accesses, int32_t capacity, const PagingStop& stop);
PagingOutcome replace_arc(const Accesses& accesses, int32_t capacity, const PagingStop& stop);
PagingOutcome replace_s3_fifo(const Accesses& accesses, int32_t capacity, const PagingStop& stop);
PagingOutcome replace_sieve(const Accesses& accesses, int32_t capacity, const PagingStop& stop);
PagingOutcome replace_optimal(const Accesses& accesses, int32_t capacity, const PagingStop& stop);

// For each capacity 0..pages the misses, of one pass over the accesses.
std::vector<int64_t> curve_lru(const Accesses& accesses, const PagingStop& stop);
std::vector<int64_t> curve_optimal(const Accesses& accesses, const PagingStop& stop);

// For each access the position of the next one to the same page, `count` where there is none. One backward pass.
std::vector<int32_t> next_uses(const Accesses& accesses);

// Calls step(t) for every access, asking `stop` between slices. False when stopped.
template <class Step>
bool each_access(int32_t count, const PagingStop& stop, Step step, int32_t slice = 1 << 21) {
  for (int32_t begin = 0; begin < count;) {
    const int32_t end = count - begin > slice ? begin + slice : count;
    for (int32_t t = begin; t < end; ++t) step(t);
    begin = end;
    if (begin < count && stop()) return false;
  }
  return true;
}

}  // namespace memfit
