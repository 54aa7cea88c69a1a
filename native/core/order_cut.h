// The least bytes that any order can have while a given op runs, by a minimum cut.
//
// Over all states between two fixed ones in which the op runs next, the level is a sum of terms "made and not yet read by
// all": a cut function. One maximum flow (Dinic 1970) gives its minimum and a state that has it. Read off it:
//   * the largest of these minima over ops is a lower bound for the peak of every order (`order_bound`);
//   * an order can be rearranged to pass through such a state (`order_uncross`): the level is submodular, so that where
//     the state is also a least one between its ends, no step gets dearer.
// Cost: one flow over the ops and storages between the two states, near linear in practice.
#pragma once
#include "core/order_problem.h"

namespace memfit {

struct Cut {
  Bytes bytes = 0;             // while the op runs; without an op: the level
  std::vector<uint8_t> done;   // for each of `between`: whether it ran before
};

// Between the state `before` and the one with also all of `between` done. `op`: one of `between`; or -1 for the least
// level of any state, the ends included.
Cut least_state(const OrderProblem& g, const Words& before, const Order& between, int32_t op);

struct Bound {
  Bytes bytes = 0;
  int32_t op = -1;
  bool complete = false;  // the largest over all ops; otherwise over those that time allowed
};

// The largest of the least bytes over all ops; `during`: for each op, bytes in some order (caps the search).
Bound order_bound(const OrderProblem& g, const Order& order, const Stop& stop);

// `order` rearranged through least states of its worst ops, piece by piece, until no piece is above `target`;
// never above `order`.
Order order_uncross(const OrderProblem& g, const Order& order, Bytes target, const Stop& stop);

}  // namespace memfit
