// Orders of large graphs: a beam over states, and windows of an order searched again with proof.
#pragma once
#include "core/order_problem.h"

namespace memfit {

// The order with the smallest peak that a beam of `width` states per number of ops run finds, from the front or the back;
// empty where none is below `high`. Peaks up to `low` count alike. Cost: O(ops x width x (ready ops + words)).
Order order_beam(const OrderProblem& g, const Order& any, bool forward, int32_t width, Bytes low, Bytes high,
                 const Stop& stop);

// `order` with windows around its worst steps ordered anew (`order_exact`), until no window of at most `longest` ops and
// `states` states lowers the peak, or it is at `low`. Never above `order`.
Order order_windows(const OrderProblem& g, const Order& order, Bytes low, int32_t longest, int64_t states,
                    const Stop& stop);

}  // namespace memfit
