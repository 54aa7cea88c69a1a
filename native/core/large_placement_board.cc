#include "large_placement_board.h"

#include <algorithm>

namespace memfit {

Board::Board(const LargeProblem& problem)
    : problem_(problem), offset_(problem.buffers, kUnplaced), crossing_(problem.blocks), beginning_(problem.blocks) {}

void Board::put(int32_t buffer, int64_t offset) {
  offset_[buffer] = offset;
  for (int32_t i = problem_.start[buffer]; i < problem_.start[buffer + 1]; ++i) {
    const int32_t p = problem_.piece_of[i];
    const Placed placed{offset + problem_.low[p], offset + problem_.high[p], problem_.first[p], problem_.last[p], buffer};
    const int32_t home = problem_.block_of[placed.first];
    beginning_[home].push_back(placed);
    for (int32_t b = home + 1; b <= problem_.block_of[placed.last]; ++b) {
      auto& list = crossing_[b];
      list.insert(std::upper_bound(list.begin(), list.end(), placed.bottom,
                                   [](int64_t bottom, const Placed& other) { return bottom < other.bottom; }),
                  placed);
    }
  }
}

void Board::take(int32_t buffer) {
  const int64_t offset = offset_[buffer];
  offset_[buffer] = kUnplaced;
  for (int32_t i = problem_.start[buffer]; i < problem_.start[buffer + 1]; ++i) {
    const int32_t p = problem_.piece_of[i];
    const int64_t bottom = offset + problem_.low[p];
    const int32_t home = problem_.block_of[problem_.first[p]];
    auto& begun = beginning_[home];
    const auto same = [&](const Placed& x) { return x.owner == buffer && x.first == problem_.first[p] && x.bottom == bottom; };
    *std::find_if(begun.begin(), begun.end(), same) = begun.back();
    begun.pop_back();
    for (int32_t b = home + 1; b <= problem_.block_of[problem_.last[p]]; ++b) {
      auto& list = crossing_[b];
      list.erase(std::find_if(std::lower_bound(list.begin(), list.end(), bottom,
                                               [](const Placed& x, int64_t value) { return x.bottom < value; }),
                              list.end(), same));
    }
  }
}

// Fills `barred_` in order of `from`, and leaves it there; ends are in order too where neighbours are disjoint.
void Board::gather(int32_t buffer) {
  const auto by_from = [](const Barred& a, const Barred& b) { return a.from < b.from; };
  barred_.clear();
  for (int32_t i = problem_.start[buffer]; i < problem_.start[buffer + 1]; ++i) {
    const int32_t mine = problem_.piece_of[i];
    const int64_t low = problem_.low[mine], high = problem_.high[mine];
    const int32_t from = problem_.first[mine], to = problem_.last[mine];
    const int32_t home = problem_.block_of[from], until = problem_.block_of[to];
    const auto old = static_cast<int64_t>(barred_.size());
    for (const auto& x : crossing_[home])
      if (x.last >= from) barred_.push_back({x.bottom - high, x.top - low, x.owner});
    const auto middle = static_cast<int64_t>(barred_.size());
    for (int32_t b = home; b <= until; ++b)
      for (const auto& x : beginning_[b])
        if (x.last >= from && x.first <= to) barred_.push_back({x.bottom - high, x.top - low, x.owner});
    std::sort(barred_.begin() + middle, barred_.end(), by_from);
    std::inplace_merge(barred_.begin() + old, barred_.begin() + middle, barred_.end(), by_from);
    if (old > 0) std::inplace_merge(barred_.begin(), barred_.begin() + old, barred_.end(), by_from);
  }
  work_ += 1 + static_cast<int64_t>(barred_.size());
}

int64_t Board::find(int32_t buffer, GapFit fit, int64_t ceiling) {
  const int64_t step = problem_.alignment[buffer];
  const int64_t highest = ceiling - problem_.reach[buffer];
  if (highest < 0) return kUnplaced;
  gather(buffer);
  int64_t found = kUnplaced, narrowest = INT64_MAX, free_from = 0;
  const auto consider = [&](int64_t until) {  // free on [free_from, until]
    const int64_t offset = aligned_up(free_from, step), room = until >= highest ? kNoCeiling : until - free_from;
    if (offset <= std::min(until, highest) && room < narrowest) found = offset, narrowest = room;
    return narrowest == 0 || (fit == GapFit::kFirst && found != kUnplaced);
  };
  for (const auto& b : barred_) {
    if (b.from >= free_from && consider(b.from)) return found;
    free_from = std::max(free_from, b.to);
    if (free_from > highest) return found;
  }
  consider(highest);
  return found;
}

int64_t Board::force(int32_t buffer, int64_t ceiling, const std::vector<int64_t>& cost,
                     std::vector<int32_t>& evicted) {
  evicted.clear();
  const int64_t step = problem_.alignment[buffer];
  const int64_t highest = ceiling - problem_.reach[buffer];
  if (highest < 0) return kUnplaced;
  gather(buffer);
  const auto by_to = [](const Barred& a, const Barred& b) { return a.to < b.to; };
  ends_ = barred_;
  if (!std::is_sorted(ends_.begin(), ends_.end(), by_to)) std::sort(ends_.begin(), ends_.end(), by_to);
  int64_t total = 0, walls = 0, here = 0, best = INT64_MAX, narrowest = 0, found = kUnplaced;
  size_t begun = 0, ended = 0;
  while (here <= highest) {
    for (; ended < ends_.size() && ends_[ended].to <= here; ++ended) {
      const int64_t one = cost[ends_[ended].by];
      one < 0 ? --walls : total -= one;
    }
    for (; begun < barred_.size() && barred_[begun].from < here; ++begun) {
      const int64_t one = cost[barred_[begun].by];
      one < 0 ? ++walls : total += one;
    }
    // The same stand in the way on [here, stop]: what begins at `stop` bars what lies beyond it.
    int64_t stop = begun < barred_.size() ? barred_[begun].from : INT64_MAX - 1;
    if (ended < ends_.size()) stop = std::min(stop, ends_[ended].to - 1);
    const int64_t offset = aligned_up(here, step), room = stop - here;
    if (walls == 0 && offset <= std::min(stop, highest) && (total < best || (total == best && room < narrowest)))
      best = total, narrowest = room, found = offset;
    here = stop + 1;
  }
  if (found == kUnplaced) return found;
  for (const auto& b : barred_)
    if (b.from < found && found < b.to) evicted.push_back(b.by);
  std::sort(evicted.begin(), evicted.end());
  evicted.erase(std::unique(evicted.begin(), evicted.end()), evicted.end());
  return found;
}

}  // namespace memfit
