// What is placed and where the rest can go: kept up to date by placing, and undone by a trail.
#pragma once
#include <algorithm>
#include <limits>
#include <utility>

#include "placement_order.h"

namespace memfit {

// V: int32_t where figures allow (half the memory traffic), else int64_t.
template <class V>
class PlacementState {
 protected:
  static constexpr V kNone = std::numeric_limits<V>::max() / 2;  // `low` of what is placed, `floor` of a full section

  struct Change {
    V* place;
    V old;
  };

  PlacementState(const PlacementShape& shape, int64_t limit, const SearchOptions& options);
  bool on(uint32_t flag) const { return (options_.switches & flag) != 0; }
  void set(V& place, V value) {
    trail_.push_back({&place, place});
    place = value;
  }
  void undo(size_t mark) {
    while (trail_.size() > mark) {
      *trail_.back().place = trail_.back().old;
      trail_.pop_back();
    }
  }
  V lift(int32_t i, V at) const;  // the lowest allowed offset >= at: alignment, obstacles
  V pinned_above(int32_t s, V at) const;
  bool raise(int32_t j, V at);    // low[j] = at
  bool refloor();                 // floors of the sections that may have changed; false where one fails
  bool place(int32_t i, V at);    // false where something can no longer fit; to be undone either way
  void unplace(int32_t i);        // what `undo` does not cover

  const PlacementShape& shape_;
  SearchOptions options_;
  V limit_;
  std::vector<int32_t> rank_;
  std::vector<V> size_, low_, nat_, offset_, blocked_;  // of each buffer; see placement_search.h
  std::vector<V> floor_, witness_, total_;              // of each section; witness: a buffer whose `low` is the floor
  std::vector<int32_t> cut_;                            // unplaced buffers that cross from a section to the next
  std::vector<int64_t> failures_;
  std::vector<std::vector<int32_t>> mates_;             // buffers of equal lifetime that rank before
  std::vector<Change> trail_;
  bool impossible_ = false;

