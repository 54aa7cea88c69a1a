#include "core/cover.h"

#include <algorithm>
#include <cmath>

namespace memfit {

namespace {
constexpr int32_t kDeepest = 400;  // longest chain of ancestors computed again for one drop
}

Cover::Cover(const Problem& problem) : evaluation(problem), problem_(problem), trial_(problem) {
  listed_.assign(problem.op_count, 0);
}

Figures Cover::describe(const Sequence& sequence, Bytes budget) {
  work += 2 * static_cast<int64_t>(sequence.size());
  return evaluation.describe(sequence, budget);
}

Figures Cover::measure(const Sequence& sequence, Bytes budget) {
  work += static_cast<int64_t>(sequence.size());
  return trial_.measure(sequence, budget);
}

void Cover::add_with_inputs(int32_t v, int32_t q, double eagerness, double ratio, int32_t depth,
                            std::vector<int32_t>& list) {
  const Problem& g = problem_;
  listed_[v] = 1;
  for (int64_t j = g.reads_start[v]; j < g.reads_start[v + 1]; ++j) {
    const int32_t s = g.reads[j];
    if (evaluation.alive(s, q)) continue;
    const int32_t u = g.producer[s];
    if (u < 0 || listed_[u] || eagerness <= 0 || depth >= kDeepest || !evaluation.may_repeat(u, q)) continue;
    const int32_t count = evaluation.over_count(evaluation.last_event(s, q), q);
    const double harm = static_cast<double>(g.nbytes[s]) * count;
    const double price = g.seconds[u] + g.cost_floor;
    if (eagerness > 1 || (harm > 0 && (eagerness >= 1 || harm / price > ratio * (1 - eagerness))))
      add_with_inputs(u, q, eagerness, ratio, depth + 1, list);
  }
  list.push_back(v);
}

void Cover::drop_list(int32_t s, int32_t q, double eagerness, double ratio, std::vector<int32_t>& list) {
  list.clear();
  add_with_inputs(problem_.producer[s], q, eagerness, ratio, 0, list);
  for (int32_t v : list) listed_[v] = 0;
}

void Cover::sweep_idle(Sequence& sequence) {
  for (;;) {
    describe(sequence, 0);
    size_t kept = 0;
    for (size_t i = 0; i < sequence.size(); ++i)
      if (!evaluation.idle[i]) sequence[kept++] = sequence[i];
    if (kept == sequence.size()) return;
    sequence.resize(kept);
  }
}

bool Cover::take_batch(Sequence& sequence, Bytes budget, const CoverOptions& options, Figures& figures) {
  // The best candidates by estimate, all at once; positions refer to the described sequence.
  std::vector<std::pair<int32_t, std::vector<int32_t>>> inserts;
  std::vector<int32_t> list;
  const int32_t count = std::min<int32_t>(options.batch, static_cast<int32_t>(candidates_.size()));
  for (int32_t k = 0; k < count; ++k) {
    const auto& [score, gap, place] = candidates_[k];
    drop_list(evaluation.gaps[gap].storage, place, 0.5, score, list);
    inserts.push_back({place, list});
  }
  std::stable_sort(inserts.begin(), inserts.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : a.second.back() < b.second.back();
  });
  Sequence next;
  next.reserve(sequence.size() + 2 * inserts.size());
  size_t k = 0;
  for (int32_t i = 0; i <= static_cast<int32_t>(sequence.size()); ++i) {
    const size_t from = next.size();
    for (; k < inserts.size() && inserts[k].first == i; ++k)
      for (int32_t v : inserts[k].second)
        if (std::find(next.begin() + from, next.end(), v) == next.end()) next.push_back(v);
    if (i < static_cast<int32_t>(sequence.size())) next.push_back(sequence[i]);
  }
  const Figures after = measure(next, budget);
  if (after.excess >= figures.excess || after.seconds > options.seconds_limit) return false;
  sequence.swap(next);
  return true;
}

