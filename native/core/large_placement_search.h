// Filling a board in a given order, and search by ejection from what that left out.
//
// Ejection: a buffer that fits nowhere below the ceiling takes the offset where the buffers in the way cost least, and
// throws them out; they then look for a place, by turns. What a buffer costs grows each time it is thrown out,
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
#include "large_placement_spans.h"
#include "random.h"

namespace memfit {

// Both classes go on in slices of work (neighbours or intervals looked at), so that the caller can stop between slices.
class Filling {
 public:
  // Takes the buffers in `order`, each by `fit` below the ceiling; pinned ones first, what did not fit last, on top.
  Filling(const LargeProblem& problem, std::vector<int32_t> order, GapFit fit, int64_t ceiling);
  bool run(int64_t work);  // true when every buffer of the order has been tried
  // Offsets; kUnplaced of what was not tried or did not fit below the ceiling.
  const std::vector<int64_t>& offset() const { return spans_.offset(); }
  int64_t out() const { return static_cast<int64_t>(late_.size()); }
  int64_t work() const { return spans_.work(); }
  std::vector<int64_t> whole() const;  // with what did not fit put on top by first fit, and what was not tried above all

 private:
  const LargeProblem& problem_;
  Spans spans_;
  std::vector<int32_t> order_, late_;
  GapFit fit_;
  int64_t ceiling_;
  size_t next_ = 0;
};

// Which of the buffers that are out looks for a place next; of equals the last by number.
enum class Turn : int32_t { kArea = 0, kOldest = 1, kSize = 2 };

class EjectionSearch {
 public:
  // From offsets (kUnplaced: out); buffers that reach above the ceiling are taken out, pinned ones stay. A seed other
  // than 0 raises each buffer's weight by up to a half at random.
  EjectionSearch(const LargeProblem& problem, const std::vector<int64_t>& offset, int64_t ceiling, Turn turn,
                 uint64_t seed);
  bool run(int64_t work);  // true when every buffer lies below the ceiling
  int64_t out() const { return static_cast<int64_t>(waiting_.size() + hopeless_.size()); }
  int64_t work() const { return board_.work(); }
  const std::vector<int64_t>& offset() const { return board_.offset(); }
  std::vector<int64_t> whole() const;  // with what is out put on top

 private:
  void wait(int32_t buffer);

  const LargeProblem& problem_;
  Board board_;
  int64_t ceiling_;
  Turn turn_;
  int64_t tickets_ = 0;
  std::vector<int64_t> weight_, cost_;
  std::vector<int32_t> evicted_, hopeless_;
  std::priority_queue<std::pair<int64_t, int32_t>> waiting_;
};

}  // namespace memfit
