// In which order buffers are tried: keys by letter, with a random disturbance.
#pragma once
#include <vector>

#include "placement_search.h"

namespace memfit {

// Rank of each moving buffer, 0 = first. Letters: Area, Overlaps, Total of the fullest section, Width in sections, siZe,
// Lower, Upper, Duration in instants, B = duration x size, and of the learned weights: X largest, Y sum, P sum x size.
std::vector<int32_t> placement_ranks(const PlacementShape& shape, const SearchOptions& options);

}  // namespace memfit
