// Runs a recorded trace through a cache. Included where a cache is compiled, as cache_lru.h is.
//
// By blocks that stay in the first level of this machine: addresses become line * 2 + write, with vectors, whatever their
// width, and whether they lie near enough to be numbered in 31 bits is looked at on the way. Then the cache runs the block.
template <class Address>
uint64_t lines_of(const CacheTrace& trace, const Address* address, int64_t from, int64_t count, uint32_t* lines) {
  const uint64_t first = trace.first_line;
  const int shift = trace.line_shift;
  uint64_t farthest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t number = (static_cast<uint64_t>(address[from + i]) >> shift) - first;
    farthest |= number;
    lines[i] = static_cast<uint32_t>(number) << 1;
  }
  if (trace.write)
    for (int64_t i = 0; i < count; ++i) lines[i] |= trace.write[from + i] != 0;
  if (farthest <= kMostLine) return farthest;
  farthest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t number = (static_cast<uint64_t>(address[from + i]) >> shift) - first;
    farthest = number > farthest ? number : farthest;
  }
  return farthest;
}

inline size_t array_of(const std::vector<NestArray>& arrays, uint32_t line) {
  size_t a = 0;
  while (a < arrays.size() && (line < arrays[a].first_line || line > arrays[a].last_line)) ++a;
  return a;
}

// A block of entries (line * 2 + write), access by access; returns how many hit the first level, the others are `served`.
template <class Cache>
class BlockWalk {
 public:
  BlockWalk(Cache& cache, const std::vector<NestArray>& arrays, int64_t /* block */) : cache_(cache), arrays_(arrays) {}
  int64_t run(const uint32_t* lines, int64_t count, int64_t* served) {
    const int depths = cache_.depth() + 1;
    int64_t hits = 0;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t line = lines[i] >> 1;
      const int depth = cache_.access(cache_.front(), line, lines[i] & 1);
      if (depth == 0)
        ++hits;
      else
        ++served[array_of(arrays_, line) * depths + depth];
    }
    return hits;
  }

 private:
  Cache& cache_;
  const std::vector<NestArray>& arrays_;
};

// The same level by level: where no level hears of another but by what it is asked for, the order within each is the same,
// and each runs in a loop of its own that calls nothing.
template <int V>
class BlockWalk<LruCache<V>> {
 public:
  BlockWalk(LruCache<V>& cache, const std::vector<NestArray>& arrays, int64_t block)
      : cache_(cache), arrays_(arrays), entries_(2, std::vector<uint32_t>(block * 2 * (cache.depth() + 1))) {}
  int64_t run(const uint32_t* lines, int64_t count, int64_t* served) {
    const int depths = cache_.depth() + 1;
    const size_t many = arrays_.size();
    int64_t asked = count, hits = 0;
    for (int level = 0; level + 1 < depths && asked; ++level) {
      auto& out = entries_[level & 1];
      asked = cache_.filter(level, lines, asked, out.data());
      lines = out.data();
      int64_t missed = 0;
      for (int64_t i = 0; i < asked; ++i) {
        if (lines[i] & 1) continue;  // a displaced line
        ++missed;
        if (many == 0) continue;
        const size_t a = array_of(arrays_, lines[i] >> 1);
        ++served[a * depths + level + 1];
        if (level) --served[a * depths + level];
      }
      if (many == 0) served[level + 1] += missed;
      if (many == 0 && level) served[level] -= missed;
      if (level == 0) hits = count - missed;
    }
    return hits;
  }

 private:
  LruCache<V>& cache_;
  const std::vector<NestArray>& arrays_;
  std::vector<std::vector<uint32_t>> entries_;
};

template <class Cache>
CacheCounts walk_trace(Cache& cache, const CacheTrace& trace, const CacheStop& stop) {
  constexpr int64_t kBlock = 1 << 11, kAsk = 1 << 13;  // accesses; blocks between two questions
  CacheCounts counts;
  counts.served.assign((trace.arrays.size() + 1) * (cache.depth() + 1), 0);
  int64_t& hits = counts.served[trace.arrays.size() * (cache.depth() + 1)];  // who hit is known from the trace alone
  uint32_t lines[kBlock];
  BlockWalk<Cache> walk(cache, trace.arrays, kBlock);
  int64_t blocks = 0;
  for (int64_t from = 0; from < trace.count; from += kBlock) {
    const int64_t count = std::min(kBlock, trace.count - from);
    const uint64_t farthest = trace.wide ? lines_of(trace, trace.wide, from, count, lines)
                                         : lines_of(trace, trace.narrow, from, count, lines);
    counts.near = farthest <= kMostLine;
    if (!counts.near) break;
    hits += walk.run(lines, count, counts.served.data());
    if (++blocks % kAsk == 0 && stop && stop()) break;
  }
  for (int i = 0; i < cache.depth(); ++i) {
    counts.write_backs.push_back(cache.write_backs(i));
    counts.prefetches.push_back(cache.prefetches(i));
  }
  return counts;
}
