// Least recently used sets as rows of 32-bit entries, most recent first: line * 2 + dirty. Included by the two files that
// compile it (cache_portable.cc, cache_avx2.cc), inside their namespaces, after the standard headers.
//
// A hit in one of the first four entries costs as many comparisons; any other access scans a row with vectors and moves a
// prefix of it by one entry, in registers. A row is padded to whole vectors with empty entries. What every access needs of
// the first level is a value of its own (`Front`) that a loop keeps in registers: the rows' stores cannot alias it.

typedef uint32_t Eight __attribute__((vector_size(32)));
typedef int32_t EightSigned __attribute__((vector_size(32)));

#define MEMFIT_INLINE inline __attribute__((always_inline))

MEMFIT_INLINE Eight all_of(uint32_t x) { return Eight{x, x, x, x, x, x, x, x}; }

MEMFIT_INLINE uint32_t mask_of(EightSigned lanes) {
#if defined(MEMFIT_AVX2_LANES)
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(lanes)));
#elif defined(__SSE2__)
  __m128 half[2];
  __builtin_memcpy(half, &lanes, 32);
  return static_cast<uint32_t>(_mm_movemask_ps(half[0]) | _mm_movemask_ps(half[1]) << 4);
#else
  uint32_t mask = 0;
  for (int i = 0; i < 8; ++i) mask |= (lanes[i] ? 1u : 0u) << i;
  return mask;
#endif
}

// Moves `key` to the front of a row, entering it where it is not there. True: it was there. `victim`: what fell out.
template <int V>
MEMFIT_INLINE bool move_to_front(uint32_t* row, uint32_t key, uint32_t write, uint32_t ways, uint32_t& victim) {
  Eight old[V];
  uint64_t found = 0;
  const Eight wanted = all_of(key), clean = all_of(~1u);
  for (int v = 0; v < V; ++v) {
    old[v] = *reinterpret_cast<const Eight*>(row + 8 * v);
    found |= static_cast<uint64_t>(mask_of((old[v] & clean) == wanted)) << (8 * v);
  }
  int32_t place;
  uint32_t entry;
  if (found) {
    place = __builtin_ctzll(found);
    entry = row[place] | write;
  } else {
    place = static_cast<int32_t>(ways) - 1;
    victim = row[place];
    entry = key | write;
  }
  Eight before = all_of(entry);
  for (int v = 0; v < V; ++v) {
    const int32_t p = place - 8 * v;
    const EightSigned index = {0, 1, 2, 3, 4, 5, 6, 7}, to = {p, p, p, p, p, p, p, p};
    const Eight moved = __builtin_shufflevector(before, old[v], 7, 8, 9, 10, 11, 12, 13, 14);
    const EightSigned take = index <= to;
    before = old[v];
    *reinterpret_cast<Eight*>(row + 8 * v) = take ? moved : old[v];
  }
  return found != 0;
}

// The same for the first four entries alone, without vectors. False: `key` is none of them, and nothing has changed.
MEMFIT_INLINE bool near_front(uint32_t* row, uint32_t key, uint32_t write) {
  const uint32_t a = row[0];
  if ((a ^ key) <= 1) {
    if (write & ~a) row[0] = a | 1;
    return true;
  }
  const uint32_t b = row[1];
  if ((b ^ key) <= 1) {
    row[1] = a;
    row[0] = b | write;
    return true;
  }
  const uint32_t c = row[2];
  if ((c ^ key) <= 1) {
    row[2] = b;
    row[1] = a;
    row[0] = c | write;
    return true;
  }
  const uint32_t d = row[3];
  if ((d ^ key) <= 1) {
    row[3] = c;
    row[2] = b;
    row[1] = a;
    row[0] = d | write;
    return true;
  }
  return false;
}

struct LruLevel {
  uint32_t* rows = nullptr;
  SetIndex index;
  uint32_t ways = 1, stride = 8;
  int64_t write_backs = 0;

