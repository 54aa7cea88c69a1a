#include "core/order_hill.h"

#include <algorithm>

namespace memfit {

namespace {

constexpr int64_t kMemory = 512ll << 20;  // bytes of states held by one walk at most

}  // namespace

int32_t Seen::insert(const LiveState& state, int32_t parent) {
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

void Seen::load(int32_t index, LiveState& state) const {
  const Held& held = states_[index];
  state.marked.assign(marked(index), marked(index) + words_);
  const size_t last = static_cast<size_t>(index) + 1 < states_.size() ? states_[index + 1].ready : ready_.size();
  state.ready.assign(ready_.begin() + held.ready, ready_.begin() + last);
  state.level = held.level;
  state.count = held.count;
  state.path.clear();
}

Order Seen::path(int32_t index) const {
  std::vector<int32_t> chain;
  for (; index >= 0; index = states_[index].parent) chain.push_back(index);
  Order out;
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
    const size_t last = static_cast<size_t>(*it) + 1 < states_.size() ? states_[*it + 1].path : paths_.size();
    out.insert(out.end(), paths_.begin() + states_[*it].path, paths_.begin() + last);
  }
  return out;
}

size_t Seen::hash(const uint64_t* set) const {
  uint64_t z = 0x9E3779B97F4A7C15ull;
  for (int32_t i = 0; i < words_; ++i) {
    z = (z ^ set[i]) * 0xBF58476D1CE4E5B9ull;
    z ^= z >> 29;
  }
  return z;
}

void Seen::grow() {
  table_.assign(2 * table_.size(), -1);
  for (size_t i = 0; i < states_.size(); ++i) {
    size_t at = hash(marked(static_cast<int32_t>(i))) & (table_.size() - 1);
    while (table_[at] >= 0) at = (at + 1) & (table_.size() - 1);
    table_[at] = static_cast<int32_t>(i);
  }
}

Outcome Hill::run(Bytes target, int64_t states, bool may_end, const Stop& stop) {
  target_ = target;
  LiveState state;
  bool found = false;
  if (!begun_) {
    begun_ = true;
    state = walker_.start();
    walker_.settle(state, target_);
    found = keep(state, -1);
  }
  while (true) {
    if (found) return Outcome::kLower;
    if (may_end && end_ >= 0) {
      path_ = seen_.path(end_);
      return Outcome::kEnd;
    }
    const bool wakes = open_.empty() && !waiting_.empty() && waiting_.top().during <= target_;
    if (open_.empty() && !wakes) return Outcome::kNone;
    if (work_ >= states || seen_.bytes() > kMemory || ((++polled_ & 15) == 0 && stop())) return Outcome::kCut;
    if (wakes) {
      ++work_;
      const Waiting next = waiting_.top();
      waiting_.pop();
      seen_.load(next.state, state);
      walker_.settle(state, target_);
      found = has(state.marked.data(), next.op) ? keep(state, next.state) : child(state, next.state, next.op);
    } else {
      const int32_t at = open_.top().second;
      open_.pop();
      found = expand(at);
    }
  }
}

Bytes Hill::rebase() {
  const Bytes level = lower_.level;
  walker_.restart(lower_);
  seen_ = Seen(walker_.direction().g.words);
  open_ = {};
  waiting_ = {};
  begun_ = false;
  end_ = -1;
  work_ = 0;
  return level;
}

bool Hill::expand(int32_t at) {
  LiveState from;
  seen_.load(at, from);
  work_ += 1 + static_cast<int64_t>(from.ready.size());
  for (const int32_t op : from.ready) {
    const Bytes during = walker_.cost(from, op).during;
    if (during > target_) {
      waiting_.push({during, at, op});
      continue;
    }
    LiveState state = from;
    if (child(state, at, op)) return true;
  }
  return false;
}

bool Hill::child(LiveState& state, int32_t parent, int32_t op) {
  walker_.run(state, op, walker_.cost(state, op));
  walker_.settle_after(state, op, target_);
  return keep(state, parent);
}

// Whether the state is no higher than the start; `path_` then leads there.
bool Hill::keep(const LiveState& state, int32_t parent) {
  const int32_t index = seen_.insert(state, parent);
  if (index < 0) return false;
  if (state.count > 0 && state.level <= walker_.start().level) {
    free_moves_only_ = parent < 0;
    path_ = seen_.path(index);
    lower_ = state;
    return true;
  }
  if (state.count == walker_.total()) end_ = index;
  else open_.push({{state.count, -state.level}, index});
  return false;
}

}  // namespace memfit
