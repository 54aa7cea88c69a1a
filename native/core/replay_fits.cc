#include "replay_fits.h"

#include "holes.h"
#include "ranges.h"

namespace memfit {
namespace {

// What all four share: how the arena grows and shrinks.
struct Top {
  int64_t alignment, granule, capacity;
  int64_t reserved = 0, driver_allocations = 0, driver_frees = 0;

  // Raise the top so that `needed` is inside; false where the capacity forbids it.
  bool raise(int64_t needed) {
    int64_t top = rounded_up(needed, granule);
    if (capacity >= 0 && top > capacity) {
      top = capacity / alignment * alignment;
      if (top < needed) return false;
    }
    reserved = top;
    ++driver_allocations;
    return true;
  }

  // Where the top comes down to when the last hole starts at `start`; counts the call if it moves.
  int64_t lowered(int64_t start) {
    const int64_t top = std::min(reserved, rounded_up(start, granule));
    if (top < reserved) {
      ++driver_frees;
      reserved = top;
    }
    return top;
  }

  void segments(std::vector<int64_t>& address, std::vector<int64_t>& bytes) const {
    address.assign(1, 0);
    bytes.assign(1, reserved);
  }
};

struct None {};

template <bool kNext>
struct ByAddress : Top {
  using Handle = None;
  Holes holes;
  int64_t rover = 0;
  int shift = -1;

  explicit ByAddress(Top top) : Top(top) {
    if ((alignment & (alignment - 1)) == 0) shift = __builtin_ctzll(static_cast<uint64_t>(alignment));
  }

  Grant<None> allocate(int64_t nbytes) {
    const int64_t size = shift >= 0 ? (((nbytes - 1) >> shift) + 1) << shift : rounded_up(nbytes, alignment);
    Holes::Place place = kNext ? holes.find_from(size, rover) : holes.find(size);
    if (place.at < 0) {
      const bool open = !holes.empty() && holes.end(holes.last()) == reserved;
      const int64_t start = open ? holes.start(holes.last()) : reserved;
      const int64_t old = reserved;
      if (!raise(start + size)) return {0, -1, {}};
      holes.release(old, reserved);
      place = holes.last();
    }
    const int64_t start = holes.start(place);
    holes.take_front(place, size);
    rover = start + size;
    return {start, size, {}};
  }

  void free(int64_t address, int64_t bytes, None) { holes.release(address, address + bytes); }

  void empty_cache() {
    if (holes.empty() || holes.end(holes.last()) != reserved) return;
    const int64_t top = lowered(holes.start(holes.last()));
    if (top < holes.end(holes.last())) holes.set_end(holes.last(), top);
  }
};

template <bool kWorst>
struct BySize : Top {
  using Handle = Ranges::Index;
  Ranges ranges;
  Handle highest = Ranges::kNone;  // the range that ends at the top
  int shift = -1;

  explicit BySize(Top top) : Top(top) {
    if ((alignment & (alignment - 1)) == 0) shift = __builtin_ctzll(static_cast<uint64_t>(alignment));
  }

  Grant<Handle> allocate(int64_t nbytes) {
    const int64_t size = shift >= 0 ? (((nbytes - 1) >> shift) + 1) << shift : rounded_up(nbytes, alignment);
    Handle found = kWorst ? ranges.largest() : ranges.best(size);
    if (kWorst && found != Ranges::kNone && ranges[found].bytes < size) found = Ranges::kNone;
    if (found == Ranges::kNone) {
      const bool open = highest != Ranges::kNone && ranges[highest].free;
      const int64_t start = open ? ranges[highest].address : reserved;
      const int64_t old = reserved;
      if (!raise(start + size)) return {0, -1, Ranges::kNone};
      found = highest = ranges.release(ranges.add(old, reserved - old, highest));
    }
    const Handle taken = ranges.carve(found, size);
    return {ranges[taken].address, size, taken};
  }

  void free(int64_t, int64_t, Handle handle) {
    const bool joins_highest = ranges[handle].after == highest && ranges[highest].free;
    const Handle whole = ranges.release(handle);
    if (handle == highest || joins_highest) highest = whole;
  }

  void empty_cache() {
    if (highest == Ranges::kNone || !ranges[highest].free) return;
    const int64_t top = lowered(ranges[highest].address);
    auto& range = ranges[highest];
    if (top == range.address + range.bytes) return;
    ranges.unbin(highest);
    range.bytes = top - range.address;
    if (range.bytes > 0) {
      ranges.bin(highest);
    } else {
      const Handle before = range.before;
      ranges.remove(highest);
      highest = before;
    }
  }
};

}  // namespace

ReplayOutcome replay_fit(const RequestColumns& in, int64_t capacity, bool series, FitKind kind, int64_t alignment,
                         int64_t granule, const Stop& stop) {
  const Top top{alignment, granule, capacity};
  switch (kind) {
    case kBestFit: return serve(BySize<false>(top), in, series, stop);
    case kWorstFit: return serve(BySize<true>(top), in, series, stop);
    case kNextFit: return serve(ByAddress<true>(top), in, series, stop);
    default: return serve(ByAddress<false>(top), in, series, stop);
  }
}

}  // namespace memfit
