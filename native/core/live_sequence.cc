// The state of a LiveSequence and the questions asked of it; edits are in live_sequence_edit.cc.
#include "core/live_sequence.h"

#include <algorithm>

namespace memfit {

LiveSequence::LiveSequence(const Problem& problem, Bytes budget) : problem_(problem), budget_(budget) {
  is_touched_.assign(problem.storage_count, 0);
  newcomer_.assign(problem.storage_count, -1);
  newcomer_last_.assign(problem.storage_count, -1);
  listed_.assign(problem.op_count, 0);
}

void LiveSequence::load(const Sequence& sequence) {
  const Problem& g = problem_;
  const int32_t length = static_cast<int32_t>(sequence.size());
  op_ = sequence;
  order_.resize(length);
  position_.resize(length);
  free_.clear();
  repeats_.clear();
  repeat_place_.assign(length, -1);
  first_.assign(g.op_count, -1);
  events_.assign(g.storage_count, {});
  for (int32_t i = 0; i < length; ++i) {
    order_[i] = position_[i] = i;
    const int32_t op = sequence[i];
    if (first_[op] < 0) {
      first_[op] = i;
    } else {
      repeat_place_[i] = static_cast<int32_t>(repeats_.size());
      repeats_.push_back(i);
    }
    for (int64_t j = g.reads_start[op]; j < g.reads_start[op + 1]; ++j)
      if (g.pinned[g.reads[j]] != 1) events_[g.reads[j]].push_back(i);
    for (int64_t j = g.writes_start[op]; j < g.writes_start[op + 1]; ++j) events_[g.writes[j]].push_back(i);
  }
  Evaluation evaluation(g);
  figures_ = evaluation.measure(sequence, budget_);
  during_ = evaluation.during;
  work += length;
  rebuild_blocks(0, length);
  sum_blocks();
}

void LiveSequence::set_budget(Bytes budget) {
  budget_ = budget;
  rebuild_blocks(0, length());
  sum_blocks();
}

Sequence LiveSequence::sequence() const {
  Sequence out(order_.size());
  for (size_t i = 0; i < order_.size(); ++i) out[i] = op_[order_[i]];
  return out;
}

void LiveSequence::rebuild_blocks(int32_t from, int32_t to) {
  const int32_t blocks = (length() + kBlock - 1) / kBlock;
  block_peak_.resize(blocks);
  block_excess_.resize(blocks);
  const int32_t last = std::min(blocks, (to + kBlock - 1) / kBlock);
  for (int32_t b = from / kBlock; b < last; ++b) {
    Bytes peak = INT64_MIN, excess = 0;
    const int32_t end = std::min(length(), (b + 1) * kBlock);
    for (int32_t p = b * kBlock; p < end; ++p) {
      peak = std::max(peak, during_[p]);
      excess += std::max<Bytes>(0, during_[p] - budget_);
    }
    block_peak_[b] = peak;
    block_excess_[b] = excess;
  }
}

void LiveSequence::sum_blocks() {
  const int32_t blocks = static_cast<int32_t>(block_peak_.size());
  peak_before_.resize(blocks + 1);
  excess_before_.resize(blocks + 1);
  peak_from_.resize(blocks + 1);
  peak_before_[0] = peak_from_[blocks] = INT64_MIN;
  excess_before_[0] = 0;
  for (int32_t b = 0; b < blocks; ++b) {
    peak_before_[b + 1] = std::max(peak_before_[b], block_peak_[b]);
    excess_before_[b + 1] = excess_before_[b] + block_excess_[b];
  }
  for (int32_t b = blocks; b-- > 0;) peak_from_[b] = std::max(peak_from_[b + 1], block_peak_[b]);
  figures_.peak = peak_before_[blocks];
  figures_.excess = excess_before_[blocks];
  int32_t best = 0;
  while (best + 1 < blocks && block_peak_[best] < figures_.peak) ++best;
  for (int32_t p = best * kBlock; p < length(); ++p)
    if (during_[p] == figures_.peak) {
      figures_.peak_position = p;
      break;
    }
}

int32_t LiveSequence::index_at_or_after(int32_t s, int32_t q) const {
  const auto& row = events_[s];
  int32_t low = 0, high = static_cast<int32_t>(row.size());
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (position_[row[middle]] < q) low = middle + 1;
    else high = middle;
  }
  return low;
}

