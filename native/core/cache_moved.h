// How a state of a cache moves with a loop: what `same` and `move` of both kinds of cache share.
#pragma once
#include "core/cache_shape.h"

namespace memfit {

// By how many sets a period turns a level: the same for every array that moves (the loop's period is chosen so).
inline uint32_t turned(const std::vector<ArrayShift>& shift, uint32_t sets) {
  for (const auto& array : shift)
    if (array.lines) {
      const int64_t rest = array.lines % static_cast<int64_t>(sets);
      return static_cast<uint32_t>(rest < 0 ? rest + sets : rest);
    }
  return 0;
}

// An entry (line * 2 + dirty) after `times` periods; -1 where its line leaves the array. `at`: where the last one was found.
inline int64_t moved_entry(uint32_t entry, const std::vector<ArrayShift>& shift, int64_t times, size_t& at) {
  if (entry == kEmpty) return entry;
  const uint32_t line = entry >> 1;
  if (at >= shift.size() || line < shift[at].first || line > shift[at].last) {
    for (at = 0; at < shift.size(); ++at)
      if (line >= shift[at].first && line <= shift[at].last) break;
    if (at == shift.size()) return entry;
  }
  const int64_t moved = line + times * shift[at].lines;
  if (moved < shift[at].first || moved > shift[at].last) return -1;
  return moved << 1 | (entry & 1);
}

}  // namespace memfit