  MEMFIT_INLINE bool touch(uint32_t line, uint32_t write, uint32_t& victim) {
    uint32_t* row = rows + static_cast<size_t>(index.of(line)) * stride;
    if (near_front(row, line << 1, write)) return true;
    if (stride == 16) return move_to_front<2>(row, line << 1, write, ways, victim);  // as most are
    return others(row, line, write, victim);
  }
  __attribute__((noinline)) bool others(uint32_t* row, uint32_t line, uint32_t write, uint32_t& victim) const {
    switch (stride) {
      case 8: return move_to_front<1>(row, line << 1, write, ways, victim);
      case 24: return move_to_front<3>(row, line << 1, write, ways, victim);
      case 32: return move_to_front<4>(row, line << 1, write, ways, victim);
      default: return move_to_front<8>(row, line << 1, write, ways, victim);
    }
  }
};

template <int V>
class LruCache {
 public:
  static constexpr bool kSameEveryTime = true;  // a body of at most `ways` accesses hits from its second pass on

  explicit LruCache(const CacheShape& shape) : apply_(shape.apply_write_backs), levels_(shape.levels.size()) {
    for (size_t i = 0; i < levels_.size(); ++i) {
      auto& level = levels_[i];
      level.ways = shape.levels[i].ways;
      level.index = SetIndex(shape.levels[i].sets);
      const uint32_t vectors = (level.ways + 7) / 8;
      level.stride = 8 * (vectors > 4 ? 8 : vectors);
      words_.push_back(static_cast<size_t>(level.stride) * level.index.sets);
      level.rows = static_cast<uint32_t*>(::operator new(words_[i] * 4, std::align_val_t{64}));
      std::fill_n(level.rows, words_[i], kEmpty);
    }
  }
  LruCache(const LruCache&) = delete;
  LruCache& operator=(const LruCache&) = delete;
  ~LruCache() {
    for (auto& level : levels_) ::operator delete(level.rows, std::align_val_t{64});
  }

  int depth() const { return static_cast<int>(levels_.size()); }
  uint32_t first_ways() const { return levels_[0].ways; }
  int64_t write_backs(int level) const { return levels_[level].write_backs; }
  void add_write_backs(int level, int64_t more) { levels_[level].write_backs += more; }
  int64_t prefetches(int) const { return 0; }
  bool can_jump() const { return true; }
  size_t state_words() const {
    size_t words = 0;
    for (size_t w : words_) words += w;
    return words;
  }

  struct Front {
    uint32_t* rows;
    SetIndex index;
    uint32_t ways;
  };
  Front front() const { return {levels_[0].rows, levels_[0].index, levels_[0].ways}; }

  MEMFIT_INLINE int access(const Front& first, uint32_t line, uint32_t write) {
    uint32_t* row = first.rows + static_cast<size_t>(first.index.of(line)) * (8 * V);
    const uint32_t key = line << 1;
    if (near_front(row, key, write)) return 0;
    uint32_t victim = kEmpty;
    if (move_to_front<V>(row, key, write, first.ways, victim)) return 0;
    return apply_ ? below_applied(line, victim) : below(line, victim);
  }

  // Runs entries (line * 2 + write) through one level, and gives what the next one is asked for: the lines that missed and,
  // where write-backs are applied, after each the dirty line that it displaced, marked as a write. What arrives so marked
  // from a level inside enters without being fetched. `out` holds 2 entries for each of `count`; returns how many it got.
  int64_t filter(int level, const uint32_t* in, int64_t count, uint32_t* out) {
    auto& it = levels_[level];
    switch (it.stride / 8) {
      case 1: return filtered<1>(it, level, in, count, out);
      case 2: return filtered<2>(it, level, in, count, out);
      case 3: return filtered<3>(it, level, in, count, out);
      case 4: return filtered<4>(it, level, in, count, out);
      default: return filtered<8>(it, level, in, count, out);
    }
  }

