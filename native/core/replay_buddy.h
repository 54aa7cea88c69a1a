// The binary buddy system over one growing arena; rules and twin: memfit/allocators/buddy.py.
#pragma once
#include "replay_loop.h"

namespace memfit {

// Blocks of 2^smallest bytes and more; the arena grows by at least 2^granule. `capacity` < 0: unbounded.
ReplayOutcome replay_buddy(const RequestColumns& in, int64_t capacity, bool series, int smallest, int granule,
                           const Stop& stop);

}  // namespace memfit
