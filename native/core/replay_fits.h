// First, best, worst and next fit over one growing arena; rules and twin: memfit/allocators/fits.py.
#pragma once
#include "replay_loop.h"

namespace memfit {

enum FitKind { kFirstFit = 0, kBestFit = 1, kWorstFit = 2, kNextFit = 3 };

// `capacity` < 0: unbounded. Alignment divides granule. Cost: see holes.h and ranges.h.
ReplayOutcome replay_fit(const RequestColumns& in, int64_t capacity, bool series, FitKind kind, int64_t alignment,
                         int64_t granule, const Stop& stop);

}  // namespace memfit
