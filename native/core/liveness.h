// Liveness of a schedule: how many bytes live while each op of a sequence runs.
//
// No Python here. The slow twin is memfit/analyses/liveness.py; one property test runs both.
#pragma once
#include <cstdint>
#include <vector>

namespace memfit {

using Bytes = int64_t;

// Compressed rows: row i is items[start[i] .. start[i + 1]).
struct Rows {
  const int64_t* start;
  const int32_t* items;
};

// A graph over storages; every array is indexed by op or by storage, none is owned.
struct LivenessGraph {
  int32_t op_count;
  int32_t storage_count;
  Rows reads;                 // op -> storages read
  Rows writes;                // op -> storages created
  const Bytes* workspace;     // op -> bytes alive only inside the op
  const double* seconds;      // op -> cost
  const int32_t* reuse;       // op -> storage whose bytes its first output may take over, or -1
  const Bytes* nbytes;        // storage -> bytes
  const uint8_t* pinned;      // storage -> 1: constant (always live, counted in base) ; 2: output (live to the end)
};

struct LivenessResult {
  std::vector<Bytes> during;  // per position: bytes live while that op runs, workspace included
  std::vector<uint8_t> reused;// per position: 1 where the output took over a dying input
  Bytes peak = 0;
  int32_t peak_position = -1;
  double seconds = 0;
};

// Each read means the newest instance; an instance dies after its last read before it is created
// anew or the sequence ends. Cost: O(length x fan-in).
LivenessResult simulate(const LivenessGraph& graph, const int32_t* sequence, int64_t length, Bytes base);

}  // namespace memfit
