// The loop that every policy's kernel runs in; twin: memfit/allocators/serving.py, serve().
//
// A Heap has `Handle`, `reserved`, `driver_allocations`, `driver_frees` and
//   Grant allocate(int64_t nbytes)    bytes < 0 where memory runs out
//   void free(int64_t address, int64_t bytes, Handle)
//   void empty_cache()
//   void segments(std::vector<int64_t>& address, std::vector<int64_t>& bytes)
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace memfit {

enum : uint8_t { kAllocate = 0, kFree = 1, kFreeRequested = 2, kEmptyCache = 3 };

struct RequestColumns {
  const uint8_t* action;
  const int64_t* block;
  const int64_t* nbytes;
  int64_t events;
  int64_t blocks;
};

struct ReplayOutcome {
  int64_t peak_live = 0, peak_allocated = 0, peak_reserved = 0;
  int64_t driver_allocations = 0, driver_frees = 0, failed = -1;
  std::vector<int64_t> live, allocated, reserved, address, taken, segment_address, segment_bytes;
};

// Asked every few million events; true ends the replay (the caller raises what interrupted it).
using Stop = std::function<bool()>;

template <class Handle>
struct Grant {
  int64_t address;
  int64_t bytes;
  Handle handle;
};

template <bool kSeries, class Heap>
void serve_events(Heap& heap, const RequestColumns& in, ReplayOutcome& out, const Stop& stop) {
  using Handle = typename Heap::Handle;
  struct Held {
    int64_t live = 0;  // what counts as live; 0 once the program gave it back
    Grant<Handle> grant{0, 0, Handle()};
  };
  std::vector<Held> held(static_cast<size_t>(in.blocks));
  int64_t live = 0, allocated = 0, peak_live = 0, peak_allocated = 0, peak_reserved = 0;
  for (int64_t event = 0; event < in.events; ++event) {
    if ((event & 0x1fffff) == 0x1fffff && stop()) return;
    int64_t address = -1, taken = 0;
    const uint8_t action = in.action[event];
    if (action == kAllocate) {
      const int64_t nbytes = in.nbytes[event];
      const auto grant = heap.allocate(nbytes);
      if (grant.bytes < 0) {
        out.failed = event;
        break;
      }
      held[in.block[event]] = Held{nbytes, grant};
      live += nbytes;
      allocated += grant.bytes;
      if (live > peak_live) peak_live = live;
      if (allocated > peak_allocated) peak_allocated = allocated;
      if (heap.reserved > peak_reserved) {
        peak_reserved = heap.reserved;
        if constexpr (kSeries) heap.segments(out.segment_address, out.segment_bytes);
      }
      address = grant.address;
      taken = grant.bytes;
    } else if (action == kFree) {
      Held& block = held[in.block[event]];
      live -= block.live;
      block.live = 0;
      if (block.grant.bytes > 0) {
        allocated -= block.grant.bytes;
        heap.free(block.grant.address, block.grant.bytes, block.grant.handle);
        block.grant.bytes = 0;
      }
    } else if (action == kFreeRequested) {
      Held& block = held[in.block[event]];
      live -= block.live;
      block.live = 0;
    } else {
      heap.empty_cache();
    }
    if constexpr (kSeries) {
      out.live.push_back(live);
      out.allocated.push_back(allocated);
      out.reserved.push_back(heap.reserved);
      out.address.push_back(address);
      out.taken.push_back(taken);
    }
  }
  out.peak_live = peak_live;
  out.peak_allocated = peak_allocated;
  out.peak_reserved = peak_reserved;
  out.driver_allocations = heap.driver_allocations;
  out.driver_frees = heap.driver_frees;
}

template <class Heap>
ReplayOutcome serve(Heap&& heap, const RequestColumns& in, bool series, const Stop& stop) {
  ReplayOutcome out;
  if (series) {
    for (auto* column : {&out.live, &out.allocated, &out.reserved, &out.address, &out.taken})
      column->reserve(static_cast<size_t>(in.events));
    serve_events<true>(heap, in, out, stop);
  } else {
    serve_events<false>(heap, in, out, stop);
  }
  return out;
}

inline int64_t rounded_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace memfit
