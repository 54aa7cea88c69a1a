// The least peak of an order of the ops between two states, with proof.
//
// A best-first walk over states (SERENITY, Ahn et al. 2020, does it layer by layer) under a rising peak: states beyond it
// wait, and when none is left the least waiting one raises it, so the peak reached is at every moment a proved lower
// bound. What is new here: the walk starts over, for good, from each state that is no higher than where it began
// (`order_state.h`), it does so from the front and from the back in turn, and free moves are made at once. Ranges where
// memory falls cost nothing; only the hills between two low states are searched. Cost: exponential in the width of a
// hill, capped by `states`.
#pragma once
#include "core/order_problem.h"

namespace memfit {

struct Exact {
  Order order;            // of `between`; empty where none below `high` was found
  Bytes bound = 0;        // no order of `between` is below this, or below `low`
  bool complete = false;  // the order found has the least peak at least `low`, or none is below `high`
};

// `before`: ops already run; `between`: the ops to order, in some valid order. Peaks below `low` do not matter;
// `high`: a peak known to be possible.
Exact order_exact(const OrderProblem& g, const Words& before, const Order& between, Bytes low, Bytes high,
                  int64_t states, const Stop& stop);

}  // namespace memfit
