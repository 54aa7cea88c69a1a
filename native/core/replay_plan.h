// Offsets planned before the run, looked up block by block; twin: memfit/allocators/planned.py.
#pragma once
#include "replay_loop.h"

namespace memfit {

// `offset` of each block in order of allocation, inside an arena of `bytes`. `capacity` < 0: unbounded.
ReplayOutcome replay_plan(const RequestColumns& in, int64_t capacity, bool series, const int64_t* offset, int64_t bytes,
                          const Stop& stop);

}  // namespace memfit
