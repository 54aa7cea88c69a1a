// Filling a board in a given order, and search by ejection from what that left out.
//
// Ejection: a buffer that fits nowhere below the ceiling takes the offset where the buffers in the way cost least, and
// throws them out; they then look for a place, largest area first. What a buffer costs grows each time it is thrown out,
// so that two of them do not throw each other out for ever. The idea is that of iterated forward search in timetabling
// (Mueller 2005) and of negotiated rip-up and reroute in routing (McMurchie and Ebeling 1995).
#pragma once
#include <cstddef>
#include <cstdint>
#include <queue>
#include <utility>
#include <vector>

#include "large_placement.h"
#include "large_placement_board.h"
#include "random.h"

namespace memfit {

// Both classes go on in slices of work (neighbours looked at), so that the caller can stop between slices.
class Filling {
 public:
  // Takes the buffers in `order`, each by `fit` below the ceiling; pinned ones first, what did not fit last, on top.
  Filling(const LargeProblem& problem, std::vector<int32_t> order, Fit fit, int64_t ceiling);
  bool run(int64_t work);  // true when every buffer of the order has been tried
  // Offsets; kUnplaced of what was not tried or did not fit below the ceiling.
  const std::vector<int64_t>& offset() const { return board_.offset(); }
  int64_t out() const { return static_cast<int64_t>(late_.size()); }
  std::vector<int64_t> whole() const;

 private:
  const LargeProblem& problem_;
  Board board_;
  std::vector<int32_t> order_, late_;
  Fit fit_;
  int64_t ceiling_;
  size_t next_ = 0;
};

class EjectionSearch {
 public:
  // From offsets (kUnplaced: out); buffers that reach above the ceiling are taken out, pinned ones stay.
  EjectionSearch(const LargeProblem& problem, const std::vector<int64_t>& offset, int64_t ceiling, uint64_t seed);
  bool run(int64_t work);  // true when every buffer lies below the ceiling
  int64_t out() const { return static_cast<int64_t>(waiting_.size() + hopeless_.size()); }
  int64_t work() const { return board_.work(); }
  const std::vector<int64_t>& offset() const { return board_.offset(); }
  std::vector<int64_t> whole() const;  // with what is out put on top

 private:
  const LargeProblem& problem_;
  Board board_;
  int64_t ceiling_;
  Random random_;
  std::vector<int64_t> weight_, cost_;
  std::vector<int32_t> evicted_, hopeless_;
  std::priority_queue<std::pair<int64_t, int32_t>> waiting_;
};

}  // namespace memfit
