#include "large_placement_spans.h"

#include <algorithm>

namespace memfit {

namespace {

constexpr int kShift = 3;
constexpr int32_t kChildren = 1 << kShift;

}  // namespace

Spans::Spans(const LargeProblem& problem) : problem_(problem), offset_(problem.buffers, kUnplaced) {
  for (int32_t width = problem.sections;; width = (width + kChildren - 1) / kChildren) {
    levels_.emplace_back(width);
    if (width <= 1) break;
  }
}

template <class Covered, class Touching>
void Spans::visit(int32_t from, int32_t to, Covered covered, Touching touching) {
  int32_t left = from, right = to + 1;  // nodes of the level that lie inside, half-open
  for (size_t k = 0; k < levels_.size(); ++k) {
    auto& level = levels_[k];
    if (k > 0) {
      const int32_t a = from >> (kShift * k), b = to >> (kShift * k);
      if (a < left || a >= right) touching(level[a]);
      if (b != a && (b < left || b >= right)) touching(level[b]);
    }
    if (left >= right) continue;
    if (k + 1 == levels_.size()) {
      for (; left < right; ++left) covered(level[left]);
      continue;
    }
    const int32_t up = (left + kChildren - 1) >> kShift, down = right >> kShift;
    if (up >= down) {
      for (; left < right; ++left) covered(level[left]);
      left = right = up;
      continue;
    }
    for (; left < up << kShift; ++left) covered(level[left]);
    for (int32_t i = down << kShift; i < right; ++i) covered(level[i]);
    left = up, right = down;
  }
}

void Spans::add(Taken& taken, int64_t from, int64_t to) {
  auto first = std::lower_bound(taken.begin(), taken.end(), from, [](const Interval& x, int64_t v) { return x.second < v; });
  auto last = first;
  for (; last != taken.end() && last->first <= to; ++last) {
    from = std::min(from, last->first);
    to = std::max(to, last->second);
  }
  if (first == last) {
    taken.insert(first, {from, to});
    return;
  }
  *first = {from, to};
  taken.erase(first + 1, last);
}

void Spans::put(int32_t buffer, int64_t offset) {
  offset_[buffer] = offset;
  for (int32_t i = problem_.start[buffer]; i < problem_.start[buffer + 1]; ++i) {
    const int32_t p = problem_.piece_of[i];
    const int64_t from = offset + problem_.low[p], to = offset + problem_.high[p];
    visit(problem_.first[p], problem_.last[p], [&](Node& node) { add(node.cover, from, to); },
          [&](Node& node) { add(node.touched, from, to); });
  }
}

// Takes the offsets at which a piece with bytes [low, high) would overlap out of the free ones.
void Spans::subtract(const Taken& taken, int64_t low, int64_t high) {
  if (taken.empty() || free_.empty()) return;
  next_.clear();
  auto at = taken.begin();
  for (auto [from, to] : free_) {
    ++work_;
    at = std::lower_bound(at, taken.end(), from + low, [](const Interval& x, int64_t v) { return x.second <= v; });
    for (auto x = at; x != taken.end() && x->first - high < to; ++x) {
      ++work_;
      if (x->first - high >= from) next_.emplace_back(from, x->first - high);
      from = std::max(from, x->second - low);
      if (from > to) break;
    }
    if (from <= to) next_.emplace_back(from, to);
  }
  free_.swap(next_);
}

int64_t Spans::find(int32_t buffer, GapFit fit, int64_t ceiling) {
  const int64_t step = problem_.alignment[buffer];
  const int64_t highest = ceiling - problem_.reach[buffer];
  if (highest < 0) return kUnplaced;
  free_.assign(1, {0, highest});
  for (int32_t i = problem_.start[buffer]; i < problem_.start[buffer + 1]; ++i) {
    const int32_t p = problem_.piece_of[i];
    lists_.clear();
    visit(problem_.first[p], problem_.last[p],
          [&](Node& node) {
            lists_.push_back(&node.touched);
            lists_.push_back(&node.cover);
          },
          [&](Node& node) { lists_.push_back(&node.cover); });
    for (auto list = lists_.rbegin(); list != lists_.rend(); ++list) subtract(**list, problem_.low[p], problem_.high[p]);
  }
  ++work_;
  int64_t found = kUnplaced, narrowest = INT64_MAX;
  for (const auto& [from, to] : free_) {
    const int64_t offset = aligned_up(from, step), room = to == highest ? kNoCeiling : to - from;
    if (offset > to || room >= narrowest) continue;
    found = offset, narrowest = room;
    if (fit == GapFit::kFirst) break;
  }
  return found;
}

int64_t Spans::above(int32_t buffer) {
  int64_t offset = 0;
  for (int32_t i = problem_.start[buffer]; i < problem_.start[buffer + 1]; ++i) {
    const int32_t p = problem_.piece_of[i];
    const auto rise = [&](const Taken& taken) {
      if (!taken.empty()) offset = std::max(offset, taken.back().second - problem_.low[p]);
    };
    visit(problem_.first[p], problem_.last[p], [&](Node& node) { rise(node.cover), rise(node.touched); },
          [&](Node& node) { rise(node.cover); });
  }
  return aligned_up(offset, problem_.alignment[buffer]);
}

}  // namespace memfit
