// A trace through the CUDA caching allocator, and the smallest capacity that it runs on.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "caching_allocator.h"

namespace memfit {

struct CachingTrace {
  int64_t events;
  const uint8_t* action;  // 0 allocate, 1 free, 2 free requested, 3 empty the cache
  const int64_t* block;
  const int64_t* rounded;
  const int32_t* queue;
  int64_t blocks;
};

using Stopped = std::function<bool()>;  // asked now and then; true ends the work with Interrupted
struct Interrupted {};

struct CachingOutcome {
  int64_t failed = -1;  // the event at which memory ran out
  int64_t peak_reserved = 0;
  int64_t driver_allocations = 0;
  int64_t driver_frees = 0;
  int64_t smallest_refused = INT64_MAX;
  std::vector<int64_t> size;     // by block; empty where not asked for
  std::vector<int64_t> address;  // by block
  std::vector<CachingAllocator::Change> changes;
};

CachingOutcome replay_caching(const CachingTrace& trace, const std::vector<CachingQueue>& queues, const CachingRules& rules,
                              int64_t capacity, bool series, const Stopped& stopped);

struct SmallestCapacity {
  int64_t capacity = -1;
  CachingOutcome there;      // the replay at that capacity
  CachingOutcome unlimited;  // and without a limit
  bool proved = false;       // every smaller capacity fails
  int64_t replays = 0;
};

// The smallest capacity, a multiple of `step`, that the trace runs on, not below `least`; about `effort`
// events are replayed for the proof that nothing below it works.
SmallestCapacity smallest_capacity(const CachingTrace& trace, const std::vector<CachingQueue>& queues, const CachingRules& rules,
                                   int64_t least, int64_t step, int64_t effort, const Stopped& stopped);

}  // namespace memfit
