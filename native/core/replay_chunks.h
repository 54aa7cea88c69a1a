// Best fit with coalescing over regions (TensorFlow's BFC, ONNX Runtime's arena); twin: memfit/allocators/chunks.py.
#pragma once
#include "replay_loop.h"

namespace memfit {

// The fields of the twin's Growth, in its order.
struct Growth {
  int64_t first, doubles, largest, everything, spare, collects, joins, shrinks, keeps_first, after_shrink;
};

// `capacity` < 0: unbounded. Cost: O(1) bins an event, see ranges.h.
ReplayOutcome replay_chunks(const RequestColumns& in, int64_t capacity, bool series, const Growth& growth,
                            const Stop& stop);

}  // namespace memfit
