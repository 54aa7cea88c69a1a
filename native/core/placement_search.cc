#include "placement_search.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "placement_windows.h"
#include "random.h"

namespace memfit {

namespace {

// Rank of each buffer, 0 = first, by the letters of `order` and a random disturbance of the leading key.
std::vector<int32_t> ranks(const PlacementShape& shape, const SearchOptions& options) {
  const int32_t count = shape.count;
  std::vector<int64_t> section_total(shape.sections, 0);
  for (int32_t s = 0; s < shape.sections; ++s)
    for (int32_t m = shape.member_start[s]; m < shape.member_start[s + 1]; ++m)
      section_total[s] += shape.size[shape.members[m]];
  std::vector<std::vector<double>> keys(count);
  Random random(options.seed);
  for (int32_t i = 0; i < count; ++i) {
    double width = 0, total = 0, most = 0, sum = 0;
    for (int32_t k = shape.span_start[i]; k < shape.span_start[i + 1]; ++k) {
      width += shape.spans[k].last - shape.spans[k].first;
      for (int32_t s = shape.spans[k].first; s < shape.spans[k].last; ++s)
        total = std::max(total, static_cast<double>(section_total[s]));
      if (!options.weight.empty())
        for (int32_t s = shape.spans[k].first; s < shape.spans[k].last; ++s) {
          most = std::max(most, options.weight[s]);
          sum += options.weight[s];
        }
    }
    for (char letter : options.order) {
      double key = 0;
      if (letter == 'D') key = shape.duration[i];
      if (letter == 'B') key = shape.duration[i] * static_cast<double>(shape.size[i]);
      if (letter == 'X') key = most;
      if (letter == 'Y') key = sum;
      if (letter == 'P') key = sum * static_cast<double>(shape.size[i]);
      if (letter == 'A') key = width * static_cast<double>(shape.size[i]);
      if (letter == 'O') key = shape.neighbour_start[i + 1] - shape.neighbour_start[i];
      if (letter == 'T') key = total;
      if (letter == 'W') key = width;
      if (letter == 'Z') key = static_cast<double>(shape.size[i]);
      if (letter == 'L') key = shape.hull[i].first;
      if (letter == 'U') key = shape.hull[i].last;
      keys[i].push_back(key * (1 + options.noise * (random.unit() - 0.5)));
    }
  }
  std::vector<int32_t> order(count), rank(count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return keys[a] > keys[b]; });
  for (int32_t k = 0; k < count; ++k) rank[order[k]] = k;
  return rank;
}

template <class V>
class Search final : public PlacementSearch {
 public:
  Search(const PlacementShape& shape, int64_t limit, const SearchOptions& options);
  SearchStatus run(int64_t nodes) override;
  int64_t nodes() const override { return nodes_; }
  std::vector<int64_t> offsets() const override { return {offset_.begin(), offset_.end()}; }
  const std::vector<int64_t>& failures() const override { return failures_; }

 private:
  static constexpr V kNone = std::numeric_limits<V>::max() / 2;

  struct Frame {
    V level;
    int32_t section, choice_begin, choice_next, choice_end;
    int32_t placed;            // buffer of the current child, or -1
    int32_t first, last;       // sections of the part
    int32_t then;              // part to be solved after this one, or -1
    int32_t fail_to;           // frame whose next child is tried when this one is exhausted
    int32_t later_mark;
    bool waste;                // the child without any of the choices is still to come
    size_t trail_mark;
  };
  struct Later {
    int32_t first, last, then, fail_to;
  };
  struct Change {
    V* place;
    V old;
  };

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
  V lift(int32_t i, V at) const;      // the lowest allowed offset >= at: alignment, obstacles
  V pinned_above(int32_t s, V at) const;
  bool raise(int32_t j, V at);        // low[j] = at
  bool refloor();                     // floors of the sections that may have changed; false where one fails
  bool place(int32_t i, V at);
  void unplace(int32_t i);
  bool waste(const Frame& frame);
  bool expand(int32_t first, int32_t last, int32_t then, int32_t fail_to);
  bool retry();
  bool descend(Frame& frame, int32_t index);

