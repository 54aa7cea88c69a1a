// A cache hierarchy of any kind, plain: every policy, inclusive and exclusive, write-backs, next-line prefetching.
//
// Rows of entries (line * 2 + dirty). LRU and FIFO keep their rows in order, the next victim last; PLRU and random keep
// entries in place, beside a tree of bits or a generator. A missing line is fetched first and its victim leaves afterwards.
// An inclusive level that loses a line takes it from the levels inside; an exclusive one holds what the level inside lost.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/cache_moved.h"
#include "core/cache_shape.h"

namespace memfit {

class AnyCache {
 public:
  static constexpr bool kSameEveryTime = false;

  explicit AnyCache(const CacheShape& shape) : shape_(shape) {
    for (size_t i = 0; i < shape.levels.size(); ++i) {
      const auto& s = shape.levels[i];
      Level level{SetIndex(s.sets), s.ways, s.policy, s.next_line};
      level.rows.assign(static_cast<size_t>(s.sets) * s.ways, kEmpty);
      if (s.policy == Replacement::plru) level.bits.assign(static_cast<size_t>(s.sets) * s.ways, 0);
      level.random = shape.seed * 0x9e3779b97f4a7c15ull + i;
      jump_ = jump_ && s.policy != Replacement::random && !s.next_line;
      levels_.push_back(std::move(level));
    }
  }

  int depth() const { return static_cast<int>(levels_.size()); }
  uint32_t first_ways() const { return levels_[0].ways; }
  int64_t write_backs(int level) const { return levels_[level].write_backs; }
  void add_write_backs(int level, int64_t more) { levels_[level].write_backs += more; }
  int64_t prefetches(int level) const { return levels_[level].prefetches; }
  bool can_jump() const { return jump_; }
  size_t state_words() const {
    size_t words = 0;
    for (const auto& level : levels_) words += level.rows.size() + level.bits.size();
    return words;
  }

  struct Front {};  // nothing that a loop could keep: see cache_lru.h
  Front front() const { return {}; }

  int access(Front, uint32_t line, uint32_t write) {
    return shape_.inclusion == Inclusion::exclusive ? exclusive(line, write) : demand(0, line, write);
  }

  void keep(std::vector<uint32_t>& into) const {
    into.clear();
    for (const auto& level : levels_) {
      into.insert(into.end(), level.rows.begin(), level.rows.end());
      into.insert(into.end(), level.bits.begin(), level.bits.end());
    }
  }
  bool same(const std::vector<uint32_t>& kept, const std::vector<ArrayShift>& shift) const {
    const uint32_t* from = kept.data();
    size_t at = 0;
    for (const auto& level : levels_) {
      const uint32_t sets = level.index.sets, turn = turned(shift, sets);
      for (uint32_t set = 0; set < sets; ++set) {
        const size_t other = static_cast<size_t>((set + turn) % sets) * level.ways;
        for (uint32_t w = 0; w < level.ways; ++w) {
          const int64_t moved = moved_entry(from[static_cast<size_t>(set) * level.ways + w], shift, 1, at);
          if (moved < 0 || static_cast<uint32_t>(moved) != level.rows[other + w]) return false;
        }
      }
      from += level.rows.size();
      if (!level.bits.empty())
        for (uint32_t set = 0; set < sets; ++set)
          if (!std::equal(from + static_cast<size_t>(set) * level.ways, from + static_cast<size_t>(set + 1) * level.ways,
                          level.bits.begin() + static_cast<size_t>((set + turn) % sets) * level.ways))
            return false;
      from += level.bits.size();
    }
    return true;
  }
  void move(const std::vector<ArrayShift>& shift, int64_t times) {
    size_t at = 0;
    for (auto& level : levels_) {
      const uint32_t sets = level.index.sets;
      const uint64_t turn = static_cast<uint64_t>(turned(shift, sets)) * (times % sets) % sets;
      const auto old = level.rows;
      const auto bits = level.bits;
      for (uint32_t set = 0; set < sets; ++set)
        for (uint32_t w = 0; w < level.ways; ++w) {
          const size_t to = (set + turn) % sets * level.ways + w, from = static_cast<size_t>(set) * level.ways + w;
          level.rows[to] = static_cast<uint32_t>(moved_entry(old[from], shift, times, at));
          if (!bits.empty()) level.bits[to] = bits[from];
        }
    }
  }

 private:
  struct Level {
    SetIndex index;
    uint32_t ways;
    Replacement policy;
    bool next_line;
    std::vector<uint32_t> rows, bits;
    uint64_t random = 0;
    int64_t write_backs = 0, prefetches = 0;
  };

