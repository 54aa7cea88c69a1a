// The plan of one period: where each block that is born and dies within it lies, around what is alive at its border.
//
// Two candidates. *Recorded*: where the last period put its blocks; that is memory the program holds already. *Packed*:
// greedy placement by size (greedy_placement.h, with the blocks alive at the border as obstacles), taken where it ends lower.
// Blocks that cross the border have no place in the plan: they are served as they come. Cost: O(n log n) as a rule.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "pool_repeats.h"

namespace memfit {

struct PoolPlan {
  struct Entry {
    uint64_t code;      // what is expected
    int64_t start;      // the place, in granules, of what is allocated or freed; -1: none, served as it comes
    int64_t granules;   // of an allocation with a place
    int64_t until;      // of an allocation with a place: the entry that frees it
  };
  std::vector<Entry> entries;
  std::vector<std::pair<int64_t, int64_t>> spans;  // union of the places, in order, [start, end)
  int64_t end = 0;       // the end of the highest place
  bool packed = false;
};

// `events` are those of one period, in order; `taken`, in order, the ranges that are alive at its border.
PoolPlan plan_period(const std::vector<PoolEvent>& events, const std::vector<std::pair<int64_t, int64_t>>& taken);

}  // namespace memfit
