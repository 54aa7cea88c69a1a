// Edits of a LiveSequence: judged without being made, then made.
#include <algorithm>

#include "core/live_sequence.h"

namespace memfit {

namespace {
constexpr int64_t kEnd = INT64_MAX / 4;
}  // namespace

// Stretched coordinates: the run at position p stands at (p + 1) x stretch, the k-th of m inserted runs before position
// q at (q + 1) x stretch - (m - k), with stretch > m. So old and new runs share one line and every comparison is exact.

void LiveSequence::touch(int32_t op, int32_t rank) {
  const Problem& g = problem_;
  const auto mark = [&](int32_t s) {
    if (g.pinned[s] == 1) return;
    if (!is_touched_[s]) {
      is_touched_[s] = 1;
      touched_.push_back(s);
      newcomer_[s] = -1;
    }
    if (rank < 0) return;
    newcomers_.push_back({rank, -1});
    const int32_t entry = static_cast<int32_t>(newcomers_.size()) - 1;
    if (newcomer_[s] < 0) newcomer_[s] = entry;
    else newcomers_[newcomer_last_[s]].next = entry;
    newcomer_last_[s] = entry;
  };
  for (int64_t j = g.reads_start[op]; j < g.reads_start[op + 1]; ++j) mark(g.reads[j]);
  for (int64_t j = g.writes_start[op]; j < g.writes_start[op + 1]; ++j) mark(g.writes[j]);
}

void LiveSequence::instances(int32_t s, const Edit* edit, std::vector<Instance>& out) const {
  const Problem& g = problem_;
  out.clear();
  const int32_t maker = g.producer[s];
  int32_t last_op = -1;
  const auto event = [&](int64_t where, int32_t op) {
    if (op == maker) {
      if (!out.empty()) out.back().taker = g.reuse[last_op] == s ? last_op : -1;
      out.push_back({where, where, -1});
    } else if (!out.empty()) {
      out.back().to = where;
    }
    last_op = op;
  };
  const int32_t count = edit ? static_cast<int32_t>(edit->insert.size()) : 0;
  bool inserted = edit == nullptr || count == 0;
  const auto insert_all = [&] {
    inserted = true;
    for (int32_t entry = newcomer_[s]; entry >= 0; entry = newcomers_[entry].next) {
      const int32_t k = newcomers_[entry].rank;
      event((static_cast<int64_t>(edit->at) + 1) * stretch_ - (count - k), edit->insert[k]);
    }
  };
  for (int32_t node : events_[s]) {
    const int32_t p = position_[node];
    if (!inserted && p >= edit->at) insert_all();
    if (edit && p == edit->remove) continue;
    event((static_cast<int64_t>(p) + 1) * stretch_, op_[node]);
  }
  if (!inserted) insert_all();
  if (!out.empty()) {
    if (g.pinned[s] == 2) out.back().to = kEnd;
    else out.back().taker = g.reuse[last_op] == s ? last_op : -1;
  }
}

bool LiveSequence::dies_at(int32_t s, int32_t node) const {
  const auto& row = events_[s];
  const int32_t k = index_at_or_after(s, position_[node]) + 1;
  return k == static_cast<int32_t>(row.size()) ? problem_.pinned[s] == 0 : op_[row[k]] == problem_.producer[s];
}

Figures LiveSequence::judge(const Edit& edit) {
  const Problem& g = problem_;
  const int32_t size = length(), count = static_cast<int32_t>(edit.insert.size());
  stretch_ = count + 1;
  for (int32_t s : touched_) is_touched_[s] = 0;
  touched_.clear();
  steps_.clear();
  newcomers_.clear();
  judged_ = figures_;
  if (edit.remove >= 0) {
    touch(op_at(edit.remove), -1);
    judged_.seconds -= g.seconds[op_at(edit.remove)];
  }
  for (int32_t k = 0; k < count; ++k) {
    touch(edit.insert[k], k);
    judged_.seconds += g.seconds[edit.insert[k]];
  }
  // Live bytes across the place of insertion, before the edit.
  Bytes across = g.base;
  if (count > 0) {
    if (edit.at < size) {
      const int32_t op = op_at(edit.at);
      across = during_[edit.at] - g.workspace[op];
      for (int64_t j = g.writes_start[op]; j < g.writes_start[op + 1]; ++j) across -= g.nbytes[g.writes[j]];
      if (g.reuse[op] >= 0 && dies_at(g.reuse[op], order_[edit.at])) across += g.nbytes[g.reuse[op]];
    } else {
      for (int32_t s = 0; s < g.storage_count; ++s) across += g.pinned[s] == 2 ? g.nbytes[s] : 0;
    }
  }
  inserted_.assign(count, across);
  shift_.assign(count + 1, 0);
  for (int32_t k = 0; k < count; ++k) inserted_[k] += g.workspace[edit.insert[k]];
  const int64_t place = (static_cast<int64_t>(edit.at) + 1) * stretch_;
  const auto lay = [&](const Instance& instance, Bytes bytes) {
    const int64_t from = (instance.from + stretch_ - 1) / stretch_ - 1;  // first position at or after
    const int64_t to = instance.to >= kEnd ? size - 1 : instance.to / stretch_ - 1;
    if (from <= to) {
      steps_.push_back({static_cast<int32_t>(from), bytes});
      steps_.push_back({static_cast<int32_t>(to + 1), -bytes});
    }
    const bool exact = instance.to < kEnd && instance.to % stretch_ == 0;
    if (instance.taker >= 0 && exact) {
      steps_.push_back({static_cast<int32_t>(to), -bytes});
      steps_.push_back({static_cast<int32_t>(to + 1), bytes});
    }
    // The k-th inserted run stands at place - (count - k): the ranks inside [from, to] are a range.
    const int64_t first = std::max<int64_t>(0, instance.from - place + count);
    const int64_t last = std::min<int64_t>(count - 1, instance.to - place + count);
    if (first <= last) {
      shift_[first] += bytes;
      shift_[last + 1] -= bytes;
    }
    const int64_t taken = instance.to - place + count;
    if (instance.taker >= 0 && taken >= 0 && taken < count) inserted_[taken] -= bytes;
  };
  for (int32_t s : touched_) {
    const Bytes bytes = g.nbytes[s];
    if (bytes == 0) continue;
    instances(s, nullptr, old_);
    instances(s, &edit, new_);
    const auto same = [](const Instance& a, const Instance& b) {
      return a.from == b.from && a.to == b.to && a.taker == b.taker;
    };
    size_t head = 0, old_end = old_.size(), new_end = new_.size();
    while (head < old_end && head < new_end && same(old_[head], new_[head])) ++head;
    while (old_end > head && new_end > head && same(old_[old_end - 1], new_[new_end - 1])) --old_end, --new_end;
    for (size_t k = head; k < old_end; ++k) lay(old_[k], -bytes);
    for (size_t k = head; k < new_end; ++k) lay(new_[k], bytes);
    work += 2 + static_cast<int64_t>(events_[s].size()) / 2;
  }
  Bytes shift = 0;
  for (int32_t k = 0; k < count; ++k) inserted_[k] += shift += shift_[k];
  if (edit.remove >= 0) {
    steps_.push_back({edit.remove, 0});
    steps_.push_back({edit.remove + 1, 0});
  }
  std::sort(steps_.begin(), steps_.end());
  // Nothing changes before the first step and after the last.
  const int32_t first_step = steps_.empty() ? size : std::min(size, steps_.front().first);
  const int32_t last_step = steps_.empty() ? size : std::min(size, steps_.back().first);
  judged_.peak = peak_before_[first_step / kBlock];
  judged_.excess = excess_before_[first_step / kBlock];
  const auto see = [&](Bytes live) {
    judged_.peak = std::max(judged_.peak, live);
    judged_.excess += std::max<Bytes>(0, live - budget_);
  };
  const auto range = [&](int32_t from, int32_t to, Bytes delta) {
    while (from < to) {
      const int32_t block = from / kBlock, end = (block + 1) * kBlock;
      if (from % kBlock == 0 && end <= to) {
        const Bytes peak = block_peak_[block] + delta;
        if (peak <= budget_ || delta == 0) {
          judged_.peak = std::max(judged_.peak, peak);
          if (delta == 0) judged_.excess += block_excess_[block];
          from = end;
          continue;
        }
      }
      const int32_t stop = std::min(to, end);
      Bytes peak = INT64_MIN, excess = 0;
      for (int32_t p = from; p < stop; ++p) {
        peak = std::max(peak, during_[p]);
        excess += std::max<Bytes>(0, during_[p] + delta - budget_);
      }
      judged_.peak = std::max(judged_.peak, peak + delta);
      judged_.excess += excess;
      from = stop;
    }
  };
  Bytes delta = 0;
  int32_t from = first_step / kBlock * kBlock;
  for (const auto& [at, bytes] : steps_) {
    const int32_t to = std::min(at, size);
    if (to > from) {
      if (from == edit.remove) ++from;
      range(from, to, delta);
      from = to;
    }
    delta += bytes;
  }
  if (from == edit.remove && from < size) ++from;
  const int32_t rest = std::min(static_cast<int32_t>(block_peak_.size()), (from + kBlock - 1) / kBlock);
  range(from, std::min(size, rest * kBlock), delta);
  judged_.peak = std::max(judged_.peak, peak_from_[rest]);
  judged_.excess += figures_.excess - excess_before_[rest];
  for (Bytes live : inserted_) see(live);
  work += 24 + (last_step - first_step) / 16;
  return judged_;
}

bool LiveSequence::idle(int32_t node) const {
  const Problem& g = problem_;
  const int32_t op = op_[node];
  if (first_[op] == node) return false;
  for (int64_t j = g.writes_start[op]; j < g.writes_start[op + 1]; ++j)
    if (!dies_at(g.writes[j], node)) return false;
  return true;
}

void LiveSequence::apply(const Edit& edit) {
  const Problem& g = problem_;
  const int32_t size = length(), count = static_cast<int32_t>(edit.insert.size());
  Bytes delta = 0;
  int32_t from = size;
  for (const auto& [at, bytes] : steps_) {
    const int32_t to = std::min(at, size);
    if (delta != 0)
      for (int32_t p = from; p < to; ++p) during_[p] += delta;
    from = to;
    delta += bytes;
  }
  const int32_t lowest = std::min({steps_.empty() ? size : steps_.front().first, edit.at,
                                   edit.remove >= 0 ? edit.remove : size});
  std::vector<int32_t> suspects;  // runs that may have lost their last reader
  const auto suspect = [&](int32_t s, int32_t q) {
    const int32_t k = index_at_or_after(s, q);
    for (int32_t i = k - 1; i >= 0; --i) {
      const int32_t node = events_[s][i];
      if (op_[node] != g.producer[s]) continue;
      if (first_[op_[node]] != node) suspects.push_back(node);
      break;
    }
  };
  int32_t removed = -1;
  bool was_first = false;
  if (edit.remove >= 0) {
    removed = order_[edit.remove];
    const int32_t op = op_[removed];
    was_first = first_[op] == removed;
    const auto forget = [&](int32_t s) {
      if (g.pinned[s] == 1) return;
      auto& row = events_[s];
      row.erase(row.begin() + index_at_or_after(s, edit.remove));
    };
    for (int64_t j = g.reads_start[op]; j < g.reads_start[op + 1]; ++j) {
      forget(g.reads[j]);
      if (g.producer[g.reads[j]] >= 0) suspect(g.reads[j], edit.remove);
    }
    for (int64_t j = g.writes_start[op]; j < g.writes_start[op + 1]; ++j) forget(g.writes[j]);
  }
  std::vector<int32_t> nodes(count);
  for (int32_t k = 0; k < count; ++k) {
    const int32_t op = edit.insert[k];
    int32_t node;
    if (free_.empty()) {
      node = static_cast<int32_t>(op_.size());
      op_.push_back(op);
      position_.push_back(0);
      repeat_place_.push_back(-1);
    } else {
      node = free_.back();
      free_.pop_back();
      op_[node] = op;
    }
    nodes[k] = node;
    repeat_place_[node] = -1;
    for (int64_t j = g.writes_start[op]; j < g.writes_start[op + 1]; ++j) suspect(g.writes[j], edit.at);
  }
  // Events: rows hold nodes; old positions are still in place, new nodes go where edit.at points.
  for (int32_t k = 0; k < count; ++k) position_[nodes[k]] = edit.at;
  const auto remember = [&](int32_t s, int32_t node, int32_t k) {
    if (g.pinned[s] == 1) return;
    auto& row = events_[s];
    int32_t place = index_at_or_after(s, edit.at);
    while (place < static_cast<int32_t>(row.size()) &&
           std::find(nodes.begin(), nodes.begin() + k, row[place]) != nodes.begin() + k)
      ++place;
    row.insert(row.begin() + place, node);
  };
  for (int32_t k = 0; k < count; ++k) {
    const int32_t op = edit.insert[k];
    for (int64_t j = g.reads_start[op]; j < g.reads_start[op + 1]; ++j) remember(g.reads[j], nodes[k], k);
    for (int64_t j = g.writes_start[op]; j < g.writes_start[op + 1]; ++j) remember(g.writes[j], nodes[k], k);
  }
  order_.insert(order_.begin() + edit.at, nodes.begin(), nodes.end());
  during_.insert(during_.begin() + edit.at, inserted_.begin(), inserted_.end());
  if (edit.remove >= 0) {
    const int32_t at = edit.remove + (edit.at <= edit.remove ? count : 0);
    order_.erase(order_.begin() + at);
    during_.erase(during_.begin() + at);
  }
  // Where as many runs come as go, what stands after both keeps its place.
  const bool same_length = count == (edit.remove >= 0);
  const int32_t end = same_length ? std::max(edit.at, edit.remove + 1) : length();
  for (int32_t p = std::min(edit.at, edit.remove >= 0 ? edit.remove : size); p < end; ++p) position_[order_[p]] = p;
  if (removed >= 0) {
    if (was_first) {
      first_[op_[removed]] = nodes[0];  // a move
    } else {
      const int32_t place = repeat_place_[removed];
      repeats_[place] = repeats_.back();
      repeat_place_[repeats_[place]] = place;
      repeats_.pop_back();
      repeat_place_[removed] = -1;
    }
    free_.push_back(removed);
  }
  for (int32_t node : nodes) {
    if (first_[op_[node]] == node) continue;
    repeat_place_[node] = static_cast<int32_t>(repeats_.size());
    repeats_.push_back(node);
  }
  figures_.seconds = judged_.seconds;
  const int32_t highest = steps_.empty() ? end : std::max(end, std::min(size, steps_.back().first));
  rebuild_blocks(std::max(0, lowest), same_length ? highest : length());
  sum_blocks();
  work += 32 + ((same_length ? highest : length()) - lowest) / 2;
  std::sort(suspects.begin(), suspects.end());
  suspects.erase(std::unique(suspects.begin(), suspects.end()), suspects.end());
  for (int32_t node : suspects) {
    if (repeat_place_[node] < 0 || order_[position_[node]] != node || !idle(node)) continue;
    Edit cleanup;
    cleanup.remove = position_[node];
    judge(cleanup);
    apply(cleanup);
  }
}

}  // namespace memfit