  static uint32_t* row(Level& level, uint32_t line) {
    return level.rows.data() + static_cast<size_t>(level.index.of(line)) * level.ways;
  }
  static int find(Level& level, uint32_t line) {
    const uint32_t* entries = row(level, line);
    for (uint32_t w = 0; w < level.ways; ++w)
      if ((entries[w] ^ (line << 1)) <= 1) return static_cast<int>(w);
    return -1;
  }
  // The bits on the way to a way's leaf point away from it. Node 1 is the root.
  static void point_away(Level& level, uint32_t line, uint32_t way) {
    uint32_t* bits = level.bits.data() + static_cast<size_t>(level.index.of(line)) * level.ways;
    for (uint32_t node = level.ways + way; node > 1; node >>= 1) bits[node >> 1] = (node & 1) ^ 1;
  }
  static void used(Level& level, uint32_t line, int way, uint32_t write) {
    uint32_t* entries = row(level, line);
    entries[way] |= write;
    if (level.policy == Replacement::lru) std::rotate(entries, entries + way, entries + way + 1);
    if (level.policy == Replacement::plru) point_away(level, line, static_cast<uint32_t>(way));
  }
  static uint32_t victim_way(Level& level, uint32_t line) {
    const uint32_t* entries = row(level, line);
    if (level.policy == Replacement::lru || level.policy == Replacement::fifo) return level.ways - 1;
    for (uint32_t w = 0; w < level.ways; ++w)
      if (entries[w] == kEmpty) return w;
    if (level.policy == Replacement::plru) {
      const uint32_t* bits = level.bits.data() + static_cast<size_t>(level.index.of(line)) * level.ways;
      uint32_t node = 1;
      while (node < level.ways) node = 2 * node + bits[node];
      return node - level.ways;
    }
    uint64_t z = (level.random += 0x9e3779b97f4a7c15ull);  // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return static_cast<uint32_t>(((z >> 32) * level.ways) >> 32);
  }

  // Enters a line; returns what it drove out, dirty where any copy of it was.
  uint32_t enter(int i, uint32_t line, uint32_t dirty) {
    Level& level = levels_[i];
    const uint32_t way = victim_way(level, line);
    uint32_t* entries = row(level, line);
    uint32_t victim = entries[way];
    entries[way] = line << 1 | dirty;
    if (level.policy == Replacement::lru || level.policy == Replacement::fifo)
      std::rotate(entries, entries + way, entries + way + 1);
    if (level.policy == Replacement::plru) point_away(level, line, way);
    if (victim == kEmpty) return victim;
    if (shape_.inclusion == Inclusion::inclusive)
      for (int j = 0; j < i; ++j) victim |= take(j, victim >> 1) & 1;
    level.write_backs += victim & 1;
    return victim;
  }
  // Removes a line; its entry, or kEmpty (which is clean) where it is not there.
  uint32_t take(int i, uint32_t line) {
    Level& level = levels_[i];
    const int way = find(level, line);
    if (way < 0) return kEmpty;
    uint32_t* entries = row(level, line);
    const uint32_t entry = entries[way];
    entries[way] = kEmpty;
    if (level.policy == Replacement::lru || level.policy == Replacement::fifo)
      std::rotate(entries + way, entries + way + 1, entries + level.ways);
    return entry;
  }

  int demand(int i, uint32_t line, uint32_t write) {
    if (i == depth()) return i;
    Level& level = levels_[i];
    const int way = find(level, line);
    if (way >= 0) {
      used(level, line, way, write);
      return i;
    }
    const int served = demand(i + 1, line, 0);
    lose(i, enter(i, line, write));
    if (level.next_line && line < kMostLine) prefetch(i, line + 1);
    return served;
  }
  void prefetch(int i, uint32_t line) {
    if (find(levels_[i], line) >= 0) return;
    ++levels_[i].prefetches;
    fetch(i + 1, line);
    lose(i, enter(i, line, 0));
  }
  void fetch(int i, uint32_t line) {  // what a prefetch asks of the levels outside of it; counted nowhere
    if (i == depth()) return;
    const int way = find(levels_[i], line);
    if (way >= 0) return used(levels_[i], line, way, 0);
    fetch(i + 1, line);
    lose(i, enter(i, line, 0));
  }
  void lose(int i, uint32_t victim) {
    if (victim == kEmpty || !(victim & 1) || !shape_.apply_write_backs || i + 1 == depth()) return;
    const uint32_t line = victim >> 1;
    const int way = find(levels_[i + 1], line);
    if (way >= 0) return used(levels_[i + 1], line, way, 1);
    lose(i + 1, enter(i + 1, line, 1));
  }

  int exclusive(uint32_t line, uint32_t write) {
    const int way = find(levels_[0], line);
    if (way >= 0) {
      used(levels_[0], line, way, write);
      return 0;
    }
    int served = 1;
    for (; served < depth(); ++served)
      if (const uint32_t entry = take(served, line); entry != kEmpty) {
        write |= entry & 1;
        break;
      }
    uint32_t victim = enter(0, line, write);
    for (int i = 1; i < depth() && victim != kEmpty; ++i) victim = enter(i, victim >> 1, victim & 1);
    return served;
  }

  CacheShape shape_;
  bool jump_ = true;
  std::vector<Level> levels_;
};

}  // namespace memfit
