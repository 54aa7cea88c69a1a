// Size classes with slabs, jemalloc-like; rules and twin: memfit/allocators/size_classes.py.
#pragma once
#include "replay_loop.h"

namespace memfit {

// `capacity` < 0: unbounded. Cost: O(1) bins an event for extents (ranges.h), O(log slabs) for slots.
ReplayOutcome replay_size_classes(const RequestColumns& in, int64_t capacity, bool series, const Stop& stop);

}  // namespace memfit
