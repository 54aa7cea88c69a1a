// Search over schedules: ladders of budgets, then large-neighbourhood search (Shaw 1998) at one budget.
//
// `ladder` walks budgets downwards, each sequence the start of the next: the cheap way to a whole curve and to the
// smallest peak. `improve` removes a few repeated runs (or adds some), covers the excess again under noise, prunes, and
// keeps what is cheaper, with a threshold that falls to zero. Effort is counted in evaluated runs, not in time, so that
// the same seed gives the same plan everywhere.
#pragma once
#include <cstdint>
#include <vector>

#include "core/cover.h"

namespace memfit {

struct Plan {
  Sequence sequence;
  Bytes peak = 0;
  double seconds = 0;
};

class Search {
 public:
  explicit Search(Problem problem);

  // For each budget (falling) a sequence that keeps it, from `start`; stops at the first that it cannot keep.
  std::vector<Plan> ladder(const Sequence& start, const std::vector<Bytes>& budgets, uint64_t seed, int64_t effort);
  // A sequence that keeps the budget from one that may not; empty sequence when it found none.
  Plan fit(const Sequence& start, Bytes budget, uint64_t seed, double noise);
  // The cheapest sequence found from one that keeps the budget.
  Plan improve(const Sequence& start, Bytes budget, uint64_t seed, int64_t effort);
  // The cheapest sequence found by annealing, from any valid one; empty when none kept the budget. `heat`: the first
  // temperature in seconds of an average op.
  Plan anneal(const Sequence& start, Bytes budget, uint64_t seed, int64_t effort, double heat);
  // The plan with the smallest peak found from `start`, never above it; `floor`: bytes that no plan goes below.
  Plan lower(const Sequence& start, Bytes floor, uint64_t seed, int64_t effort);
  // The cheapest sequence below `below` seconds by beam search over sets of live storages (beam.cc), at most 64 ops and
  // 128 storages; empty when none was found, and then `complete` says whether there is none.
  Plan beam(Bytes budget, double below, int32_t width, bool& complete);
  // Moves first runs inside their windows while that lowers the excess over `budget`, at no cost in seconds.
  Plan reorder(const Sequence& start, Bytes budget, uint64_t seed, int64_t effort);

  // A random walk of `steps` judged edits, half of them made: how often the figures kept up to date differ from an
  // evaluation from scratch. For tests; 0 is right.
  int64_t walk_check(const Sequence& start, Bytes budget, uint64_t seed, int64_t steps);

  Plan figures(const Sequence& sequence);
  int64_t work() const { return cover_.work; }
  const Problem& problem() const { return problem_; }

 private:
  void remove_some(Sequence& sequence, Random& random);
  bool add_some(Sequence& sequence, Bytes budget, Random& random);
  bool shift_one(Sequence& sequence, int32_t from, int32_t to) const;
  bool window(const Sequence& sequence, int32_t at, int32_t& low, int32_t& high) const;
  CoverOptions options(double noise, double seconds_limit) const;

  Problem problem_;
  Cover cover_;
};

}  // namespace memfit