  const PlacementShape& shape_;
  SearchOptions options_;
  V limit_;
  std::vector<int32_t> rank_;
  std::vector<V> size_, low_, nat_, offset_, floor_, witness_, total_, blocked_;
  std::vector<int32_t> cut_, choices_, candidates_, cover_;
  Span dirty_{0, 0};
  std::vector<std::vector<int32_t>> mates_;  // buffers of equal lifetime that rank before
  std::vector<Change> trail_;
  std::vector<Frame> frames_;
  std::vector<Later> laters_;
  std::vector<std::pair<V, V>> heads_;
  int64_t nodes_ = 0;
  std::vector<int64_t> failures_;
  enum { kStart, kForward, kDone } state_ = kStart;
  bool impossible_ = false;
};

template <class V>
Search<V>::Search(const PlacementShape& shape, int64_t limit, const SearchOptions& options)
    : shape_(shape), options_(options), limit_(static_cast<V>(limit)), rank_(ranks(shape, options)) {
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
  cover_.assign(shape.sections + 1, 0);
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
V Search<V>::lift(int32_t i, V at) const {
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
V Search<V>::pinned_above(int32_t s, V at) const {
  V sum = 0;
  for (int32_t p = shape_.pin_start[s]; p < shape_.pin_start[s + 1]; ++p)
    if (shape_.pins[p].low >= at) sum += static_cast<V>(shape_.pins[p].high - shape_.pins[p].low);
  return sum;
}

template <class V>
bool Search<V>::raise(int32_t j, V at) {
  set(low_[j], at);
  dirty_.first = std::min(dirty_.first, shape_.hull[j].first);
  dirty_.last = std::max(dirty_.last, shape_.hull[j].last);
  return at + size_[j] <= limit_;
}

template <class V>
bool Search<V>::refloor() {
  const Span dirty = dirty_;
  dirty_ = {shape_.sections, 0};
  V guess = -1;  // a buffer of the section before: often the least one of the next section as well
  for (int32_t s = dirty.first; s < dirty.last; ++s) {
    const V held = floor_[s];
    if (held == kNone || (witness_[s] >= 0 && low_[witness_[s]] == held)) {
      guess = witness_[s];
      continue;
    }
    V least = kNone, who = 0;
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
bool Search<V>::place(int32_t i, V at) {
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
void Search<V>::unplace(int32_t i) {
  for (int32_t k = shape_.span_start[i]; k < shape_.span_start[i + 1]; ++k)
    for (int32_t s = shape_.spans[k].first; s < shape_.spans[k].last; ++s) total_[s] += size_[i];
  for (int32_t s = shape_.hull[i].first; s + 1 < shape_.hull[i].last; ++s) ++cut_[s];
}

// The child in which no buffer of the section lies at the level: each that could must rest on one yet to be placed.
template <class V>
bool Search<V>::waste(const Frame& frame) {
  V everywhere = kNone;
  if (!on(kRests)) {
    for (int32_t s = frame.first; s < frame.last; ++s)
      for (int32_t m = shape_.member_start[s]; m < shape_.member_start[s + 1]; ++m) {
        const int32_t j = shape_.members[m];
        if (low_[j] != kNone) everywhere = std::min(everywhere, low_[j] + size_[j]);
      }
  }
  bool good = true;
  for (int32_t m = shape_.member_start[frame.section]; m < shape_.member_start[frame.section + 1] && good; ++m) {
    const int32_t i = shape_.members[m];
    if (low_[i] != frame.level) continue;
    V rest = everywhere;
    if (on(kRests)) {
      for (int32_t k = shape_.neighbour_start[i]; k < shape_.neighbour_start[i + 1]; ++k) {
        const int32_t j = shape_.neighbours[k];
        if (low_[j] != kNone) rest = std::min(rest, low_[j] + size_[j]);
      }
    }
    good = rest != kNone && raise(i, lift(i, rest));
  }
  return refloor() && good;
}

// Opens a node for a part; false when everything is placed.
template <class V>
bool Search<V>::expand(int32_t first, int32_t last, int32_t then, int32_t fail_to) {
  V level;
  for (;;) {
    level = kNone;
    for (int32_t s = first; s < last; ++s) level = std::min(level, floor_[s]);
    if (level != kNone) break;
    if (then < 0) return false;
    const Later later = laters_[then];
    first = later.first, last = later.last, then = later.then, fail_to = later.fail_to;
  }
  ++nodes_;
  Frame frame{level, -1, static_cast<int32_t>(choices_.size()), 0, 0, -1, first, last, then, fail_to,
              static_cast<int32_t>(laters_.size()), true, trail_.size()};
  const auto may = [&](int32_t i) {
    if (nat_[i] != level || blocked_[i] == level) return false;
    if (shape_.hull[i].first < first || shape_.hull[i].first >= last) return false;
    if (!on(kTwins)) return true;
    const int32_t twin = shape_.same_before[i];
    return twin < 0 || low_[twin] == kNone;
  };
  candidates_.clear();
  const int32_t count = shape_.count;
  for (int32_t i = 0; i < count; ++i)
    if (low_[i] == level && may(i)) candidates_.push_back(i);
  // Which section: the one with fewest choices (less where failures weigh), or the tightest of the best ranked buffer.
  V tightest = kNone;
  const auto tighter = [&](int32_t s) {
    const V slack = limit_ - level - total_[s];
    if (slack >= tightest) return;
    tightest = slack;
    frame.section = s;
  };
  if (candidates_.empty()) {
    for (int32_t s = first; s < last; ++s)
      if (floor_[s] == level) tighter(s);
  } else if (on(kFewest)) {
    std::fill(cover_.begin() + first, cover_.begin() + last + 1, 0);
    for (int32_t i : candidates_)
      for (int32_t k = shape_.span_start[i]; k < shape_.span_start[i + 1]; ++k) {
        ++cover_[shape_.spans[k].first];
        --cover_[shape_.spans[k].last];
      }
    double fewest = std::numeric_limits<double>::max();
    int32_t covered = 0;
    for (int32_t s = first; s < last; ++s) {
      covered += cover_[s];
      if (floor_[s] != level) continue;
      const V slack = limit_ - level - total_[s];
      const double number = covered + (slack > 0);
      const double score = options_.weight.empty() ? number : number / options_.weight[s];
      if (score < fewest || (score == fewest && slack < tightest)) {
        fewest = score;
        tightest = slack;
        frame.section = s;
      }
    }
  } else {
    const int32_t best = *std::min_element(candidates_.begin(), candidates_.end(),
                                           [&](int32_t a, int32_t b) { return rank_[a] < rank_[b]; });
    for (int32_t k = shape_.span_start[best]; k < shape_.span_start[best + 1]; ++k)
      for (int32_t s = shape_.spans[k].first; s < shape_.spans[k].last; ++s)
        if (floor_[s] == level) tighter(s);
  }
  for (int32_t i : candidates_)
    for (int32_t k = shape_.span_start[i]; k < shape_.span_start[i + 1]; ++k)
      if (shape_.spans[k].first <= frame.section && frame.section < shape_.spans[k].last) choices_.push_back(i);
  std::sort(choices_.begin() + frame.choice_begin, choices_.end(),
            [&](int32_t a, int32_t b) { return rank_[a] < rank_[b]; });
  frame.choice_next = frame.choice_begin;
  frame.choice_end = static_cast<int32_t>(choices_.size());
  frames_.push_back(frame);
  return true;
}

// After a child succeeded: split into parts where no unplaced buffer crosses, and open the next node.
template <class V>
bool Search<V>::descend(Frame& frame, int32_t index) {
  int32_t then = frame.then, first = frame.first, last = frame.last;
  if (on(kDecompose) && frame.placed >= 0) {
    const Span hull = shape_.hull[frame.placed];
    for (int32_t s = hull.last - 2; s >= hull.first; --s) {
      if (cut_[s] != 0) continue;
      // The part on the right waits; the search goes on with the one on the left.
      laters_.push_back({s + 1, last, then, index});
      then = static_cast<int32_t>(laters_.size()) - 1;
      last = s + 1;
    }
  }
  return expand(first, last, then, index);
}

// The next child of the newest frame; pops exhausted ones. False when the whole search is exhausted.
template <class V>
bool Search<V>::retry() {
  while (!frames_.empty()) {
    const int32_t index = static_cast<int32_t>(frames_.size()) - 1;
    Frame& frame = frames_[index];
    if (frame.placed >= 0) unplace(frame.placed);
    const bool last_word = frame.placed >= 0 && frame.choice_next < 0;
    frame.placed = -1;
    undo(frame.trail_mark);
    laters_.resize(frame.later_mark);
    if (!last_word) {
      while (frame.choice_next < frame.choice_end) {
        const int32_t i = choices_[frame.choice_next++];
        bool hatless = on(kHatless);
        if (hatless)
          for (int32_t k = shape_.neighbour_start[i]; k < shape_.neighbour_start[i + 1] && hatless; ++k)
            hatless = low_[shape_.neighbours[k]] == kNone;
        const bool good = place(i, frame.level);
        if (hatless) frame.choice_next = -1, frame.waste = false;
        if (good) {
          frame.placed = i;
          return true;
        }
        unplace(i);
        undo(frame.trail_mark);
        if (hatless) break;
      }
      if (frame.waste) {
        frame.waste = false;
        if (waste(frame)) return true;
        undo(frame.trail_mark);
      }
    }
    // Exhausted: everything above the frame it answers to goes as well.
    const int32_t target = frame.fail_to;
    choices_.resize(frame.choice_begin);
    frames_.pop_back();
    while (static_cast<int32_t>(frames_.size()) - 1 > target) {
      Frame& skipped = frames_.back();
      if (skipped.placed >= 0) unplace(skipped.placed);
      undo(skipped.trail_mark);
      choices_.resize(skipped.choice_begin);
      frames_.pop_back();
    }
  }
  return false;
}

template <class V>
SearchStatus Search<V>::run(int64_t budget) {
  const int64_t until = nodes_ + budget;
  if (state_ == kStart) {
    state_ = kForward;
    if (impossible_ || !refloor()) {
      frames_.clear();
      return SearchStatus::kExhausted;
    }
    // Parts that are apart from the start.
    int32_t then = -1, last = shape_.sections;
    if (on(kDecompose))
      for (int32_t s = shape_.sections - 2; s >= 0; --s)
        if (cut_[s] == 0) {
          laters_.push_back({s + 1, last, then, -1});
          then = static_cast<int32_t>(laters_.size()) - 1;
          last = s + 1;
        }
    if (!expand(0, last, then, -1)) {
      state_ = kDone;
      return SearchStatus::kFound;
    }
  }
  if (state_ == kDone) return SearchStatus::kFound;
  while (nodes_ < until) {
    if (!retry()) return SearchStatus::kExhausted;
    Frame& frame = frames_.back();
    if (!descend(frame, static_cast<int32_t>(frames_.size()) - 1)) {
      state_ = kDone;
      return SearchStatus::kFound;
    }
  }
  return SearchStatus::kPaused;
}

}  // namespace

std::unique_ptr<PlacementSearch> make_search(const PlacementShape& shape, int64_t limit, const SearchOptions& options) {
  if (shape.windowed) return make_window_search(shape, limit, options.seed);
  if (limit < (int64_t{1} << 28)) return std::make_unique<Search<int32_t>>(shape, limit, options);
  return std::make_unique<Search<int64_t>>(shape, limit, options);
}

}  // namespace memfit
