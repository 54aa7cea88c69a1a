#include "placement_search.h"

#include <algorithm>
#include <limits>

#include "placement_state.h"
#include "placement_windows.h"

namespace memfit {

namespace {

template <class V>
class Search final : public PlacementSearch, private PlacementState<V> {
 public:
  Search(const PlacementShape& shape, int64_t limit, const SearchOptions& options)
      : State(shape, limit, options), cover_(shape.sections + 1, 0) {}
  SearchStatus run(int64_t nodes) override;
  int64_t nodes() const override { return nodes_; }
  std::vector<int64_t> offsets() const override { return {offset_.begin(), offset_.end()}; }
  const std::vector<int64_t>& failures() const override { return failures_; }

 private:
  using State = PlacementState<V>;
  using State::kNone;
  using State::on, State::undo, State::lift, State::raise, State::refloor, State::place, State::unplace;
  using State::shape_, State::options_, State::limit_, State::rank_, State::size_, State::low_, State::nat_;
  using State::offset_, State::blocked_, State::floor_, State::total_, State::cut_, State::failures_, State::trail_;
  using State::impossible_;

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
  bool waste(const Frame& frame);
  bool expand(int32_t first, int32_t last, int32_t then, int32_t fail_to);
  bool retry();
  bool descend(Frame& frame, int32_t index);

  std::vector<int32_t> choices_, candidates_, cover_;
  std::vector<Frame> frames_;
  std::vector<Later> laters_;
  int64_t nodes_ = 0;
  enum { kStart, kForward, kDone } state_ = kStart;
};

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
  // In half the memory where every figure and a step beyond it fits.
  int64_t largest = std::max(limit, shape.pinned_top);
  for (int64_t step : shape.alignment) largest = std::max(largest, step);
  for (int64_t size : shape.size) largest = std::max(largest, size);
  if (largest < (int64_t{1} << 28)) return std::make_unique<Search<int32_t>>(shape, limit, options);
  return std::make_unique<Search<int64_t>>(shape, limit, options);
}

}  // namespace memfit
