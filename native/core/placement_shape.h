// A placement instance prepared for search: events become sections, pieces become spans of sections, pinned buffers
// become obstacles, and every buffer knows its neighbours.
//
// Time is cut at every birth and death; a section is the time between two cuts, in which the set of live buffers does
// not change. Sections whose live set is contained in a neighbour's are dropped: they say nothing of their own.
#pragma once
#include <cstdint>
#include <vector>

namespace memfit {

// The columns of memfit.planners.problem.Instance, owned.
struct PlacementInstance {
  std::vector<int64_t> lower, upper, size, alignment, fixed;
  std::vector<int64_t> start, piece_lower, piece_upper, piece_low, piece_high;
};

struct Span {
  int32_t first, last;  // sections [first, last)
};

struct Obstacle {
  int64_t low, high;  // bytes held by a pinned buffer
};

struct PlacementShape {
  int32_t count = 0;     // buffers that move (not pinned)
  int32_t sections = 0;
  int64_t divisor = 1;   // every figure below is in units of this many bytes
  bool windowed = false; // some piece uses only a part of its buffer's bytes: another search
  bool clash = false;    // two pinned buffers overlap: nothing can be placed
  int64_t pinned_top = 0;             // highest byte of a pinned buffer
  std::vector<int32_t> buffer;        // moving buffer -> buffer of the instance
  std::vector<int64_t> size, alignment;
  std::vector<double> duration;       // instants from birth to death, for orders only
  std::vector<int32_t> span_start;    // compressed rows
  std::vector<Span> spans;
  std::vector<Span> hull;             // from the first section of a buffer to past its last
  std::vector<int32_t> member_start, members;    // section -> moving buffers alive in it
  std::vector<int32_t> neighbour_start, neighbours;  // buffer -> buffers alive at a common instant
  std::vector<int32_t> obstacle_start;
  std::vector<Obstacle> obstacles;    // buffer -> bytes it must avoid, by rising low end
  std::vector<int32_t> pin_start;
  std::vector<Obstacle> pins;         // section -> bytes held there by pinned buffers
  std::vector<int32_t> same_before;   // previous buffer with the same spans, size, alignment and obstacles, or -1
  std::vector<int32_t> lifetime_class;  // equal where the spans are equal
  bool plain = true;                  // no obstacles, alignment 1 throughout
  int64_t load = 0;                   // largest sum of bytes in use at an instant, pinned ones included
  PlacementInstance source;           // only where windowed
};

// Cost: O(pieces log pieces + overlapping pairs).
PlacementShape make_shape(const PlacementInstance& instance);

}  // namespace memfit