bool Cover::cover(Sequence& sequence, Bytes budget, const CoverOptions& options, Random& random) {
  const Problem& g = problem_;
  std::vector<int32_t> list, best_list;
  Sequence next, best;
  CoverOptions current = options;
  const double eagernesses[4] = {0.0, 0.5, 0.9, 1.0};
  for (;;) {
    Figures figures = describe(sequence, budget);
    if (figures.excess == 0) return true;
    if (figures.seconds > options.seconds_limit) return false;
    if (options.length_limit > 0 && static_cast<int64_t>(sequence.size()) > options.length_limit) return false;
    candidates_.clear();
    for (int32_t k = 0; k < static_cast<int32_t>(evaluation.gaps.size()); ++k) {
      const Gap& gap = evaluation.gaps[k];
      const int32_t v = g.producer[gap.storage];
      const Bytes bytes = g.nbytes[gap.storage];
      const int32_t place = v < 0 || bytes == 0 ? -1 : evaluation.latest(v, gap.to);
      if (place <= gap.from + 1) continue;
      const int32_t count = evaluation.over_count(gap.from, place);
      if (count == 0) continue;
      const double gain = std::min(static_cast<double>(bytes) * count,
                                   static_cast<double>(evaluation.over_sum(gap.from, place)));
      double score = gain / (g.seconds[v] + g.cost_floor);
      if (options.noise > 0) score *= std::exp(options.noise * (2 * random.unit() - 1));
      candidates_.push_back({score, k, place});
    }
    if (candidates_.empty()) return false;
    const size_t wanted = std::min(candidates_.size(), static_cast<size_t>(std::max(current.batch, 64)));
    std::partial_sort(candidates_.begin(), candidates_.begin() + wanted, candidates_.end(),
                      [](const Candidate& a, const Candidate& b) {
                        return a.score != b.score ? a.score > b.score : a.gap < b.gap;
                      });
    if (current.batch > 1) {
      if (take_batch(sequence, budget, current, figures)) continue;
      current.batch /= 2;
      if (current.batch > 1) continue;
    }
    // One at a time, judged exactly. More candidates are tried until one helps.
    double best_score = 0;
    bool found = false;
    int32_t tried = 0;
    for (size_t k = 0; k < wanted && (tried < options.tries || !found); ++k, ++tried) {
      const int32_t storage = evaluation.gaps[candidates_[k].gap].storage, place = candidates_[k].place;
      if (found && candidates_[k].score < best_score) break;  // the estimate is an upper bound but for side effects
      size_t previous = 0;
      for (double eagerness : eagernesses) {
        drop_list(storage, place, eagerness, candidates_[k].score, list);
        if (eagerness > 0 && list.size() == previous) continue;
        previous = list.size();
        next.assign(sequence.begin(), sequence.begin() + place);
        next.insert(next.end(), list.begin(), list.end());
        next.insert(next.end(), sequence.begin() + place, sequence.end());
        const Figures after = measure(next, budget);
        if (after.excess >= figures.excess) continue;
        const double price = after.seconds - figures.seconds + g.cost_floor * static_cast<double>(list.size());
        double score = static_cast<double>(figures.excess - after.excess) / price;
        if (options.noise > 0) score *= std::exp(0.5 * options.noise * (2 * random.unit() - 1));
        if (!found || score > best_score) {
          found = true;
          best_score = score;
          best.swap(next);
        }
      }
    }
    if (!found) return false;
    sequence.swap(best);
  }
}

void Cover::prune(Sequence& sequence, Bytes budget, Random& random) {
  const Problem& g = problem_;
  sweep_idle(sequence);
  describe(sequence, budget);
  std::vector<std::pair<double, int32_t>> order;  // repeated runs, dearest first, ties at random
  std::vector<double> tie;
  for (int32_t i = 0; i < static_cast<int32_t>(sequence.size()); ++i)
    if (evaluation.first[sequence[i]] != i)
      order.push_back({g.seconds[sequence[i]] * (1 + 1e-3 * random.unit()) + 1e-18 * random.unit(), i});
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  std::vector<int32_t> origin(sequence.size());
  for (size_t i = 0; i < origin.size(); ++i) origin[i] = static_cast<int32_t>(i);
  Sequence next;
  std::vector<int32_t> next_origin;
  bool stale = false;
  for (const auto& [price, at] : order) {
    const auto found = std::lower_bound(origin.begin(), origin.end(), at);
    if (found == origin.end() || *found != at) continue;
    const int32_t i = static_cast<int32_t>(found - origin.begin());
    if (stale) {
      describe(sequence, budget);
      stale = false;
    }
    // Quick refusal: the older instance would live on up to here and the memory is not there.
    const int32_t v = sequence[i];
    bool refuse = false;
    bool frees_inputs = false;
    for (int64_t j = g.reads_start[v]; j < g.reads_start[v + 1] && !frees_inputs; ++j)
      frees_inputs = !evaluation.alive(g.reads[j], i + 1);
    if (!frees_inputs) {
      for (int64_t j = g.writes_start[v]; j < g.writes_start[v + 1] && !refuse; ++j) {
        const int32_t s = g.writes[j];
        if (!evaluation.alive(s, i + 1)) continue;
        const Bytes room = budget - g.nbytes[s];
        const int32_t from = evaluation.last_event(s, i);
        for (int32_t p = from + 1; p < i; ++p)
          if (evaluation.during[p] > room) {
            refuse = true;
            break;
          }
      }
      work += 16;
    }
    if (refuse) continue;
    next.assign(sequence.begin(), sequence.begin() + i);
    next.insert(next.end(), sequence.begin() + i + 1, sequence.end());
    const Figures after = measure(next, budget);
    if (after.excess > 0) continue;
    sequence.swap(next);
    origin.erase(origin.begin() + i);
    stale = true;
  }
  sweep_idle(sequence);
}

}  // namespace memfit
