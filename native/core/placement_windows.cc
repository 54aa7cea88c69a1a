#include "placement_windows.h"

#include <algorithm>
#include <limits>

#include "random.h"

namespace memfit {

namespace {

constexpr int64_t kFar = std::numeric_limits<int64_t>::max() / 4;

struct Range {
  int64_t low, high;  // closed
};

struct Pair {
  int32_t a, b;
  std::vector<Range> allowed;  // of offset[b] - offset[a], rising
};

int64_t up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
int64_t down(int64_t value, int64_t step) { return value < 0 ? -1 : value / step * step; }

class Windows final : public PlacementSearch {
 public:
  Windows(const PlacementShape& shape, int64_t limit, uint64_t seed) : shape_(shape), limit_(limit), random_(seed) {
    const PlacementInstance& in = shape.source;
    const int32_t count = static_cast<int32_t>(in.size.size());
    for (int32_t i = 0; i < count; ++i) {
      int64_t top = 0;
      for (int64_t p = in.start[i]; p < in.start[i + 1]; ++p) top = std::max(top, in.piece_high[p] / shape.divisor);
      step_.push_back(std::max<int64_t>(in.alignment[i] / shape.divisor, 1));
      const bool pinned = in.fixed[i] >= 0;
      low_.push_back(pinned ? in.fixed[i] / shape.divisor : 0);
      high_.push_back(pinned ? low_[i] : down(limit - top, step_[i]));
      if (high_[i] < low_[i] || low_[i] + top > limit) impossible_ = true;
      if (pinned) step_[i] = 1;
    }
    links_.resize(count);
    for (int32_t a = 0; a < count; ++a)
      for (int32_t b = a + 1; b < count; ++b) relate(a, b);
  }

  SearchStatus run(int64_t budget) override {
    if (impossible_) return SearchStatus::kExhausted;
    if (done_) return SearchStatus::kFound;
    const int64_t until = nodes_ + budget;
    bool good = true;
    if (!started_) {
      started_ = true;
      chosen_.assign(pairs_.size(), {-kFar, kFar});
      good = settle();
    } else {
      good = next();
    }
    for (;;) {
      while (!good) {
        if (frames_.empty()) return SearchStatus::kExhausted;
        good = next();
      }
      ++nodes_;
      if (!open()) {
        done_ = true;
        return SearchStatus::kFound;
      }
      if (nodes_ >= until) return SearchStatus::kPaused;
      good = next();
    }
  }
  int64_t nodes() const override { return nodes_; }
  std::vector<int64_t> offsets() const override {
    std::vector<int64_t> out;
    for (int32_t i : shape_.buffer) out.push_back(low_[i]);
    return out;
  }
  const std::vector<int64_t>& failures() const override { return none_; }

 private:
  struct Frame {
    int32_t pair;
    std::vector<Range> left;  // ranges still to try, the last first
    size_t mark;
  };
  struct Change {
    int64_t* place;
    int64_t old;
  };

  void set(int64_t& place, int64_t value) {
    trail_.push_back({&place, place});
    place = value;
  }
  void undo(size_t mark) {
    for (; trail_.size() > mark; trail_.pop_back()) *trail_.back().place = trail_.back().old;
  }

  void relate(int32_t a, int32_t b) {
    const PlacementInstance& in = shape_.source;
    std::vector<Range> forbidden;  // closed ranges of whole units
    for (int64_t p = in.start[a]; p < in.start[a + 1]; ++p)
      for (int64_t q = in.start[b]; q < in.start[b + 1]; ++q) {
        if (std::max(in.piece_lower[p], in.piece_lower[q]) >= std::min(in.piece_upper[p], in.piece_upper[q])) continue;
        // b's window begins below a's end and ends above a's begin.
        forbidden.push_back({(in.piece_low[p] - in.piece_high[q]) / shape_.divisor + 1,
                             (in.piece_high[p] - in.piece_low[q]) / shape_.divisor - 1});
      }
    if (forbidden.empty()) return;
    std::sort(forbidden.begin(), forbidden.end(), [](const Range& x, const Range& y) { return x.low < y.low; });
    Pair pair{a, b, {}};
    int64_t from = -kFar;
    for (const Range& range : forbidden) {
      if (range.low > range.high) continue;
      if (range.low - 1 >= from) pair.allowed.push_back({from, range.low - 1});
      from = std::max(from, range.high + 1);
    }
    pair.allowed.push_back({from, kFar});
    links_[a].push_back(static_cast<int32_t>(pairs_.size()));
    links_[b].push_back(static_cast<int32_t>(pairs_.size()));
    pairs_.push_back(std::move(pair));
  }

