// Which bytes are taken while a buffer is alive, without knowing by whom: the board of a filling, which takes nothing back.
//
// A tree over the sections, eight children to a node. A piece is written as merged address intervals into the nodes that
// it covers and whose parent it does not (`cover`), and into the nodes that it only touches (`touched`), at most two a
// level. What bars a piece in a range is then in the covers of the nodes above the range's own, and in both lists of
// those: O(log sections) lists however many buffers are alive at once. Free offsets are kept as closed intervals from
// which list after list is taken away, the long-lived first, so that little is left to look at when the short ones come.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "large_placement.h"

namespace memfit {

class Spans {
 public:
  explicit Spans(const LargeProblem& problem);
  const std::vector<int64_t>& offset() const { return offset_; }
  int64_t work() const { return work_; }  // intervals looked at so far
  void put(int32_t buffer, int64_t offset);
  // As Board::find.
  int64_t find(int32_t buffer, GapFit fit, int64_t ceiling);
  // The lowest offset above everything that is alive with the buffer: O(log sections), wasteful.
  int64_t above(int32_t buffer);

 private:
  using Interval = std::pair<int64_t, int64_t>;
  using Taken = std::vector<Interval>;  // half-open, disjoint, not adjacent, in order
  struct Node {
    Taken cover, touched;
  };
  // Calls covered(node) for the nodes that make up the sections [from, to], touching(node) for those above them.
  template <class Covered, class Touching>
  void visit(int32_t from, int32_t to, Covered covered, Touching touching);
  static void add(Taken& taken, int64_t from, int64_t to);
  void subtract(const Taken& taken, int64_t low, int64_t high);

  const LargeProblem& problem_;
  std::vector<int64_t> offset_;
  std::vector<std::vector<Node>> levels_;
  std::vector<Interval> free_, next_;  // closed
  std::vector<const Taken*> lists_;
  int64_t work_ = 0;
};

}  // namespace memfit
