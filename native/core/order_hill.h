// One walk from a state, over the ops of one walker, until a state that is no higher than where it began.
//
// States are taken deepest first; steps above the target wait, so that a walk that found nothing goes on where it stopped
// once the target is raised. Bytes are relative to the level at the start: what else lives does not matter to a walk.
#pragma once
#include <queue>

#include "core/order_state.h"

namespace memfit {

enum class Outcome {
  kLower,  // `path` leads to a state no higher than the start
  kEnd,    // `path` runs all ops and ends higher; only where `may_end`
  kNone,   // every state within the target was seen; `waiting` is the next target at which there are more
  kCut     // the limit on states was met
};

// The states seen so far, each with how it was reached; looked up by their sets.
class Seen {
 public:
  explicit Seen(int32_t words) : words_(words), table_(64, -1) {}
  int32_t insert(const LiveState& state, int32_t parent);  // its index, or -1 where its set was seen before
  void load(int32_t index, LiveState& state) const;
  Order path(int32_t index) const;
  int64_t bytes() const {
    return 8 * static_cast<int64_t>(sets_.size()) + 4 * static_cast<int64_t>(paths_.size() + ready_.size());
  }

 private:
  struct Held {
    int32_t parent, count;
    Bytes level;
    size_t path, ready;
  };
  const uint64_t* marked(int32_t index) const { return sets_.data() + static_cast<size_t>(index) * words_; }
  size_t hash(const uint64_t* set) const;
  void grow();

  int32_t words_;
  std::vector<int32_t> table_;
  std::vector<Held> states_;
  std::vector<uint64_t> sets_;
  Order paths_, ready_;
};

class Hill {
 public:
  explicit Hill(Walker walker) : walker_(std::move(walker)), seen_(walker_.direction().g.words) {}

  // `states`: about so many made at most since the beginning.
  Outcome run(Bytes target, int64_t states, bool may_end, const Stop& stop);
  // After `kLower`, with all of `path` taken for good: goes on from there, where the level is higher by what it returns.
  Bytes rebase();
  const Order& path() const { return path_; }
  bool free_moves_only() const { return free_moves_only_; }  // then every state on the path may be taken for good
  bool reached_end() const { return end_ >= 0; }
  Bytes waiting() const { return waiting_.empty() ? INT64_MAX / 4 : waiting_.top().during; }

 private:
  struct Waiting {
    Bytes during;
    int32_t state, op;
    bool operator<(const Waiting& other) const { return during > other.during; }
  };
  bool expand(int32_t at);
  bool child(LiveState& state, int32_t parent, int32_t op);
  bool keep(const LiveState& state, int32_t parent);

  Walker walker_;
  Bytes target_ = 0;
  Seen seen_;
  bool begun_ = false, free_moves_only_ = false;
  int32_t end_ = -1;
  LiveState lower_;
  int64_t work_ = 0, polled_ = 0;
  std::priority_queue<std::pair<std::pair<int32_t, Bytes>, int32_t>> open_;
  std::priority_queue<Waiting> waiting_;
  Order path_;
};

}  // namespace memfit
