// Simulated annealing (Kirkpatrick, Gelatt and Vecchi 1983) over sequences, with the budget as a price.
//
// A state may exceed the budget at a price per byte that rises while states are too often infeasible and falls while
// they are too often feasible, so that the walk runs along the budget's edge. One move is one judged edit: run a
// storage's producer again before its next use (with or without its dead inputs), delete a repeated run, both at once,
// or move a run inside its window. Unlike `improve`, no move has to repair what it breaks.
#include <algorithm>
#include <cmath>

#include "core/moves.h"
#include "core/search.h"

namespace memfit {

namespace {

// Deletes repeated runs, dearest first, while the budget is kept: Cover::prune on judged edits.
void drop_unneeded(const Problem& g, LiveSequence& state) {
  Sequence made = state.sequence();
  std::vector<std::pair<double, int32_t>> order;
  for (int32_t p = 0; p < state.length(); ++p)
    if (state.repeated(p)) order.push_back({-g.seconds[made[p]], state.node_at(p)});
  std::sort(order.begin(), order.end());
  Edit edit;
  for (const auto& [price, node] : order) {
    if (!state.is_repeat(node)) continue;
    edit.remove = state.position_of(node);
    if (state.judge(edit).excess == 0) state.apply(edit);
  }
}

}  // namespace

Plan Search::anneal(const Sequence& start, Bytes budget, uint64_t seed, int64_t effort, double heat) {
  const Problem& g = problem_;
  Random random(seed);
  Moves moves(g, random);
  LiveSequence state(g, budget);
  state.load(start);
  Edit edit;
  double floor = 0;
  for (double s : g.seconds) floor += s;
  const double dynamic = std::max<double>(1, static_cast<double>(state.figures().peak - g.base));
  double price = 2 * floor / dynamic;
  const auto value = [&](const Figures& f) {
    if (f.excess == 0) return f.seconds;
    return f.seconds + price * (static_cast<double>(f.peak - budget) + 0.02 * static_cast<double>(f.excess));
  };
  Sequence best;
  double best_seconds = 1e300;
  const auto keep_best = [&] {
    if (state.figures().excess == 0 && state.figures().seconds < best_seconds * (1 - 1e-9)) {
      best = state.sequence();
      best_seconds = state.figures().seconds;
      state.work += state.length() / 8;
    }
  };
  keep_best();
  double energy = value(state.figures());
  int32_t feasible = 0, counted = 0;
  const int64_t limit = std::max<int64_t>(4000, 12LL * g.op_count);
  const double hot = heat * floor / std::max(1, g.op_count);
  double temperature = hot;
  for (int64_t step = 0; state.work < effort; ++step) {
    if (step % 64 == 0)
      temperature = hot * std::pow(1e-3, static_cast<double>(state.work) / static_cast<double>(effort));
    state.work += 4;
    if (!moves.draw(state, edit)) continue;
    if (state.length() + static_cast<int64_t>(edit.insert.size()) > limit) continue;
    const double candidate = value(state.judge(edit));
    if (candidate > energy && random.unit() >= std::exp((energy - candidate) / temperature)) continue;
    state.apply(edit);
    keep_best();
    feasible += state.figures().excess == 0;
    if (++counted == 100) {
      if (feasible < 20) price *= 1.3;
      if (feasible > 60) price /= 1.3;
      feasible = counted = 0;
    }
    energy = value(state.figures());
  }
  cover_.work += state.work;
  if (best.empty()) return {};
  state.load(best);
  drop_unneeded(g, state);
  cover_.work += state.work;
  return figures(state.sequence());
}

int64_t Search::walk_check(const Sequence& start, Bytes budget, uint64_t seed, int64_t steps) {
  Random random(seed);
  Moves moves(problem_, random);
  LiveSequence state(problem_, budget);
  Evaluation check(problem_);
  state.load(start);
  Edit edit;
  int64_t wrong = 0;
  for (int64_t step = 0; step < steps; ++step) {
    if (!moves.draw(state, edit)) continue;
    const Figures judged = state.judge(edit);
    Sequence made = state.sequence();
    const int32_t at = edit.at - (edit.remove >= 0 && edit.remove < edit.at);
    if (edit.remove >= 0) made.erase(made.begin() + edit.remove);
    made.insert(made.begin() + (edit.insert.empty() ? 0 : at), edit.insert.begin(), edit.insert.end());
    const Figures truth = check.measure(made, budget);
    wrong += truth.peak != judged.peak || truth.excess != judged.excess;
    if (random.below(2)) continue;
    state.apply(edit);
    const Figures after = check.measure(state.sequence(), budget);
    wrong += after.peak != state.figures().peak || after.excess != state.figures().excess ||
             after.peak_position != state.figures().peak_position ||
             std::fabs(after.seconds - state.figures().seconds) > 1e-9 * (1 + std::fabs(after.seconds));
  }
  return wrong;
}

}  // namespace memfit
