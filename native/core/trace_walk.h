// Runs a recorded trace through a cache. Included where a cache is compiled, as cache_lru.h is.
template <class Cache, class Address, bool kWrites>
void walk_slice(Cache& cache, const CacheTrace& trace, const Address* address, int64_t from, int64_t to,
                std::vector<int64_t>& served) {
  const auto first = static_cast<uint32_t>(trace.first_line);
  const int shift = trace.line_shift, depths = cache.depth() + 1;
  const size_t many = trace.arrays.size();
  int64_t hits = 0;
  int64_t deeper[18] = {};
  for (int64_t i = from; i < to; ++i) {
    const uint32_t line = static_cast<uint32_t>(address[i] >> shift) - first;
    const int depth = cache.access(line, kWrites ? trace.write[i] : 0);
    if (depth == 0)
      ++hits;
    else if (many == 0)
      ++deeper[depth];
    else {
      size_t a = 0;
      while (a < many && (line < trace.arrays[a].first_line || line > trace.arrays[a].last_line)) ++a;
      ++served[a * depths + depth];
    }
  }
  served[many * depths] += hits;  // who hit is known from the trace alone
  for (int d = 1; d < depths; ++d) served[many * depths + d] += deeper[d];
}

template <class Cache>
CacheCounts walk_trace(Cache& cache, const CacheTrace& trace, const CacheStop& stop) {
  constexpr int64_t kSlice = 1 << 24;
  CacheCounts counts;
  counts.served.assign((trace.arrays.size() + 1) * (cache.depth() + 1), 0);
  for (int64_t from = 0; from < trace.count; from += kSlice) {
    const int64_t to = std::min(from + kSlice, trace.count);
    if (trace.wide && trace.write)
      walk_slice<Cache, uint64_t, true>(cache, trace, trace.wide, from, to, counts.served);
    else if (trace.wide)
      walk_slice<Cache, uint64_t, false>(cache, trace, trace.wide, from, to, counts.served);
    else if (trace.write)
      walk_slice<Cache, uint32_t, true>(cache, trace, trace.narrow, from, to, counts.served);
    else
      walk_slice<Cache, uint32_t, false>(cache, trace, trace.narrow, from, to, counts.served);
    if (stop && stop()) break;
  }
  for (int i = 0; i < cache.depth(); ++i) {
    counts.write_backs.push_back(cache.write_backs(i));
    counts.prefetches.push_back(cache.prefetches(i));
  }
  return counts;
}
