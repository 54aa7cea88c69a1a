#include "core/order_exact.h"

#include <algorithm>
#include <queue>

#include "core/order_cut.h"
#include "core/order_state.h"

namespace memfit {

namespace {

enum class Outcome { kLower, kEnd, kNone, kCut };

// The states seen so far, each with how it was reached; looked up by their sets.
class Seen {
 public:
  explicit Seen(int32_t words) : words_(words), table_(1024, -1) {}

  // The index of a new state, or -1 where its set was seen before.
  int32_t insert(const LiveState& state, int32_t parent) {
    if (2 * states_.size() >= table_.size()) grow();
    size_t at = hash(state.marked.data()) & (table_.size() - 1);
    for (; table_[at] >= 0; at = (at + 1) & (table_.size() - 1))
      if (std::equal(state.marked.begin(), state.marked.end(), marked(table_[at]))) return -1;
    const auto index = static_cast<int32_t>(states_.size());
    table_[at] = index;
    states_.push_back({parent, state.count, state.level, paths_.size(), ready_.size()});
    sets_.insert(sets_.end(), state.marked.begin(), state.marked.end());
    paths_.insert(paths_.end(), state.path.begin(), state.path.end());
    ready_.insert(ready_.end(), state.ready.begin(), state.ready.end());
    return index;
  }

  void load(int32_t index, LiveState& state) const {
    const Held& held = states_[index];
    state.marked.assign(marked(index), marked(index) + words_);
    const size_t last = static_cast<size_t>(index) + 1 < states_.size() ? states_[index + 1].ready : ready_.size();
    state.ready.assign(ready_.begin() + held.ready, ready_.begin() + last);
    state.level = held.level;
    state.count = held.count;
    state.path.clear();
  }

  Order path(int32_t index) const {
    std::vector<int32_t> chain;
    for (; index >= 0; index = states_[index].parent) chain.push_back(index);
    Order out;
    for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
      const size_t last = static_cast<size_t>(*it) + 1 < states_.size() ? states_[*it + 1].path : paths_.size();
      out.insert(out.end(), paths_.begin() + states_[*it].path, paths_.begin() + last);
    }
    return out;
  }

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
  uint64_t hash(const uint64_t* set) const {
    uint64_t z = 0x9E3779B97F4A7C15ull;
    for (int32_t i = 0; i < words_; ++i) {
      z = (z ^ set[i]) * 0xBF58476D1CE4E5B9ull;
      z ^= z >> 29;
    }
    return z;
  }
  void grow() {
    table_.assign(2 * table_.size(), -1);
    for (size_t i = 0; i < states_.size(); ++i) {
      size_t at = hash(marked(static_cast<int32_t>(i))) & (table_.size() - 1);
      while (table_[at] >= 0) at = (at + 1) & (table_.size() - 1);
      table_[at] = static_cast<int32_t>(i);
    }
  }

  int32_t words_;
  std::vector<int32_t> table_;
  std::vector<Held> states_;
  std::vector<uint64_t> sets_;
  Order paths_, ready_;
};

constexpr int64_t kMemory = 512ll << 20;  // bytes of states held at most

// One walk from one state until a state that is no higher, the end, or the limit.
class Hill {
 public:
  Hill(const Walker& walker, Bytes& target, Bytes high, const Stop& stop)
      : walker_(walker), target_(target), high_(high), stop_(stop), seen_(walker.direction().g.words) {}

  Outcome run(int64_t states) {
    LiveState state = walker_.start();
    walker_.settle(state, target_);
    if (const auto outcome = keep(state, -1); outcome != Outcome::kNone) return outcome;
    for (int64_t work = 0;; ++work) {
      if (work >= states || seen_.bytes() > kMemory || ((work & 63) == 0 && stop_())) return Outcome::kCut;
      if (!open_.empty()) {
        const int32_t at = open_.top().second;
        open_.pop();
        if (const auto outcome = expand(at); outcome != Outcome::kNone) return outcome;
      } else {
        target_ = waiting_.empty() ? high_ : std::max(target_, waiting_.top().during);
        if (target_ >= high_) return Outcome::kNone;
        const Waiting next = waiting_.top();
        waiting_.pop();
        seen_.load(next.state, state);
        if (const auto outcome = child(state, next.state, next.op); outcome != Outcome::kNone) return outcome;
      }
    }
  }
  const Order& path() const { return path_; }
  bool free_moves_only() const { return free_moves_only_; }

