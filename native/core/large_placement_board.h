// A partial placement of a large problem, and the question where one more buffer fits, or what it would throw out.
//
// What is placed is kept by blocks of time: the pieces that cross the beginning of a block in order of address (they are
// disjoint there), and the pieces that begin inside it. Neighbours of a piece alive in sections [f, l] are the crossing
// pieces of f's block, already sorted, and what began in the blocks of f .. l: a query costs what it finds, not a sort of
// it. Offsets that a neighbour bars are an open interval, so pieces with byte windows need no case of their own.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "large_placement.h"

namespace memfit {

class Board {
 public:
  explicit Board(const LargeProblem& problem);
  const std::vector<int64_t>& offset() const { return offset_; }
  int64_t work() const { return work_; }  // neighbours looked at so far
  void put(int32_t buffer, int64_t offset);
  void take(int32_t buffer);
  // Where the buffer fits below `ceiling`: the lowest offset, or the lowest in the narrowest gap (one that reaches the
  // ceiling is the widest); or kUnplaced.
  int64_t find(int32_t buffer, GapFit fit, int64_t ceiling);
  // The offset below `ceiling` with the smallest sum of `cost` over the buffers in the way (a cost < 0: never moved), of
  // equals the narrowest gap, then the lowest. `evicted` gets the buffers in the way, by number. Or kUnplaced.
  int64_t force(int32_t buffer, int64_t ceiling, const std::vector<int64_t>& cost, std::vector<int32_t>& evicted);

 private:
  struct Placed {
    int64_t bottom, top;
    int32_t first, last, owner;
  };
  struct Barred {  // offsets strictly between `from` and `to` are barred
    int64_t from, to;
    int32_t by;
  };
  void gather(int32_t buffer);

  const LargeProblem& problem_;
  std::vector<int64_t> offset_;
  std::vector<std::vector<Placed>> crossing_, beginning_;  // of blocks
  std::vector<Barred> barred_;
  std::vector<Barred> ends_;
  int64_t work_ = 0;
};

}  // namespace memfit