  // The state, its words in one row; `same` says whether the state now is the one kept, moved by `shift`.
  void keep(std::vector<uint32_t>& into) const {
    into.clear();
    for (size_t i = 0; i < levels_.size(); ++i) into.insert(into.end(), levels_[i].rows, levels_[i].rows + words_[i]);
  }
  bool same(const std::vector<uint32_t>& kept, const std::vector<ArrayShift>& shift) const {
    const uint32_t* from = kept.data();
    size_t at = 0;
    for (size_t i = 0; i < levels_.size(); ++i) {
      const auto& level = levels_[i];
      const uint32_t sets = level.index.sets, turn = turned(shift, sets);
      for (uint32_t set = 0; set < sets; ++set, from += level.stride) {
        const uint32_t other = set + turn >= sets ? set + turn - sets : set + turn;
        const uint32_t* now = level.rows + static_cast<size_t>(other) * level.stride;
        for (uint32_t w = 0; w < level.ways; ++w) {
          const int64_t moved = moved_entry(from[w], shift, 1, at);
          if (moved < 0 || static_cast<uint32_t>(moved) != now[w]) return false;
        }
      }
    }
    return true;
  }
  void move(const std::vector<ArrayShift>& shift, int64_t times) {
    size_t at = 0;
    std::vector<uint32_t> old;
    for (size_t i = 0; i < levels_.size(); ++i) {
      auto& level = levels_[i];
      const uint32_t sets = level.index.sets;
      const auto turn = static_cast<uint32_t>(static_cast<uint64_t>(turned(shift, sets)) * (times % sets) % sets);
      old.assign(level.rows, level.rows + words_[i]);
      for (uint32_t set = 0; set < sets; ++set) {
        const uint32_t other = set + turn >= sets ? set + turn - sets : set + turn;
        uint32_t* to = level.rows + static_cast<size_t>(other) * level.stride;
        const uint32_t* from = old.data() + static_cast<size_t>(set) * level.stride;
        for (uint32_t w = 0; w < level.ways; ++w) to[w] = static_cast<uint32_t>(moved_entry(from[w], shift, times, at));
      }
    }
  }

 private:
  template <int W>
  int64_t filtered(LruLevel& level, int depth, const uint32_t* in, int64_t count, uint32_t* out) {
    if (depth && apply_) return filtered_as<W, true, false>(level, true, in, count, out);
    return level.index.power ? filtered_as<W, false, true>(level, apply_, in, count, out)
                             : filtered_as<W, false, false>(level, apply_, in, count, out);
  }

  // kInner: writes are displaced lines from inside. kPower: sets are a power of two. pass: displaced lines go on.
  template <int W, bool kInner, bool kPower>
  __attribute__((noinline)) static int64_t filtered_as(LruLevel& level, bool pass, const uint32_t* in, int64_t count, uint32_t* out) {
    uint32_t* const rows = level.rows;
    const SetIndex index = level.index;
    const uint32_t ways = level.ways, mask = index.sets - 1;
    int64_t given = 0, written = 0;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t entry = in[i], write = entry & 1, key = entry - write;
      uint32_t* row = rows + static_cast<size_t>(kPower ? key >> 1 & mask : index.of(key >> 1)) * (8 * W);
      if (near_front(row, key, write)) continue;
      uint32_t victim = kEmpty;
      if (move_to_front<W>(row, key, write, ways, victim)) continue;
      if (!kInner || !write) out[given++] = key;
      written += victim & 1;
      if (pass && (victim & 1)) out[given++] = victim;
    }
    level.write_backs += written;
    return given;
  }

  __attribute__((noinline)) int below(uint32_t line, uint32_t victim) {
    levels_[0].write_backs += victim & 1;
    const int n = depth();
    for (int i = 1; i < n; ++i) {
      victim = kEmpty;
      if (levels_[i].touch(line, 0, victim)) return i;
      levels_[i].write_backs += victim & 1;
    }
    return n;
  }

  // As `below`, then the victims are written to the level outside of theirs, the outermost first.
  __attribute__((noinline)) int below_applied(uint32_t line, uint32_t victim) {
    uint32_t victims[16];
    victims[0] = victim;
    const int n = depth();
    int at = 1;
    for (; at < n; ++at) {
      victims[at] = kEmpty;
      if (levels_[at].touch(line, 0, victims[at])) break;
    }
    for (int i = std::min(at, n) - 1; i >= 0; --i) write_back(i, victims[i]);
    return at;
  }
  void write_back(int from, uint32_t victim) {
    for (int i = from; victim & 1; ++i) {
      ++levels_[i].write_backs;
      if (i + 1 == depth()) return;
      const uint32_t line = victim >> 1;
      victim = kEmpty;
      levels_[i + 1].touch(line, 1, victim);
    }
  }

  bool apply_;
  std::vector<LruLevel> levels_;
  std::vector<size_t> words_;
};