 private:
  Span dirty_{0, 0};
  std::vector<std::pair<V, V>> heads_;
};

template <class V>
PlacementState<V>::PlacementState(const PlacementShape& shape, int64_t limit, const SearchOptions& options)
    : shape_(shape), options_(options), limit_(static_cast<V>(limit)), rank_(placement_ranks(shape, options)) {
  const int32_t count = shape.count;
  size_.assign(shape.size.begin(), shape.size.end());
  low_.assign(count, 0);
  nat_.assign(count, 0);
  offset_.assign(count, 0);
  blocked_.assign(count, -1);
  floor_.assign(shape.sections, 0);
  witness_.assign(shape.sections, -1);
  total_.assign(shape.sections, 0);
  cut_.assign(shape.sections + 1, 0);
  failures_.assign(shape.sections, 0);
  dirty_ = {0, shape.sections};
  mates_.resize(count);
  for (int32_t i = 0; i < count; ++i) {
    for (int32_t s = shape.hull[i].first; s + 1 < shape.hull[i].last; ++s) ++cut_[s];
    low_[i] = nat_[i] = lift(i, 0);
    if (low_[i] + size_[i] > limit_) impossible_ = true;
  }
  if (shape.plain && on(kStacks)) {
    for (int32_t i = 0; i < count; ++i)
      for (int32_t k = shape.neighbour_start[i]; k < shape.neighbour_start[i + 1]; ++k) {
        const int32_t j = shape.neighbours[k];
        if (shape.lifetime_class[i] == shape.lifetime_class[j] && rank_[j] < rank_[i]) mates_[i].push_back(j);
      }
  }
  for (int32_t s = 0; s < shape.sections; ++s) {
    for (int32_t m = shape.member_start[s]; m < shape.member_start[s + 1]; ++m) total_[s] += size_[shape.members[m]];
  }
  if (shape.clash || shape.pinned_top > limit) impossible_ = true;
}

template <class V>
V PlacementState<V>::lift(int32_t i, V at) const {
  if (shape_.plain) return at;
  const V step = static_cast<V>(shape_.alignment[i]);
  V out = (at + step - 1) / step * step;
  for (int32_t k = shape_.obstacle_start[i]; k < shape_.obstacle_start[i + 1]; ++k) {
    const Obstacle& wall = shape_.obstacles[k];
    if (out >= wall.high || out + size_[i] <= wall.low) continue;
    out = (static_cast<V>(wall.high) + step - 1) / step * step;
    k = shape_.obstacle_start[i] - 1;  // an obstacle of an overlapping pair may begin lower and end higher
  }
  return out;
}

template <class V>
V PlacementState<V>::pinned_above(int32_t s, V at) const {
  V sum = 0;
  for (int32_t p = shape_.pin_start[s]; p < shape_.pin_start[s + 1]; ++p)
    if (shape_.pins[p].low >= at) sum += static_cast<V>(shape_.pins[p].high - shape_.pins[p].low);
  return sum;
}

template <class V>
bool PlacementState<V>::raise(int32_t j, V at) {
  set(low_[j], at);
  dirty_.first = std::min(dirty_.first, shape_.hull[j].first);
  dirty_.last = std::max(dirty_.last, shape_.hull[j].last);
  return at + size_[j] <= limit_;
}

template <class V>
bool PlacementState<V>::refloor() {
  const Span dirty = dirty_;
  dirty_ = {shape_.sections, 0};
  V guess = -1;  // a buffer of the section before: often the least one of the next section as well
  for (int32_t s = dirty.first; s < dirty.last; ++s) {
    const V held = floor_[s];
    if (held == kNone || (witness_[s] >= 0 && low_[witness_[s]] == held)) {
      guess = witness_[s];
      continue;
    }
    V least = kNone, who = -1;
    const int32_t end = shape_.member_start[s + 1];
    if (guess >= 0 && low_[guess] == held && shape_.hull[guess].first <= s && s < shape_.hull[guess].last &&
        shape_.span_start[guess + 1] - shape_.span_start[guess] == 1) {
      least = held;
      who = guess;
    } else {
      for (int32_t m = shape_.member_start[s]; m < end; ++m) {
        const int32_t j = shape_.members[m];
        if (low_[j] < least) {
          least = low_[j];
          who = j;
          if (least == held && witness_[s] >= 0) break;  // floors only rise below a node
        }
      }
    }
    guess = who;
    if (least != held) set(floor_[s], least);
    if (who != witness_[s]) set(witness_[s], who);
    if (least == kNone) continue;
    V need = least + total_[s];
    if (!shape_.plain) need += pinned_above(s, least);
    bool good = need <= limit_;
    if (good && on(kHeads)) {
      heads_.clear();
      for (int32_t m = shape_.member_start[s]; m < end; ++m) {
        const int32_t j = shape_.members[m];
        if (low_[j] != kNone) heads_.push_back({low_[j], size_[j]});
      }
      std::sort(heads_.begin(), heads_.end());
      V top = 0;
      for (const auto& [head, size] : heads_) top = std::max(top, head) + size;
      good = top <= limit_;
    }
    if (!good) {
      ++failures_[s];
      return false;
    }
  }
  return true;
}

template <class V>
bool PlacementState<V>::place(int32_t i, V at) {
  offset_[i] = at;
  for (int32_t k = shape_.span_start[i]; k < shape_.span_start[i + 1]; ++k)
    for (int32_t s = shape_.spans[k].first; s < shape_.spans[k].last; ++s) total_[s] -= size_[i];
  for (int32_t s = shape_.hull[i].first; s + 1 < shape_.hull[i].last; ++s) --cut_[s];
  bool good = raise(i, kNone) || true;
  const V top = at + size_[i];
  for (int32_t k = shape_.neighbour_start[i]; k < shape_.neighbour_start[i + 1]; ++k) {
    const int32_t j = shape_.neighbours[k];
    if (low_[j] == kNone || nat_[j] >= top) continue;
    const V to = lift(j, top);
    set(nat_[j], to);
    if (to > low_[j] && !raise(j, to)) good = false;
  }
  for (int32_t j : mates_[i])
    if (low_[j] != kNone) set(blocked_[j], top);
  return refloor() && good;
}

template <class V>
void PlacementState<V>::unplace(int32_t i) {
  for (int32_t k = shape_.span_start[i]; k < shape_.span_start[i + 1]; ++k)
    for (int32_t s = shape_.spans[k].first; s < shape_.spans[k].last; ++s) total_[s] += size_[i];
  for (int32_t s = shape_.hull[i].first; s + 1 < shape_.hull[i].last; ++s) ++cut_[s];
}

}  // namespace memfit
