#include "core/evaluation.h"

#include <algorithm>

namespace memfit {

Evaluation::Evaluation(const Problem& problem) : problem_(problem) {}

template <bool Full>
Figures Evaluation::sweep(const Sequence& sequence, Bytes budget) {
  const Problem& g = problem_;
  const int32_t length = static_cast<int32_t>(sequence.size());
  Figures figures;
  during.assign(length + 1, 0);
  last_.assign(g.storage_count, -1);
  if (Full) {
    gaps.clear();
    first.assign(g.op_count, length);
    idle.assign(length, 0);
    event_start_.assign(g.storage_count + 1, 0);
    for (int32_t i = 0; i < length; ++i) {
      const int32_t op = sequence[i];
      for (int64_t j = g.reads_start[op]; j < g.reads_start[op + 1]; ++j)
        if (g.pinned[g.reads[j]] != 1) ++event_start_[g.reads[j] + 1];
      for (int64_t j = g.writes_start[op]; j < g.writes_start[op + 1]; ++j) ++event_start_[g.writes[j] + 1];
    }
    for (int32_t s = 0; s < g.storage_count; ++s) event_start_[s + 1] += event_start_[s];
    events_.resize(event_start_[g.storage_count]);
    // The fill below moves event_start_[s] to the end of row s; it is moved back after the sweep.
  }
  auto close = [&](int32_t s, int32_t at) {
    const Bytes bytes = g.nbytes[s];
    during[at + 1] -= bytes;
    if (g.reuse[sequence[at]] == s) {
      during[at] -= bytes;
      during[at + 1] += bytes;
    }
  };
  for (int32_t i = 0; i < length; ++i) {
    const int32_t op = sequence[i];
    figures.seconds += g.seconds[op];
    if (Full && first[op] == length) first[op] = i;
    for (int64_t j = g.reads_start[op]; j < g.reads_start[op + 1]; ++j) {
      const int32_t s = g.reads[j];
      if (g.pinned[s] == 1) continue;
      if (Full) {
        if (i - last_[s] > 1) gaps.push_back({s, last_[s], i});
        events_[event_start_[s]++] = 2 * i;
      }
      last_[s] = i;
    }
    for (int64_t j = g.writes_start[op]; j < g.writes_start[op + 1]; ++j) {
      const int32_t s = g.writes[j];
      if (last_[s] >= 0) close(s, last_[s]);
      during[i] += g.nbytes[s];
      last_[s] = i;
      if (Full) events_[event_start_[s]++] = 2 * i + 1;
    }
  }
  for (int32_t s = 0; s < g.storage_count; ++s) {
    if (g.pinned[s] == 1 || last_[s] < 0) continue;
    if (g.pinned[s] == 2) {
      if (Full && length - last_[s] > 1) gaps.push_back({s, last_[s], length});
    } else {
      close(s, last_[s]);
    }
  }
  Bytes live = g.base;
  if (Full) {
    over_.resize(length + 1);
    over_bytes_.resize(length + 1);
    over_[0] = 0;
    over_bytes_[0] = 0;
  }
  for (int32_t i = 0; i < length; ++i) {
    live += during[i];
    const Bytes here = live + g.workspace[sequence[i]];
    during[i] = here;
    if (here > figures.peak || figures.peak_position < 0) {
      figures.peak = here;
      figures.peak_position = i;
    }
    const Bytes excess = here > budget ? here - budget : 0;
    figures.excess += excess;
    if (Full) {
      over_[i + 1] = over_[i] + (excess > 0);
      over_bytes_[i + 1] = over_bytes_[i] + excess;
    }
  }
  during.pop_back();
  if (Full) {
    for (int32_t s = g.storage_count; s > 0; --s) event_start_[s] = event_start_[s - 1];
    event_start_[0] = 0;
    for (int32_t i = 0; i < length; ++i) {
      const int32_t op = sequence[i];
      if (first[op] == i) continue;
      bool used = false;
      for (int64_t j = g.writes_start[op]; j < g.writes_start[op + 1] && !used; ++j) {
        const int32_t s = g.writes[j];
        const auto end = events_.begin() + event_start_[s + 1];
        auto next = std::lower_bound(events_.begin() + event_start_[s], end, 2 * i + 1) + 1;
        used = next == end ? g.pinned[s] == 2 : (*next & 1) == 0;
      }
      idle[i] = !used;
    }
  }
  return figures;
}

Figures Evaluation::measure(const Sequence& sequence, Bytes budget) { return sweep<false>(sequence, budget); }
Figures Evaluation::describe(const Sequence& sequence, Bytes budget) { return sweep<true>(sequence, budget); }

bool Evaluation::alive(int32_t s, int32_t q) const {
  if (problem_.pinned[s] == 1) return true;
  const auto begin = events_.begin() + event_start_[s], end = events_.begin() + event_start_[s + 1];
  const auto next = std::lower_bound(begin, end, 2 * q);
  if (next == begin) return false;
  if (next == end) return problem_.pinned[s] == 2;
  return (*next & 1) == 0;
}

int32_t Evaluation::last_event(int32_t s, int32_t q) const {
  const auto begin = events_.begin() + event_start_[s], end = events_.begin() + event_start_[s + 1];
  const auto next = std::lower_bound(begin, end, 2 * q);
  return next == begin ? -1 : *(next - 1) / 2;
}

int32_t Evaluation::latest(int32_t v, int32_t q) const {
  const Problem& g = problem_;
  if (!g.repeatable[v]) return -1;
  for (int64_t j = g.after_start[v]; j < g.after_start[v + 1]; ++j) q = std::min(q, first[g.after[j]]);
  return q;
}

}  // namespace memfit
