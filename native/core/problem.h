// The planner's own copy of a graph: compressed rows by op and by storage, with the order rules by op.
//
// Plain data, no algorithm. Filled once per graph by bind.cpp, read by every search.
#pragma once
#include <cstdint>
#include <vector>

#include "core/liveness.h"

namespace memfit {

struct Problem {
  int32_t op_count = 0;
  int32_t storage_count = 0;
  std::vector<int64_t> reads_start, writes_start;  // op -> range in reads / writes
  std::vector<int32_t> reads, writes;
  std::vector<Bytes> workspace, nbytes;
  std::vector<double> seconds;
  std::vector<int32_t> reuse;        // op -> storage whose bytes the first output takes over when it dies here, or -1
  std::vector<uint8_t> pinned;       // storage -> 0, 1 constant, 2 output
  std::vector<uint8_t> repeatable;   // op -> may run again
  std::vector<int32_t> producer;     // storage -> op, -1 for constants
  std::vector<int64_t> after_start;  // op a -> the ops b for which no run of a may follow the first run of b
  std::vector<int32_t> after;
  std::vector<int64_t> before_start;  // op b -> the ops a above
  std::vector<int32_t> before;
  std::vector<int32_t> chain_rank;  // op -> place among the ops whose first runs keep their order, or -1
  Bytes base = 0;
  double cost_floor = 0;  // added to every recomputation's cost, so that free ops are not free without limit

  // Derives producer, the rows of order edges, reuse that never applies, and the floor of costs.
  void finish(const std::vector<int32_t>& edge_before, const std::vector<int32_t>& edge_after,
              const std::vector<int32_t>& chain);
};

}  // namespace memfit
