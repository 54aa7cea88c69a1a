// States of a walk over orders: what ran, what may run next, and the moves that cost nothing to make at once.
//
// Three facts keep the number of states small; all follow from the level being submodular over states (what an op frees
// only grows with what ran before it). T: the peak that is asked for.
//   * A ready op that runs within T and leaves no more bytes than it found may run at once: every completion without it
//     becomes one with it first, no step dearer. `settle` runs them.
//   * The same seen from the back: an op that reads nothing and only adds bytes (a fill, a cast of a parameter) may wait
//     until just before the first op that needs it: `lazy` ops are no choices.
//   * A state that leaves no more bytes than the state where the search began, and is the least such on its way, may be
//     taken for good (`order_exact.cc`).
#pragma once
#include <algorithm>

#include "core/order_problem.h"

namespace memfit {

struct LiveState {
  Words marked;
  Order ready;
  Bytes level = 0, peak = 0;
  int32_t count = 0;  // ops marked since the start
  Order path;         // ops run since the caller emptied it
};

// Which ops belong to which walk, and which of them are lazy in it; walks side by side own different ops.
struct Members {
  std::vector<int32_t> owner;
  std::vector<uint8_t> lazy;
  explicit Members(const OrderProblem& g) : owner(g.op_count, -1), lazy(g.op_count, 0) {}
  void claim(const OrderProblem& g, const Order& ops, int32_t id) {
    for (const int32_t v : ops) owner[v] = id;
    for (const int32_t v : ops) {
      lazy[v] = 0;
      if (g.needs.count(v) > 0 || g.own[v] != g.made[v]) continue;
      for (const int32_t u : row(g.needed_by, v)) lazy[v] |= owner[u] == id;
    }
  }
};

class Walker {
 public:
  // `inside`: the ops still to place, claimed in `members` as `id`; `marked`: what the walk has behind it.
  Walker(const OrderProblem& g, bool forward, const Words& marked, const Order& inside, Bytes level,
         const Members& members, int32_t id)
      : walk_{g, forward}, total_(static_cast<int32_t>(inside.size())), members_(members), id_(id) {
    start_.marked = marked;
    start_.level = level;
    for (const int32_t v : inside)
      if (!lazy(v) && reachable(start_, v)) start_.ready.push_back(v);
  }

  // Begins anew at `state`, reached from the start; its level is the new zero.
  void restart(const LiveState& state) {
    start_.marked = state.marked;
    start_.ready = state.ready;
    total_ -= state.count;
  }

  const LiveState& start() const { return start_; }
  int32_t total() const { return total_; }
  const Direction& direction() const { return walk_; }

  // Bytes while `op` runs, and the level behind it, lazy ops that it waits for included.
  Step cost(const LiveState& state, int32_t op) const {
    Bytes level = state.level;
    if (walk_.forward)
      for (const int32_t p : row(walk_.previous(), op))
        if (lazy(p) && !has(state.marked.data(), p)) level += walk_.g.own[p];
    return walk_.step(state.marked.data(), op, level);  // no lower than while a waiting op ran
  }

  void run(LiveState& state, int32_t op, const Step& step) const {
    if (walk_.forward)
      for (const int32_t p : row(walk_.previous(), op))
        if (lazy(p) && !has(state.marked.data(), p)) mark(state, p);
    mark(state, op);
    state.level = step.after;
    state.peak = std::max(state.peak, step.during);
    for (size_t i = 0; i < state.ready.size(); ++i)
      if (state.ready[i] == op) {
        state.ready[i] = state.ready.back();
        state.ready.pop_back();
        break;
      }
    for (const int32_t u : row(walk_.next(), op))
      if (!has(state.marked.data(), u) && !lazy(u) && reachable(state, u)) state.ready.push_back(u);
  }

  // Runs ready ops that leave no more bytes than they found and stay within `target`, until none is left.
  void settle(LiveState& state, Bytes target) const {
    for (bool again = true; again;) {
      again = false;
      for (size_t i = 0; i < state.ready.size();) {
        const Step step = cost(state, state.ready[i]);
        if (step.during > target || step.after > state.level) {
          ++i;
          continue;
        }
        run(state, state.ready[i], step);
        again = true;
      }
    }
  }

  // The same after one `op` ran in a settled state: only what became ready, or reads what it read, can have become free.
  void settle_after(LiveState& state, int32_t op, Bytes target) const {
    Order ran{op};
    for (size_t at = 0; at < ran.size(); ++at) {
      const auto consider = [&](int32_t v) {
        if (members_.owner[v] != id_ || has(state.marked.data(), v) || lazy(v) || !reachable(state, v)) return;
        const Step step = cost(state, v);
        if (step.during > target || step.after > state.level) return;
        run(state, v, step);
        ran.push_back(v);
      };
      const int32_t last = ran[at];
      for (const int32_t v : row(walk_.next(), last)) consider(v);
      for (const int32_t s : row(walk_.g.reads, last))
        for (const int32_t v : row(walk_.g.readers, s)) consider(v);
    }
  }

 private:
  bool reachable(const LiveState& state, int32_t op) const {
    if (members_.owner[op] != id_) return false;
    for (const int32_t p : row(walk_.previous(), op))
      if (!lazy(p) && !has(state.marked.data(), p)) return false;
    return true;
  }
  void mark(LiveState& state, int32_t op) const {
    add(state.marked.data(), op);
    ++state.count;
    state.path.push_back(op);
  }

  bool lazy(int32_t op) const { return walk_.forward && members_.lazy[op] && members_.owner[op] == id_; }

  Direction walk_;
  int32_t total_;
  const Members& members_;
  int32_t id_;
  LiveState start_;
};

}  // namespace memfit
