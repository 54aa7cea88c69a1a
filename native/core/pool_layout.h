// Where a block of the pool lies: the lowest free range that holds it (first fit by address), neighbours joined at once.
//
//   [ block ][ free ][ block ][ block ][ free ............................ ]  <- the last hole is what was never used
//
// Counted in granules of 4 KiB. Address order keeps long-lived blocks low and the top free, so that what a step touches
// stays small; see holes.h for the search. The twin is the arena of allocators/fits.py with kind "first".
#pragma once
#include <cstdint>

#include "holes.h"

namespace memfit {

class PoolLayout {
 public:
  explicit PoolLayout(int64_t granules) { holes_.release(0, granules); }

  // The start of `size` granules taken, -1 where none are free in a row.
  int64_t take(int64_t size) {
    const Holes::Place place = holes_.find(size);
    if (place.at < 0) return -1;
    const int64_t start = holes_.start(place);
    holes_.take_front(place, size);
    return start;
  }
  void give(int64_t start, int64_t size) { holes_.release(start, start + size); }
  // Takes exactly [start, start + size); false where any of it is taken.
  bool take_at(int64_t start, int64_t size) { return holes_.take_range(start, start + size); }
  template <class Each>
  void each_hole(Each&& visit) const {
    holes_.each(visit);
  }

 private:
  Holes holes_;
};

}  // namespace memfit
