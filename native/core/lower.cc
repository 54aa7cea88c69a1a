// The smallest peak: annealing over sequences whose budget falls whenever it is kept.
//
// The energy is in bytes: the peak, a share of the excess over the budget of the moment (so that flat tops shrink from
// all sides), and a small price on seconds, which keeps runs that do not help from piling up. The temperature goes down
// in a few cycles, each from a lower start (Kirkpatrick, Gelatt and Vecchi 1983; restarts as in Ingber 1989). A state
// that keeps the budget is remembered and the budget then falls below its peak, so that one run goes down many steps.
// Cost: O(effort).
#include <cmath>

#include "core/moves.h"
#include "core/search.h"

namespace memfit {

Plan Search::lower(const Sequence& start, Bytes floor, uint64_t seed, int64_t effort) {
  const Problem& g = problem_;
  Random random(seed);
  Moves moves(g, random);
  LiveSequence state(g, 0);
  state.load(start);
  Sequence best = start;
  Bytes smallest = state.figures().peak;
  const double room = std::max<double>(1, static_cast<double>(smallest - floor));
  double total = 0;
  for (double s : g.seconds) total += s;
  const double per_second = total > 0 ? 0.01 * room / total : 0;
  Bytes budget = 0;
  const auto value = [&](const Figures& f) {
    return static_cast<double>(f.peak - floor) + 0.02 * static_cast<double>(f.excess) + per_second * f.seconds;
  };
  double energy = 0;
  const auto tighten = [&] {
    budget = smallest - std::max<Bytes>(1, static_cast<Bytes>(0.01 * static_cast<double>(smallest - floor)));
    state.set_budget(budget);
    energy = value(state.figures());
  };
  tighten();
  Edit edit;
  const int64_t limit = std::max<int64_t>(4000, 12LL * g.op_count);
  constexpr int32_t kCycles = 3;
  double temperature = room;
  for (int64_t step = 0; state.work < effort && smallest > floor; ++step) {
    if (step % 64 == 0) {
      const double passed = kCycles * static_cast<double>(state.work) / static_cast<double>(effort);
      const double cycle = std::floor(passed);
      temperature = 0.02 * room * std::pow(0.5, cycle) * std::pow(1e-2, passed - cycle);
    }
    state.work += 4;
    if (!moves.draw(state, edit)) continue;
    if (state.length() + static_cast<int64_t>(edit.insert.size()) > limit) continue;
    const double candidate = value(state.judge(edit));
    if (candidate > energy && random.unit() >= std::exp((energy - candidate) / temperature)) continue;
    state.apply(edit);
    energy = value(state.figures());
    if (state.figures().peak >= smallest) continue;
    smallest = state.figures().peak;
    best = state.sequence();
    state.work += state.length() / 8;
    if (state.figures().excess == 0) tighten();
  }
  cover_.work += state.work;
  return figures(best);
}

}  // namespace memfit
