// Problems of thousands to millions of buffers: their pieces, cut into sections of time and blocks of sections.
//
// A new section begins where an allocation follows a free, so pieces overlap in time exactly if their section ranges
// meet. Pieces are kept in order of their first section. Sections are grouped into blocks, spaced so that all pieces that
// cross a beginning of a block, counted for every block, stay linear in the pieces.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace memfit {

constexpr int64_t kUnplaced = -1;
constexpr int64_t kNoCeiling = INT64_MAX / 4;

enum class GapFit : int32_t { kFirst = 0, kBest = 1 };

inline int64_t aligned_up(int64_t value, int64_t step) {
  return step == 1 ? value : (value + step - 1) / step * step;
}

struct LargeProblem {
  int32_t buffers = 0;
  int32_t pieces = 0;
  int32_t sections = 0;
  int32_t blocks = 0;
  // Of buffers.
  std::vector<int64_t> size, alignment, fixed;
  std::vector<int32_t> start, piece_of;  // the pieces of buffer i: piece_of[start[i] .. start[i + 1])
  std::vector<int64_t> reach;            // one past the highest byte of any piece, from the buffer's offset
  std::vector<int64_t> lifetime;         // sections of all pieces together
  // Of pieces, in order of first section.
  std::vector<int32_t> owner, first, last;
  std::vector<int64_t> low, high;
  // Of sections.
  std::vector<int32_t> block_of;
  std::vector<int64_t> load;

  // `start`, `lower`, `upper`, `low`, `high`: the pieces of buffer i are start[i] .. start[i + 1]; times half-open.
  LargeProblem(std::vector<int64_t> size, std::vector<int64_t> alignment, std::vector<int64_t> fixed,
               const std::vector<int64_t>& start, const std::vector<int64_t>& lower, const std::vector<int64_t>& upper,
               const std::vector<int64_t>& low, const std::vector<int64_t>& high);

  int64_t bound() const;                      // the largest load of a section
  std::vector<int64_t> largest_load() const;  // of each buffer: the largest load in its lifetime; O(n log sections)
};

}  // namespace memfit
