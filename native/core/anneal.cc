// Simulated annealing (Kirkpatrick, Gelatt and Vecchi 1983) over sequences, budget as a price.
//
// A state may exceed the budget at a price per byte that rises while states are too often infeasible and falls while
// they are too often feasible, so that the walk runs along the budget's edge. One move is one evaluation: run a storage's
// producer again before its next use (with or without its dead inputs), delete a repeated run, both at once, or move a
// run inside its window. Unlike `improve`, no move has to repair what it breaks.
#include <algorithm>
#include <cmath>

#include "core/search.h"

namespace memfit {

Plan Search::anneal(const Sequence& start, Bytes budget, uint64_t seed, int64_t effort, double heat) {
  const Problem& g = problem_;
  Random random(seed);
  Evaluation& state = cover_.evaluation;
  Evaluation trial(g);
  Sequence current = start, next;
  std::vector<int32_t> list, repeated;
  double floor = 0;
  for (double s : g.seconds) floor += s;
  const int64_t begin = cover_.work;
  Figures now = state.describe(current, budget);
  Plan best;
  if (now.excess == 0) best = {current, now.peak, now.seconds};
  const double dynamic = std::max<double>(1, static_cast<double>(now.peak - g.base));
  double price = 2 * floor / dynamic;
  const auto value = [&](const Figures& f) {
    if (f.excess == 0) return f.seconds;
    return f.seconds + price * (static_cast<double>(f.peak - budget) + 0.02 * static_cast<double>(f.excess));
  };
  double energy = value(now);
  int32_t feasible = 0, counted = 0;
  const int64_t limit = std::max<int64_t>(4000, 12LL * g.op_count);
  const auto collect = [&] {
    repeated.clear();
    for (int32_t i = 0; i < static_cast<int32_t>(current.size()); ++i)
      if (state.first[current[i]] != i) repeated.push_back(i);
  };
  collect();
  while (cover_.work - begin < effort) {
    const double done = static_cast<double>(cover_.work - begin) / static_cast<double>(effort);
    const double temperature = heat * floor * std::pow(1e-3, done);
    const int32_t kind = random.below(20);
    next = current;
    cover_.work += 4;
    int32_t deleted = -1;
    if (kind < 12 && !repeated.empty()) {  // delete, alone or before an insertion
      deleted = repeated[random.below(static_cast<int32_t>(repeated.size()))];
      next.erase(next.begin() + deleted);
    }
    if (kind >= 6 && kind < 18) {
      if (state.gaps.empty()) continue;
      int32_t chosen = -1;
      for (int attempt = 0; attempt < 6; ++attempt) {
        const int32_t k = random.below(static_cast<int32_t>(state.gaps.size()));
        const Gap& gap = state.gaps[k];
        const int32_t v = g.producer[gap.storage];
        if (v < 0 || g.nbytes[gap.storage] == 0 || !state.may_repeat(v, gap.to)) continue;
        chosen = k;
        if (gap.from < now.peak_position && now.peak_position < gap.to) break;
      }
      if (chosen < 0) continue;
      const Gap gap = state.gaps[chosen];
      const double eagerness[3] = {0.0, 1.0, 2.0};
      cover_.drop_list(gap.storage, gap.to, eagerness[random.below(3)], 0, list);
      if (current.size() + list.size() > static_cast<size_t>(limit)) continue;
      if (deleted >= 0 && std::find(list.begin(), list.end(), current[deleted]) != list.end()) continue;
      const int32_t at = gap.to - (deleted >= 0 && deleted < gap.to);
      next.insert(next.begin() + at, list.begin(), list.end());
    } else if (kind >= 18) {
      int32_t low, high;
      const int32_t at = random.below(static_cast<int32_t>(current.size()));
      if (!window(current, at, low, high)) continue;
      const int32_t way = random.below(3);
      shift_one(next, at, way == 0 ? low : way == 1 ? high : low + random.below(high - low + 1));
    }
    const Figures after = trial.measure(next, budget);
    cover_.work += static_cast<int64_t>(next.size());
    const double candidate = value(after);
    if (candidate > energy && random.unit() >= std::exp((energy - candidate) / temperature)) continue;
    current.swap(next);
    now = state.describe(current, budget);
    cover_.work += 2 * static_cast<int64_t>(current.size());
    if (std::find(state.idle.begin(), state.idle.end(), 1) != state.idle.end()) {
      cover_.sweep_idle(current);
      now = state.describe(current, budget);
      cover_.work += 2 * static_cast<int64_t>(current.size());
    }
    collect();
    if (now.excess == 0 && (best.sequence.empty() || now.seconds < best.seconds * (1 - 1e-12)))
      best = {current, now.peak, now.seconds};
    feasible += now.excess == 0;
    if (++counted == 100) {
      if (feasible < 20) price *= 1.3;
      if (feasible > 60) price /= 1.3;
      feasible = counted = 0;
    }
    energy = value(now);
  }
  if (best.sequence.empty()) return best;
  cover_.prune(best.sequence, budget, random);
  return figures(best.sequence);
}

}  // namespace memfit
