// Greedy placement: buffers in a given order, each into a hole among those placed before it.
//
// What is placed is held twice. A tree of the latest ends over pieces sorted by birth lists the pieces that meet a
// lifetime in O(k log n); a list of blocks sorted by offset is scanned instead where a lifetime meets many. The order
// in which equal holes are met does not matter, so both give the same offset: the twin in Python gives it too.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace memfit {

// Columns of an Instance (see planners/problem.py): pieces of row i are start[i] .. start[i + 1].
struct PlacementColumns {
  std::vector<int64_t> start, lower, upper, low, high;  // of the pieces
  std::vector<int64_t> alignment, fixed;                // of the rows; fixed is -1 where free
};

enum class Fit : int { best = 0, first = 1, worst = 2 };

// Placed pieces by offset, in blocks.
class PlacedByOffset {
 public:
  struct Block {
    std::vector<int64_t> low, high, lower, upper;
    int64_t earliest, latest;  // of lower and upper
  };
  void insert(int64_t low, int64_t high, int64_t lower, int64_t upper);
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  std::vector<Block> blocks_;
};

// Placed pieces by birth.
class PlacedByBirth {
 public:
  explicit PlacedByBirth(const PlacementColumns& columns);
  void insert(int64_t piece);
  // Appends the placed pieces that meet [lower, upper); false when there are more than `most`.
  bool meeting(int64_t lower, int64_t upper, size_t most, std::vector<int64_t>& out) const;

 private:
  std::vector<int64_t> piece_of_, rank_of_, births_;
  std::vector<int64_t> latest_;  // tree: latest end below a node, the smallest integer where nothing is placed
  const std::vector<int64_t>& upper_;
  size_t leaves_;
};

class GreedyPlacement {
 public:
  GreedyPlacement(PlacementColumns columns, std::vector<int64_t> order, Fit fit);
  // Places further rows until about `work` pieces were looked at; true when all rows are placed.
  bool advance(int64_t work);
  const std::vector<int64_t>& offsets() const { return offset_; }

 private:
  int64_t hole(int64_t row);
  void put(int64_t row, int64_t offset);

  PlacementColumns c_;
  std::vector<int64_t> order_, offset_, owner_;  // owner_: row of a piece
  Fit fit_;
  PlacedByBirth by_birth_;
  PlacedByOffset by_offset_;
  size_t next_ = 0, placed_ = 0;
  int64_t looked_ = 0;
  std::vector<int64_t> meeting_, pick_;
  std::vector<std::pair<int64_t, int64_t>> forbidden_;
};

}  // namespace memfit
