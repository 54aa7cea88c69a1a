#include "replay_chunks.h"

#include "ranges.h"

namespace memfit {
namespace {

constexpr int64_t kRounding = 256;
constexpr int64_t kRegionGap = 2 << 20;

struct ChunkHeap {
  using Handle = Ranges::Index;
  struct Region {
    int64_t number, address, bytes;
    Handle first;
  };

  Growth growth;
  int64_t capacity;
  int64_t reserved = 0, driver_allocations = 0, driver_frees = 0;
  int64_t made = 0, end = 0, next_region;
  Ranges ranges;
  std::vector<Region> regions;

  ChunkHeap(const Growth& rules, int64_t limit) : growth(rules), capacity(limit) {
    int64_t size = capacity < 0 ? growth.first : std::min(growth.first, capacity);
    if (growth.everything && capacity >= 0) size = capacity;
    next_region = std::max(rounded_up(size, kRounding), kRounding);
  }

  Grant<Handle> allocate(int64_t nbytes) {
    const int64_t size = (nbytes + kRounding - 1) & ~(kRounding - 1);
    Handle found = ranges.best(size);
    if (found == Ranges::kNone) {
      if (!extend(size) && !(collect(size) && extend(size))) return {0, -1, Ranges::kNone};
      found = ranges.best(size);
    }
    const int64_t bytes = ranges[found].bytes;
    ranges.take(found, size, bytes >= 2 * size || bytes - size >= growth.spare);
    return {ranges[found].address, ranges[found].bytes, found};
  }

  void free(int64_t, int64_t, Handle handle) { ranges.release(handle); }

  void empty_cache() {
    if (!growth.shrinks) return;
    give_back([this](const Region& region) { return !(growth.keeps_first && region.number == 0); });
    next_region = rounded_up(growth.after_shrink, kRounding);
  }

  void segments(std::vector<int64_t>& address, std::vector<int64_t>& bytes) const {
    address.clear();
    bytes.clear();
    for (const Region& region : regions) {
      address.push_back(region.address);
      bytes.push_back(region.bytes);
    }
  }

 private:
  // A region's first chunk keeps its index: joins keep the lower index, splits the front.
  bool idle(const Region& region) {
    return ranges[region.first].free && ranges[region.first].after == Ranges::kNone;
  }

  bool extend(int64_t size) {
    const int64_t available = capacity < 0 ? -1 : (capacity - reserved) / kRounding * kRounding;
    if (capacity >= 0 && size > available) return false;
    int64_t bytes = size;
    if (growth.doubles) {
      const bool enough = size <= next_region;
      while (next_region < size) next_region *= 2;
      bytes = capacity < 0 ? next_region : std::min(next_region, available);
      if (enough) double_next();
    }
    ++driver_allocations;
    reserved += bytes;
    if (growth.joins && !regions.empty()) {
      Region& last = regions.back();
      Handle tail = last.first;
      while (ranges[tail].after != Ranges::kNone) tail = ranges[tail].after;
      ranges.release(ranges.add(end, bytes, tail));
      last.bytes += bytes;
      end += bytes;
    } else {
      const int64_t start = rounded_up(end, kRegionGap) + kRegionGap;
      const Handle only = ranges.release(ranges.add(start, bytes, Ranges::kNone));
      regions.push_back(Region{made++, start, bytes, only});
      end = start + bytes;
    }
    return true;
  }

  void double_next() {
    if (growth.largest && next_region >= growth.largest / 2) {
      next_region = rounded_up(growth.largest, kRounding);
    } else if (next_region < int64_t{1} << 60) {
      next_region *= 2;
    }
  }

  bool collect(int64_t size) {
    if (!growth.collects || capacity < 0) return false;
    int64_t idle_bytes = 0;
    for (const Region& region : regions)
      if (idle(region)) idle_bytes += region.bytes;
    if (idle_bytes == 0 || size > capacity - reserved + idle_bytes) return false;
    give_back([](const Region&) { return true; });
    return true;
  }

  template <class Allowed>
  void give_back(Allowed allowed) {
    size_t kept = 0;
    for (size_t i = 0; i < regions.size(); ++i) {
      if (idle(regions[i]) && allowed(regions[i])) {
        ranges.unbin(regions[i].first);
        ranges.remove(regions[i].first);
        reserved -= regions[i].bytes;
        ++driver_frees;
      } else {
        regions[kept++] = regions[i];
      }
    }
    regions.resize(kept);
  }
};

}  // namespace

ReplayOutcome replay_chunks(const RequestColumns& in, int64_t capacity, bool series, const Growth& growth,
                            const Stop& stop) {
  return serve(ChunkHeap(growth, capacity), in, series, stop);
}

}  // namespace memfit
