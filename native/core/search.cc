#include "core/search.h"

#include <algorithm>
#include <cmath>

namespace memfit {

Search::Search(Problem problem) : problem_(std::move(problem)), cover_(problem_) {}

Plan Search::figures(const Sequence& sequence) {
  cover_.work += static_cast<int64_t>(sequence.size());
  const Figures f = cover_.evaluation.measure(sequence, 0);
  return {sequence, f.peak, f.seconds};
}

CoverOptions Search::options(double noise, double seconds_limit) const {
  CoverOptions o;
  o.noise = noise;
  o.seconds_limit = seconds_limit;
  o.length_limit = std::max<int64_t>(4000, 12LL * problem_.op_count);
  return o;
}

std::vector<Plan> Search::ladder(const Sequence& start, const std::vector<Bytes>& budgets, uint64_t seed,
                                 int64_t effort) {
  std::vector<Plan> plans;
  Random random(seed);
  Sequence sequence = start;
  const int64_t limit = cover_.work + effort;
  for (Bytes budget : budgets) {
    CoverOptions o = options(0, 1e300);
    o.batch = std::max(1, problem_.op_count / 400);
    o.tries = problem_.op_count > 4000 ? 2 : 6;
    bool kept = cover_.cover(sequence, budget, o, random);
    for (int attempt = 0; attempt < 4 && !kept && cover_.work < limit; ++attempt) {
      o.noise = 0.3 + 0.3 * attempt;
      o.batch = 1;
      if (!plans.empty()) sequence = plans[attempt % 2 ? plans.size() - 1 : plans.size() / 2].sequence;
      else sequence = start;
      kept = cover_.cover(sequence, budget, o, random);
    }
    if (!kept) break;
    cover_.prune(sequence, budget, random);
    plans.push_back(figures(sequence));
    if (cover_.work >= limit) break;
  }
  return plans;
}

Plan Search::fit(const Sequence& start, Bytes budget, uint64_t seed, double noise) {
  Random random(seed);
  Sequence sequence = start;
  if (!cover_.cover(sequence, budget, options(noise, 1e300), random)) return {};
  cover_.prune(sequence, budget, random);
  return figures(sequence);
}

bool Search::window(const Sequence& sequence, int32_t at, int32_t& low, int32_t& high) const {
  const Problem& g = problem_;
  const auto& first = cover_.evaluation.first;  // of this very sequence
  const int32_t v = sequence[at], length = static_cast<int32_t>(sequence.size());
  const bool is_first = first[v] == at;
  const auto has = [](const std::vector<int64_t>& start, const std::vector<int32_t>& items, int32_t row, int32_t x) {
    for (int64_t j = start[row]; j < start[row + 1]; ++j)
      if (items[j] == x) return true;
    return false;
  };
  low = high = at;
  while (low > 0) {
    const int32_t u = sequence[low - 1];
    if (u == v) break;
    const bool u_first = first[u] == low - 1;
    bool needed = false;
    if (u_first)
      for (int64_t j = g.reads_start[v]; j < g.reads_start[v + 1] && !needed; ++j) needed = g.producer[g.reads[j]] == u;
    if (needed || has(g.before_start, g.before, v, u)) break;
    if (is_first && u_first && g.chain_rank[u] >= 0 && g.chain_rank[v] >= 0) break;
    --low;
  }
  while (high + 1 < length) {
    const int32_t u = sequence[high + 1];
    if (u == v) break;
    bool needed = false;
    if (is_first)
      for (int64_t j = g.reads_start[u]; j < g.reads_start[u + 1] && !needed; ++j) needed = g.producer[g.reads[j]] == v;
    if (needed || has(g.after_start, g.after, v, u)) break;
    if (is_first && first[u] == high + 1 && g.chain_rank[u] >= 0 && g.chain_rank[v] >= 0) break;
    ++high;
  }
  return low < high;
}

bool Search::shift_one(Sequence& sequence, int32_t from, int32_t to) const {
  if (from == to) return false;
  if (from < to)
    std::rotate(sequence.begin() + from, sequence.begin() + from + 1, sequence.begin() + to + 1);
  else
    std::rotate(sequence.begin() + to, sequence.begin() + from, sequence.begin() + from + 1);
  return true;
}

Plan Search::reorder(const Sequence& start, Bytes budget, uint64_t seed, int64_t effort) {
  Random random(seed);
  Sequence sequence = start, next;
  const int64_t limit = cover_.work + effort;
  Evaluation trial(problem_);
  Figures now = cover_.evaluation.describe(sequence, budget);
  cover_.work += 2 * static_cast<int64_t>(sequence.size());
  int32_t failures = 0;
  const int32_t patience = 4 * static_cast<int32_t>(sequence.size());
  while (cover_.work < limit && failures < patience && now.excess > 0) {
    const int32_t at = random.below(static_cast<int32_t>(sequence.size()));
    int32_t low, high;
    ++failures;
    cover_.work += 8;
    if (!window(sequence, at, low, high)) continue;
    const int32_t kind = random.below(3);
    const int32_t to = kind == 0 ? low : kind == 1 ? high : low + random.below(high - low + 1);
    if (to == at) continue;
    next = sequence;
    shift_one(next, at, to);
    const Figures after = trial.measure(next, budget);
    cover_.work += static_cast<int64_t>(next.size());
    if (after.excess > now.excess || (after.excess == now.excess && after.peak > now.peak)) continue;
    if (after.excess < now.excess || after.peak < now.peak) failures = 0;
    sequence.swap(next);
    now = cover_.evaluation.describe(sequence, budget);
    cover_.work += 2 * static_cast<int64_t>(sequence.size());
  }
  return figures(sequence);
}

void Search::remove_some(Sequence& sequence, Random& random) {
  const auto& first = cover_.evaluation.first;  // of this very sequence
  std::vector<int32_t> repeated;
  for (int32_t i = 0; i < static_cast<int32_t>(sequence.size()); ++i)
    if (first[sequence[i]] != i) repeated.push_back(i);
  if (repeated.empty()) return;
  std::vector<uint8_t> removed(sequence.size(), 0);
  const int32_t total = static_cast<int32_t>(repeated.size());
  const int32_t most = std::max(2, std::min(12, total / 2));
  const int32_t count = 1 + random.below(most);
  const int32_t kind = random.below(3);
  if (kind == 0) {
    for (int32_t k = 0; k < count; ++k) removed[repeated[random.below(total)]] = 1;
  } else if (kind == 1) {  // neighbours in time
    const int32_t from = random.below(total);
    for (int32_t k = from; k < std::min(total, from + count); ++k) removed[repeated[k]] = 1;
  } else {  // every run of a few ops, and of their readers
    const int32_t v = sequence[repeated[random.below(total)]];
    for (int32_t i : repeated) {
      bool related = sequence[i] == v;
      for (int64_t j = problem_.reads_start[sequence[i]]; j < problem_.reads_start[sequence[i] + 1] && !related; ++j)
        related = problem_.producer[problem_.reads[j]] == v && random.below(2) == 0;
      if (related) removed[i] = 1;
    }
  }
  size_t kept = 0;
  for (size_t i = 0; i < sequence.size(); ++i)
    if (!removed[i]) sequence[kept++] = sequence[i];
  sequence.resize(kept);
}

bool Search::add_some(Sequence& sequence, Bytes budget, Random& random) {
  // A random drop, wherever it helps or not: pruning then finds what it replaces.
  std::vector<int32_t> list;
  const int32_t count = 1 + random.below(3);
  for (int32_t k = 0; k < count; ++k) {
    if (k > 0) cover_.evaluation.describe(sequence, budget);
    if (cover_.evaluation.gaps.empty()) return false;
    bool done = false;
    for (int attempt = 0; attempt < 8 && !done; ++attempt) {
      const Gap gap = cover_.evaluation.gaps[random.below(static_cast<int32_t>(cover_.evaluation.gaps.size()))];
      const int32_t v = problem_.producer[gap.storage];
      const int32_t place = v < 0 || problem_.nbytes[gap.storage] == 0 ? -1 : cover_.evaluation.latest(v, gap.to);
      if (place <= gap.from + 1) continue;
      cover_.drop_list(gap.storage, place, random.below(2) ? 1.0 : 0.0, 0, list);
      sequence.insert(sequence.begin() + place, list.begin(), list.end());
      done = true;
    }
    if (!done) return k > 0;
  }
  return true;
}

Plan Search::improve(const Sequence& start, Bytes budget, uint64_t seed, int64_t effort) {
  Random random(seed);
  Sequence current = start;
  cover_.prune(current, budget, random);
  Plan best = figures(current);
  double current_seconds = best.seconds;
  double floor = 0;
  for (double s : problem_.seconds) floor += s;
  const int64_t begin = cover_.work;
  Sequence trial;
  Evaluation check(problem_);
  const double noises[4] = {0.2, 0.5, 1.0, 0};
  while (cover_.work - begin < effort && best.seconds > floor * (1 + 1e-12)) {
    const double left = 1.0 - static_cast<double>(cover_.work - begin) / static_cast<double>(effort);
    trial = current;
    cover_.evaluation.describe(trial, budget);
    cover_.work += 2 * static_cast<int64_t>(trial.size());
    const int32_t kind = random.below(8);
    const double slack = 0.05 * (best.seconds - floor) * left * left;
    const double limit = current_seconds + slack;
    if (kind < 5) {
      remove_some(trial, random);
      if (!cover_.cover(trial, budget, options(noises[random.below(4)], limit + 0.5 * (best.seconds - floor)), random)) continue;
    } else if (kind < 7) {
      if (!add_some(trial, budget, random)) continue;
      if (!cover_.cover(trial, budget, options(0.3, 1e300), random)) continue;
    } else {
      bool moved = false;
      for (int32_t k = 0; k < 4; ++k) {
        int32_t low, high;
        const int32_t at = random.below(static_cast<int32_t>(trial.size()));
        cover_.work += 8;
        if (!window(trial, at, low, high)) continue;
        const int32_t way = random.below(3);
        shift_one(trial, at, way == 0 ? low : way == 1 ? high : low + random.below(high - low + 1));
        cover_.evaluation.describe(trial, budget);
        cover_.work += 2 * static_cast<int64_t>(trial.size());
        moved = true;
      }
      if (!moved) continue;
      if (!cover_.cover(trial, budget, options(0.3, limit + 0.5 * (best.seconds - floor)), random)) continue;
    }
    cover_.prune(trial, budget, random);
    const Figures after = check.measure(trial, budget);
    cover_.work += static_cast<int64_t>(trial.size());
    if (after.excess > 0 || after.seconds > limit) continue;
    current.swap(trial);
    current_seconds = after.seconds;
    if (current_seconds < best.seconds * (1 - 1e-12)) best = figures(current);
    else if (current_seconds > best.seconds + 2 * slack) {
      current = best.sequence;
      current_seconds = best.seconds;
    }
  }
  return best;
}

}  // namespace memfit