 private:
  struct Waiting {
    Bytes during;
    int32_t state, op;
    bool operator<(const Waiting& other) const { return during > other.during; }
  };

  Outcome expand(int32_t at) {
    LiveState from;
    seen_.load(at, from);
    const Order choices = from.ready;
    for (const int32_t op : choices) {
      const Bytes during = walker_.cost(from, op).during;
      if (during > target_) {
        if (during < high_) waiting_.push({during, at, op});
        continue;
      }
      LiveState state = from;
      if (const auto outcome = child(state, at, op); outcome != Outcome::kNone) return outcome;
    }
    return Outcome::kNone;
  }

  Outcome child(LiveState& state, int32_t parent, int32_t op) {
    walker_.run(state, op, walker_.cost(state, op));
    walker_.settle(state, target_);
    return keep(state, parent);
  }

  Outcome keep(const LiveState& state, int32_t parent) {
    const int32_t index = seen_.insert(state, parent);
    if (index < 0) return Outcome::kNone;
    free_moves_only_ = parent < 0;
    const bool end = state.count == walker_.total();
    if (end || (state.count > 0 && state.level <= walker_.start().level)) {
      path_ = seen_.path(index);
      return end ? Outcome::kEnd : Outcome::kLower;
    }
    open_.push({{state.count, -state.level}, index});
    return Outcome::kNone;
  }

  const Walker& walker_;
  Bytes& target_;
  Bytes high_;
  const Stop& stop_;
  Seen seen_;
  std::priority_queue<std::pair<std::pair<int32_t, Bytes>, int32_t>> open_;
  std::priority_queue<Waiting> waiting_;
  Order path_;
  bool free_moves_only_ = false;
};

// The part of a walk's path that leads to the least state on its way: only that one may be taken for good.
Order to_least(const OrderProblem& g, const Words& marked, bool forward, const Order& path) {
  Words before = marked;
  Order between = path;
  if (!forward) {
    for (auto& word : before) word = ~word;
    for (const int32_t v : path) before[v >> 6] &= ~(1ull << (v & 63));
    std::reverse(between.begin(), between.end());
  }
  const Cut cut = least_state(g, before, between, -1, forward);
  std::vector<uint8_t> taken(g.op_count, 0);
  for (size_t i = 0; i < between.size(); ++i) taken[between[i]] = cut.done[i] == forward;
  Order out;
  for (const int32_t v : path)
    if (taken[v]) out.push_back(v);
  return out;
}

}  // namespace

Exact order_exact(const OrderProblem& g, const Words& before, const Order& between, Bytes low, Bytes high,
                  int64_t states, const Stop& stop) {
  Exact result;
  Bytes target = low;
  Words done = before, after(g.words, ~0ull);
  for (int32_t i = 0; i < g.words; ++i) after[i] &= ~before[i];
  for (const int32_t v : between) after[v >> 6] &= ~(1ull << (v & 63));
  Order left = between, front, back;
  int64_t limit = std::min<int64_t>(states, 500);
  bool forward = true;
  int cuts = 0;
  while (!left.empty() && target < high) {
    Words& marked = forward ? done : after;
    Words all = done;
    if (!forward)
      for (const int32_t v : left) add(all.data(), v);
    const Walker walker(g, forward, marked, left, level_of(g, all.data()));
    Hill hill(walker, target, high, stop);
    const Outcome outcome = hill.run(limit);
    if (outcome == Outcome::kNone) break;
    if (outcome == Outcome::kCut) {
      if (stop()) break;
      forward = !forward;
      if (++cuts < 2) continue;
      cuts = 0;
      if (limit >= states) break;
      limit = std::min(states, limit * 8);
      continue;
    }
    Order path = hill.path();
    if (outcome == Outcome::kLower && !hill.free_moves_only()) path = to_least(g, marked, forward, path);
    for (const int32_t v : path) {
      add(marked.data(), v);
      (forward ? front : back).push_back(v);
    }
    left.erase(std::remove_if(left.begin(), left.end(), [&](int32_t v) { return has(marked.data(), v); }), left.end());
    cuts = 0;
    limit = std::min<int64_t>(states, 500);
  }
  result.bound = std::min(target, high);
  result.complete = left.empty() || target >= high;
  if (left.empty()) {
    front.insert(front.end(), back.rbegin(), back.rend());
    result.order = std::move(front);
  }
  return result;
}

}  // namespace memfit
