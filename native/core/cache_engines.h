// The two entries of a compiled LRU cache: see cache_lru.h for where this is included.
template <int V>
NestCounts nest_of(const CacheShape& shape, const Nest& nest, bool jump, const CacheStop& stop) {
  std::vector<uint32_t> sets;
  for (const auto& level : shape.levels) sets.push_back(level.sets);
  LruCache<V> cache(shape);
  return NestWalk<LruCache<V>>(nest, sets, cache, jump, stop).run();
}

template <int V>
CacheCounts trace_of(const CacheShape& shape, const CacheTrace& trace, const CacheStop& stop) {
  LruCache<V> cache(shape);
  return walk_trace(cache, trace, stop);
}

NestCounts nest_lru(const CacheShape& shape, const Nest& nest, bool jump, const CacheStop& stop) {
  switch ((shape.levels[0].ways + 7) / 8) {
    case 1: return nest_of<1>(shape, nest, jump, stop);
    case 2: return nest_of<2>(shape, nest, jump, stop);
    case 3: return nest_of<3>(shape, nest, jump, stop);
    case 4: return nest_of<4>(shape, nest, jump, stop);
    default: return nest_of<8>(shape, nest, jump, stop);
  }
}

CacheCounts trace_lru(const CacheShape& shape, const CacheTrace& trace, const CacheStop& stop) {
  switch ((shape.levels[0].ways + 7) / 8) {
    case 1: return trace_of<1>(shape, trace, stop);
    case 2: return trace_of<2>(shape, trace, stop);
    case 3: return trace_of<3>(shape, trace, stop);
    case 4: return trace_of<4>(shape, trace, stop);
    default: return trace_of<8>(shape, trace, stop);
  }
}
