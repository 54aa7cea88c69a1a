#include "core/problem.h"

#include <algorithm>

namespace memfit {

namespace {

void rows_by(const std::vector<int32_t>& keys, const std::vector<int32_t>& items, int32_t count,
             std::vector<int64_t>& start, std::vector<int32_t>& out) {
  start.assign(count + 1, 0);
  for (int32_t key : keys) ++start[key + 1];
  for (int32_t i = 0; i < count; ++i) start[i + 1] += start[i];
  out.resize(items.size());
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (size_t k = 0; k < keys.size(); ++k) out[next[keys[k]]++] = items[k];
}

}  // namespace

void Problem::finish(const std::vector<int32_t>& edge_before, const std::vector<int32_t>& edge_after,
                     const std::vector<int32_t>& chain) {
  producer.assign(storage_count, -1);
  double total = 0;
  for (int32_t op = 0; op < op_count; ++op) {
    for (int64_t j = writes_start[op]; j < writes_start[op + 1]; ++j) producer[writes[j]] = op;
    total += seconds[op];
    const bool applies = reuse[op] >= 0 && writes_start[op] < writes_start[op + 1] &&
                         nbytes[writes[writes_start[op]]] == nbytes[reuse[op]] && pinned[reuse[op]] != 1;
    if (!applies) reuse[op] = -1;
  }
  cost_floor = op_count > 0 ? std::max(total / op_count * 1e-3, 1e-15) : 1e-15;
  rows_by(edge_before, edge_after, op_count, after_start, after);
  rows_by(edge_after, edge_before, op_count, before_start, before);
  chain_rank.assign(op_count, -1);
  for (size_t k = 0; k < chain.size(); ++k) chain_rank[chain[k]] = static_cast<int32_t>(k);
}

}  // namespace memfit
