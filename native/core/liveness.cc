#include "core/liveness.h"

namespace memfit {

LivenessResult simulate(const LivenessGraph& g, const int32_t* sequence, int64_t length, Bytes base) {
  LivenessResult result;
  result.during.resize(length);
  result.reused.assign(length, 0);

  // Backward sweep: does this read (or this write) see a later read of the same instance?
  // next_is_read[s]: scanning from the end, 1 if the next event of s is a read, 0 if it is a write or nothing.
  std::vector<uint8_t> next_is_read(g.storage_count, 0);
  for (int32_t s = 0; s < g.storage_count; ++s) next_is_read[s] = g.pinned[s] != 0;
  // dies[k] for the k-th (position, operand) pair in sweep order; stored per position in one flat array.
  std::vector<int64_t> offset(length + 1, 0);
  for (int64_t i = 0; i < length; ++i) {
    const int32_t op = sequence[i];
    offset[i + 1] = offset[i] + (g.reads.start[op + 1] - g.reads.start[op]) + (g.writes.start[op + 1] - g.writes.start[op]);
  }
  std::vector<uint8_t> dies(offset[length], 0);
  for (int64_t i = length - 1; i >= 0; --i) {
    const int32_t op = sequence[i];
    int64_t k = offset[i];
    const int64_t reads_begin = g.reads.start[op], reads_end = g.reads.start[op + 1];
    const int64_t writes_begin = g.writes.start[op], writes_end = g.writes.start[op + 1];
    int64_t w = k + (reads_end - reads_begin);
    for (int64_t j = writes_begin; j < writes_end; ++j, ++w) {
      const int32_t s = g.writes.items[j];
      dies[w] = !next_is_read[s];
      // What came before this write belongs to an older instance.
      next_is_read[s] = g.pinned[s] == 1;
    }
    for (int64_t j = reads_begin; j < reads_end; ++j, ++k) {
      const int32_t s = g.reads.items[j];
      dies[k] = !next_is_read[s];
    }
    for (int64_t j = reads_begin; j < reads_end; ++j) next_is_read[g.reads.items[j]] = 1;
  }

  Bytes live = base;
  for (int64_t i = 0; i < length; ++i) {
    const int32_t op = sequence[i];
    const int64_t reads_begin = g.reads.start[op], reads_end = g.reads.start[op + 1];
    const int64_t writes_begin = g.writes.start[op], writes_end = g.writes.start[op + 1];
    const uint8_t* dead = dies.data() + offset[i];
    Bytes made = 0, freed = 0;
    for (int64_t j = writes_begin; j < writes_end; ++j) made += g.nbytes[g.writes.items[j]];
    for (int64_t j = reads_begin; j < reads_end; ++j) {
      const int32_t s = g.reads.items[j];
      if (dead[j - reads_begin]) {
        freed += g.nbytes[s];
        if (s == g.reuse[op] && writes_begin < writes_end &&
            g.nbytes[g.writes.items[writes_begin]] == g.nbytes[s]) {
          result.reused[i] = 1;
          made -= g.nbytes[s];
          freed -= g.nbytes[s];
        }
      }
    }
    const Bytes during = live + made + g.workspace[op];
    result.during[i] = during;
    if (during > result.peak || result.peak_position < 0) {
      result.peak = during;
      result.peak_position = static_cast<int32_t>(i);
    }
    result.seconds += g.seconds[op];
    live += made - freed;
    const uint8_t* dead_writes = dead + (reads_end - reads_begin);
    for (int64_t j = writes_begin; j < writes_end; ++j)
      if (dead_writes[j - writes_begin]) live -= g.nbytes[g.writes.items[j]];
  }
  return result;
}

}  // namespace memfit
