// Complete search for buffers whose pieces use windows of their bytes, where "below" and "above" can differ from piece
// to piece: of two such buffers the difference of offsets must avoid one or several ranges.
//
// Each pair of buffers alive at a common instant allows a few closed ranges of the difference of their offsets. The
// search keeps a range of offsets for every buffer. As soon as a pair has one allowed range left, it is imposed and
// propagated; when no pair is violated with all buffers at the low ends of their ranges, those are a placement; else
// it branches over the allowed ranges of a violated pair with the fewest. Pins are ranges of one offset, alignment
// rounds the ends. Complete, and slower than the search for whole buffers: O(pairs) a node.
#pragma once
#include "placement_search.h"

namespace memfit {

// `limit` in units of the shape, which must be windowed and outlive the search.
std::unique_ptr<PlacementSearch> make_window_search(const PlacementShape& shape, int64_t limit, uint64_t seed);

}  // namespace memfit
