// What a cache hierarchy is, for the simulators: levels from the processor outwards, lines of one size.
//
// A hierarchy is walked by `access(line, write)`, which returns the depth that served it: 0 the first level, `levels` memory.
// Two kinds of cache do so: `LruCache` (cache_lru.h: least recently used, no coupling between levels; vectors over ways) and
// `AnyCache` (cache_any.h: every policy, inclusive and exclusive, prefetching; plain).
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace memfit {

using std::size_t;

enum class Replacement : int32_t { lru = 0, plru = 1, fifo = 2, random = 3 };
enum class Inclusion : int32_t { neither = 0, inclusive = 1, exclusive = 2 };

struct LevelShape {
  uint32_t sets = 1, ways = 1;
  Replacement policy = Replacement::lru;
  bool next_line = false;
};

struct CacheShape {
  std::vector<LevelShape> levels;
  Inclusion inclusion = Inclusion::neither;
  bool apply_write_backs = false;  // a dirty victim is written to the next level; otherwise it is counted only
  uint64_t seed = 0;

  bool plain_lru(uint32_t most_ways) const {
    if (inclusion != Inclusion::neither || levels.empty()) return false;
    for (const auto& level : levels)
      if (level.policy != Replacement::lru || level.next_line || level.ways > most_ways) return false;
    return true;
  }
};

using CacheStop = std::function<bool()>;  // asked now and then; true ends the run

constexpr uint32_t kMostLine = 0x7ffffffe;  // lines are numbers up to here
constexpr uint32_t kEmpty = 0xfffffffe;     // a way that holds nothing: line 0x7fffffff, clean

// How the lines of each array move in one period of a loop; what equality of two states is judged by.
struct ArrayShift {
  uint32_t first, last;  // lines [first, last] of the array
  int64_t lines;         // by which they move, 0 where the loop does not touch the array
};

// line modulo sets, without a division.
struct SetIndex {
  uint32_t sets = 1;
  bool power = true;
  uint64_t magic = 0;

  explicit SetIndex(uint32_t n = 1) : sets(n), power((n & (n - 1)) == 0), magic(~uint64_t{0} / n + 1) {}
  inline __attribute__((always_inline)) uint32_t of(uint32_t line) const {
    if (power) return line & (sets - 1);
    return static_cast<uint32_t>((static_cast<unsigned __int128>(magic * line) * sets) >> 64);
  }
};

}  // namespace memfit
