// One complete depth-first search for offsets under a limit, which stops and goes on at any node.
//
// A solution in which no buffer can drop rests everywhere: each buffer lies on the floor, on an obstacle or on another
// buffer. Such a solution exists if any does, so it suffices to place buffers from low to high. At each node the search
// takes the lowest level at which anything can lie, picks one section there, and asks: which buffer of this section
// lies at exactly this level? One child a buffer that can, and one in which none does (the section wastes bytes, and
// its buffers must wait for something to rest on). The children exclude each other, so nothing is searched twice.
//
//   level  |      a's floor   b,c's floor        `nat`: lowest offset that the placed buffers allow
//     3    |      +------+                       `low`: the same, or higher where a decision forbade lower ones
//     2    |  +---+      |                       `floor` of a section: least `low` of its unplaced buffers
//     0    |  +---+------+----------> sections   a section fails when floor + sizes still to come > limit
//
// Based on the canonical search of Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated
// Machine Learning" (ASPLOS 2023): offsets in rising order, section bounds, decomposition, pruning below nothing.
// Different: branching on one section instead of over all buffers, floors kept incrementally by witnesses, rests
// propagated, stacks of equal lifetime kept in one order, and resumable.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "placement_shape.h"

namespace memfit {

enum PlacementSwitch : uint32_t {
  kDecompose = 1,  // parts that share no unplaced buffer are solved one by one
  kHatless = 2,    // a buffer with nothing left to lie on it is placed once
  kRests = 4,      // a buffer that is not placed where it could be must wait for what it will rest on
  kStacks = 8,     // of two buffers of equal lifetime on top of each other the higher ranked lies below
  kTwins = 16,     // equal buffers in the order of their number
  kHeads = 32,     // sections bounded by every floor of their buffers, not only by the least
  kFewest = 64,   // the section with fewest choices; else the one of the best ranked buffer
  kAllSwitches = 127,
};

enum class SearchStatus { kFound, kExhausted, kPaused };

struct SearchOptions {
  std::string order = "TWA";  // keys by falling priority: Area, Overlaps, Total, Width, siZe, Lower, Upper, Sections
  double noise = 0;           // strength of random disturbance of the order
  uint64_t seed = 0;
  uint32_t switches = kAllSwitches;
  std::vector<double> weight; // of each section, for the keys X (largest weight crossed) and Y (sum of them)
};

class PlacementSearch {
 public:
  virtual ~PlacementSearch() = default;
  // Goes on for at most `nodes` nodes. kExhausted is a proof that nothing fits the limit.
  virtual SearchStatus run(int64_t nodes) = 0;
  virtual int64_t nodes() const = 0;
  // Offsets of the moving buffers in units of the shape, after kFound.
  virtual std::vector<int64_t> offsets() const = 0;
  // How often each section was where a child failed.
  virtual const std::vector<int64_t>& failures() const = 0;
};

// `limit` in units of the shape. The shape must outlive the search.
std::unique_ptr<PlacementSearch> make_search(const PlacementShape& shape, int64_t limit, const SearchOptions& options);

}  // namespace memfit
