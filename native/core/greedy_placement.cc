#include "greedy_placement.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace memfit {
namespace {

constexpr size_t kBlock = 512;
constexpr size_t kFew = 64;     // pieces that are listed rather than scanned for, however few are placed
constexpr size_t kShare = 16;   // and so is one in that many
constexpr int64_t kNothing = std::numeric_limits<int64_t>::min();

int64_t round_up(int64_t value, int64_t alignment) {
  return alignment == 1 ? value : (value + alignment - 1) / alignment * alignment;
}

// Ranges that a buffer's offset may not lie strictly inside, fed by ascending begin; remembers the hole that is chosen.
class Holes {
 public:
  Holes(int64_t alignment, Fit fit) : alignment_(alignment), fit_(fit) {}
  // False when no later range can change the choice.
  bool feed(int64_t begin, int64_t end) {
    if (begin >= cursor_) {
      const int64_t offset = round_up(cursor_, alignment_), room = begin - cursor_;
      if (offset <= begin && (chosen_ < 0 || (fit_ == Fit::best ? room < room_ : room > room_))) {
        chosen_ = offset;
        room_ = room;
        if (fit_ == Fit::first || (fit_ == Fit::best && room == 0)) return false;
      }
    }
    if (end > cursor_) cursor_ = end;
    return true;
  }
  int64_t offset() const { return chosen_ >= 0 ? chosen_ : round_up(cursor_, alignment_); }

 private:
  int64_t alignment_, cursor_ = 0, room_ = -1, chosen_ = -1;
  Fit fit_;
};

}  // namespace

void PlacedByOffset::insert(int64_t low, int64_t high, int64_t lower, int64_t upper) {
  if (blocks_.empty()) blocks_.push_back({{}, {}, {}, {}, lower, upper});
  auto after = std::upper_bound(blocks_.begin() + 1, blocks_.end(), low,
                                [](int64_t value, const Block& block) { return value < block.low.front(); });
  auto block = after - 1;
  if (block->low.size() == kBlock) {
    const size_t half = kBlock / 2;
    Block rest;
    auto tail = [&](std::vector<int64_t>& from, std::vector<int64_t>& to) {
      to.reserve(kBlock);
      to.assign(from.begin() + half, from.end());
      from.resize(half);
    };
    tail(block->low, rest.low);
    tail(block->high, rest.high);
    tail(block->lower, rest.lower);
    tail(block->upper, rest.upper);
    for (Block* part : {&*block, &rest}) {
      part->earliest = *std::min_element(part->lower.begin(), part->lower.end());
      part->latest = *std::max_element(part->upper.begin(), part->upper.end());
    }
    const bool second = low >= rest.low.front();
    block = blocks_.insert(block + 1, std::move(rest));
    if (!second) --block;
  }
  const auto at = std::upper_bound(block->low.begin(), block->low.end(), low) - block->low.begin();
  block->low.insert(block->low.begin() + at, low);
  block->high.insert(block->high.begin() + at, high);
  block->lower.insert(block->lower.begin() + at, lower);
  block->upper.insert(block->upper.begin() + at, upper);
  block->earliest = std::min(block->earliest, lower);
  block->latest = std::max(block->latest, upper);
}

PlacedByBirth::PlacedByBirth(const PlacementColumns& columns)
    : piece_of_(columns.lower.size()), rank_of_(columns.lower.size()), upper_(columns.upper), leaves_(1) {
  const auto& lower = columns.lower;
  std::iota(piece_of_.begin(), piece_of_.end(), 0);
  std::sort(piece_of_.begin(), piece_of_.end(),
            [&](int64_t a, int64_t b) { return lower[a] != lower[b] ? lower[a] < lower[b] : a < b; });
  births_.reserve(lower.size());
  for (size_t rank = 0; rank < piece_of_.size(); ++rank) {
    rank_of_[piece_of_[rank]] = static_cast<int64_t>(rank);
    births_.push_back(lower[piece_of_[rank]]);
  }
  while (leaves_ < piece_of_.size()) leaves_ *= 2;
  latest_.assign(2 * leaves_, kNothing);
}

void PlacedByBirth::insert(int64_t piece) {
  size_t node = leaves_ + static_cast<size_t>(rank_of_[piece]);
  const int64_t end = upper_[piece];
  for (; node >= 1 && latest_[node] < end; node /= 2) latest_[node] = end;
}