bool LiveSequence::alive(int32_t s, int32_t q) const {
  if (problem_.pinned[s] == 1) return true;
  const int32_t k = index_at_or_after(s, q);
  if (k == 0) return false;
  if (k == event_count(s)) return problem_.pinned[s] == 2;
  return op_[events_[s][k]] != problem_.producer[s];
}

int32_t LiveSequence::latest(int32_t v, int32_t q) const {
  const Problem& g = problem_;
  if (!g.repeatable[v]) return -1;
  for (int64_t j = g.after_start[v]; j < g.after_start[v + 1]; ++j) q = std::min(q, first_position(g.after[j]));
  return q;
}

bool LiveSequence::gap_before_event(int32_t s, int32_t k, Gap& gap) const {
  const auto& row = events_[s];
  if (k <= 0 || k > event_count(s)) return false;
  if (k == event_count(s)) {
    if (problem_.pinned[s] != 2) return false;
    gap = {s, position_[row[k - 1]], length()};
  } else {
    if (op_[row[k]] == problem_.producer[s]) return false;
    gap = {s, position_[row[k - 1]], position_[row[k]]};
  }
  return gap.to - gap.from > 1;
}

bool LiveSequence::gap_around(int32_t s, int32_t p, Gap& gap) const {
  return gap_before_event(s, index_at_or_after(s, p), gap) && gap.from < p && p < gap.to;
}

void LiveSequence::add_again(int32_t v, int32_t q, double again, Random& random, int32_t most,
                             std::vector<int32_t>& list) {
  const Problem& g = problem_;
  listed_[v] = 1;
  ++listing_;
  for (int64_t j = g.reads_start[v]; j < g.reads_start[v + 1]; ++j) {
    const int32_t s = g.reads[j];
    const int32_t u = g.producer[s];
    if (u < 0 || listed_[u] || again <= 0 || listing_ >= most || alive(s, q)) continue;
    if (again < 1 && random.unit() >= again) continue;
    const int32_t place = latest(u, q);
    if (place == q) add_again(u, q, again, random, most, list);
    else if (place >= 0) earlier_ = std::min(earlier_, place);
  }
  list.push_back(v);
}

int32_t LiveSequence::again_list(int32_t s, int32_t q, double again, int32_t most, Random& random,
                                 std::vector<int32_t>& list) {
  list.clear();
  listing_ = 0;
  earlier_ = q;
  add_again(problem_.producer[s], q, again, random, most, list);
  for (int32_t v : list) listed_[v] = 0;
  return earlier_;
}

bool LiveSequence::window(int32_t at, int32_t reach, int32_t& low, int32_t& high) const {
  const Problem& g = problem_;
  const int32_t v = op_at(at);
  const bool is_first = !repeated(at);
  const auto has = [](const std::vector<int64_t>& start, const std::vector<int32_t>& items, int32_t row, int32_t x) {
    return std::find(items.begin() + start[row], items.begin() + start[row + 1], x) != items.begin() + start[row + 1];
  };
  const auto reads_of = [&](int32_t reader, int32_t maker) {
    for (int64_t j = g.reads_start[reader]; j < g.reads_start[reader + 1]; ++j)
      if (g.producer[g.reads[j]] == maker) return true;
    return false;
  };
  low = high = at;
  while (low > 0 && at - low < reach) {
    const int32_t u = op_at(low - 1);
    const bool u_first = !repeated(low - 1);
    if (u == v || (u_first && reads_of(v, u)) || has(g.before_start, g.before, v, u)) break;
    if (is_first && u_first && g.chain_rank[u] >= 0 && g.chain_rank[v] >= 0) break;
    --low;
  }
  while (high + 1 < length() && high - at < reach) {
    const int32_t u = op_at(high + 1);
    if (u == v || (is_first && reads_of(u, v)) || has(g.after_start, g.after, v, u)) break;
    if (is_first && !repeated(high + 1) && g.chain_rank[u] >= 0 && g.chain_rank[v] >= 0) break;
    ++high;
  }
  return low < high;
}

}  // namespace memfit