  bool raise(int32_t i, int64_t to) {
    to = up(std::max<int64_t>(to, 0), step_[i]);
    if (to <= low_[i]) return true;
    set(low_[i], to);
    changed_.push_back(i);
    return to <= high_[i];
  }
  bool lower(int32_t i, int64_t to) {
    to = down(to, step_[i]);
    if (to >= high_[i]) return true;
    set(high_[i], to);
    changed_.push_back(i);
    return to >= low_[i];
  }
  // The hull of what a pair still allows, imposed on both ends; false when nothing is left.
  bool narrow(int32_t number) {
    const Pair& pair = pairs_[number];
    const int64_t least = std::max(low_[pair.b] - high_[pair.a], chosen_[number].low);
    const int64_t most = std::min(high_[pair.b] - low_[pair.a], chosen_[number].high);
    int64_t from = kFar, to = -kFar;
    for (const Range& range : pair.allowed) {
      const int64_t first = std::max(range.low, least), last = std::min(range.high, most);
      if (first > last) continue;
      from = std::min(from, first);
      to = std::max(to, last);
    }
    if (from > to) return false;
    return raise(pair.b, low_[pair.a] + from) && lower(pair.b, high_[pair.a] + to) &&
           raise(pair.a, low_[pair.b] - to) && lower(pair.a, high_[pair.b] - from);
  }
  bool drain() {
    bool good = true;
    while (!changed_.empty()) {
      const int32_t i = changed_.back();
      changed_.pop_back();
      if (!good) continue;
      for (int32_t number : links_[i])
        if (!narrow(number)) {
          good = false;
          break;
        }
    }
    return good;
  }
  bool settle() {
    for (size_t k = 0; k < pairs_.size(); ++k)
      if (!narrow(static_cast<int32_t>(k))) {
        changed_.clear();
        return false;
      }
    return drain();
  }
  // A violated pair with the fewest ranges becomes a frame; false when there is none.
  bool open() {
    int32_t best = -1;
    size_t fewest = std::numeric_limits<size_t>::max();
    int64_t lowest = kFar;
    for (size_t k = 0; k < pairs_.size(); ++k) {
      const Pair& pair = pairs_[k];
      const int64_t now = low_[pair.b] - low_[pair.a];
      bool fine = false;
      size_t number = 0;
      for (const Range& range : pair.allowed) {
        const int64_t first = std::max({range.low, low_[pair.b] - high_[pair.a], chosen_[k].low});
        const int64_t last = std::min({range.high, high_[pair.b] - low_[pair.a], chosen_[k].high});
        number += first <= last;
        fine = fine || (first <= now && now <= last);
      }
      if (fine) continue;
      const int64_t level = std::min(low_[pair.a], low_[pair.b]);
      if (number < fewest || (number == fewest && level < lowest)) {
        fewest = number, lowest = level;
        best = static_cast<int32_t>(k);
      }
    }
    if (best < 0) return false;
    const Pair& pair = pairs_[best];
    Frame frame{best, pair.allowed, trail_.size()};
    // First the range that moves least from where both lie now.
    const int64_t now = low_[pair.b] - low_[pair.a];
    const int64_t tilt = static_cast<int64_t>(random_.below(3)) - 1;
    const auto distance = [&](const Range& range) {
      return now < range.low ? 2 * (range.low - now) + tilt : now > range.high ? 2 * (now - range.high) : 0;
    };
    std::sort(frame.left.begin(), frame.left.end(),
              [&](const Range& x, const Range& y) { return distance(x) > distance(y); });
    frames_.push_back(std::move(frame));
    return true;
  }
  // Tries the next range of the newest frame; pops it when none is left.
  bool next() {
    Frame& frame = frames_.back();
    undo(frame.mark);
    changed_.clear();
    if (frame.left.empty()) {
      frames_.pop_back();
      return false;
    }
    const Range range = frame.left.back();
    frame.left.pop_back();
    set(chosen_[frame.pair].low, range.low);
    set(chosen_[frame.pair].high, range.high);
    return narrow(frame.pair) && drain();
  }

  const PlacementShape& shape_;
  int64_t limit_;
  Random random_;
  std::vector<int64_t> step_, low_, high_, none_;
  std::vector<Pair> pairs_;
  std::vector<std::vector<int32_t>> links_;  // buffer -> its pairs
  std::vector<Range> chosen_;
  std::vector<int32_t> changed_;
  std::vector<Change> trail_;
  std::vector<Frame> frames_;
  int64_t nodes_ = 0;
  bool impossible_ = false, started_ = false, done_ = false;
};

}  // namespace

std::unique_ptr<PlacementSearch> make_window_search(const PlacementShape& shape, int64_t limit, uint64_t seed) {
  return std::make_unique<Windows>(shape, limit, seed);
}

}  // namespace memfit