bool PlacedByBirth::meeting(int64_t lower, int64_t upper, size_t most, std::vector<int64_t>& out) const {
  const size_t born = static_cast<size_t>(std::lower_bound(births_.begin(), births_.end(), upper) - births_.begin());
  const size_t limit = out.size() + most;
  struct Node {
    size_t index, first, width;  // of the ranks below it
  } stack[130];
  int depth = 0;
  stack[depth++] = {1, 0, leaves_};
  while (depth) {
    const auto [node, first, width] = stack[--depth];
    if (first >= born || latest_[node] <= lower) continue;
    if (node >= leaves_) {
      if (out.size() == limit) return false;
      out.push_back(piece_of_[first]);
      continue;
    }
    stack[depth++] = {2 * node + 1, first + width / 2, width / 2};
    stack[depth++] = {2 * node, first, width / 2};
  }
  return true;
}

GreedyPlacement::GreedyPlacement(PlacementColumns columns, std::vector<int64_t> order, Fit fit)
    : c_(std::move(columns)), order_(std::move(order)), offset_(c_.fixed), fit_(fit), by_birth_(c_) {
  owner_.reserve(c_.lower.size());
  for (size_t row = 0; row < c_.fixed.size(); ++row)
    owner_.insert(owner_.end(), static_cast<size_t>(c_.start[row + 1] - c_.start[row]), static_cast<int64_t>(row));
  for (size_t row = 0; row < c_.fixed.size(); ++row)
    if (c_.fixed[row] >= 0) put(static_cast<int64_t>(row), c_.fixed[row]);
}

void GreedyPlacement::put(int64_t row, int64_t offset) {
  offset_[row] = offset;
  for (int64_t piece = c_.start[row]; piece < c_.start[row + 1]; ++piece) {
    by_birth_.insert(piece);
    by_offset_.insert(offset + c_.low[piece], offset + c_.high[piece], c_.lower[piece], c_.upper[piece]);
    ++placed_;
  }
}

bool GreedyPlacement::advance(int64_t work) {
  for (const int64_t stop = looked_ + work; next_ < order_.size() && looked_ < stop; ++next_) {
    const int64_t row = order_[next_];
    if (c_.fixed[row] < 0) put(row, hole(row));
  }
  return next_ == order_.size();
}

int64_t GreedyPlacement::hole(int64_t row) {
  Holes holes(c_.alignment[row], fit_);
  const int64_t first = c_.start[row], end = c_.start[row + 1];
  const bool single = end - first == 1;
  forbidden_.clear();
  for (int64_t piece = first; piece < end; ++piece) {
    const int64_t lower = c_.lower[piece], upper = c_.upper[piece], low = c_.low[piece], high = c_.high[piece];
    meeting_.clear();
    if (by_birth_.meeting(lower, upper, kFew + placed_ / kShare, meeting_)) {
      looked_ += static_cast<int64_t>(meeting_.size()) + 16;
      for (const int64_t other : meeting_) {
        const int64_t at = offset_[owner_[other]];
        forbidden_.emplace_back(at + c_.low[other] - high, at + c_.high[other] - low);
      }
      continue;
    }
    for (const auto& block : by_offset_.blocks()) {
      if (block.earliest >= upper || block.latest <= lower) continue;
      const size_t count = block.low.size();
      pick_.resize(kBlock);
      size_t picked = 0;
      for (size_t i = 0; i < count; ++i) {
        pick_[picked] = static_cast<int64_t>(i);
        picked += static_cast<size_t>((block.lower[i] < upper) & (block.upper[i] > lower));
      }
      looked_ += static_cast<int64_t>(count / 8);
      for (size_t i = 0; i < picked; ++i) {
        const int64_t begin = block.low[pick_[i]] - high, stop = block.high[pick_[i]] - low;
        if (!single) {
          forbidden_.emplace_back(begin, stop);
        } else if (!holes.feed(begin, stop)) {
          return holes.offset();
        }
      }
    }
  }
  std::sort(forbidden_.begin(), forbidden_.end());
  for (const auto& [begin, stop] : forbidden_)
    if (!holes.feed(begin, stop)) break;
  return holes.offset();
}

}  // namespace memfit
