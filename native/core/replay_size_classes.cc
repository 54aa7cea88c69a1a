#include "replay_size_classes.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "ranges.h"

namespace memfit {
namespace {

constexpr int64_t kPage = 4096, kQuantum = 16, kLargestSlot = 14 << 10, kFirstRegion = 2 << 20, kRegionGap = 2 << 20;
constexpr int kClasses = 64;  // of slots; 16 .. 14336 bytes

int64_t size_class(int64_t nbytes) {
  if (nbytes <= 8 * kQuantum) return rounded_up(nbytes, kQuantum);
  const int64_t step = int64_t{1} << (highest_bit(static_cast<uint64_t>(nbytes - 1)) - 2);
  return (nbytes + step - 1) & ~(step - 1);
}

// 0.. in order of size.
int class_number(int64_t size) {
  if (size <= 8 * kQuantum) return static_cast<int>(size / kQuantum) - 1;
  const int high = highest_bit(static_cast<uint64_t>(size - 1));
  return 8 + (high - 7) * 4 + static_cast<int>((size - 1 - (int64_t{1} << high)) >> (high - 2));
}

struct Slab {
  Ranges::Index extent;
  int64_t address;
  int32_t slots, used;
  uint64_t taken[4];  // one bit a slot; 256 slots at most

  int lowest_free() const {
    for (int word = 0;; ++word)
      if (~taken[word]) return word * 64 + lowest_bit(~taken[word]);
  }
};

struct SlabHeap {
  using Handle = int64_t;  // extent: its index; slot: -1 - number of the slab
  struct Region {
    int64_t address, bytes;
    Ranges::Index first;
  };

  int64_t capacity;
  int64_t reserved = 0, driver_allocations = 0, driver_frees = 0;
  int64_t end = 0, next_region = kFirstRegion;
  Ranges ranges;
  std::vector<Region> regions;
  std::vector<Slab> slabs;
  std::vector<int64_t> spare_slabs;
  std::map<int64_t, int64_t> with_room[kClasses];  // address -> slab

  explicit SlabHeap(int64_t limit) : capacity(limit) {}

  Grant<Handle> allocate(int64_t nbytes) {
    const int64_t size = size_class(nbytes);
    if (size > kLargestSlot) {
      const Ranges::Index extent = take(size);
      if (extent == Ranges::kNone) return {0, -1, 0};
      return {ranges[extent].address, size, extent};
    }
    auto& room = with_room[class_number(size)];
    if (room.empty() && !new_slab(size, room)) return {0, -1, 0};
    const int64_t number = room.begin()->second;
    Slab& slab = slabs[static_cast<size_t>(number)];
    const int slot = slab.lowest_free();
    slab.taken[slot / 64] |= uint64_t{1} << (slot % 64);
    if (++slab.used == slab.slots) room.erase(room.begin());
    return {slab.address + slot * size, size, -1 - number};
  }

  void free(int64_t address, int64_t bytes, Handle handle) {
    if (handle >= 0) {
      ranges.release(static_cast<Ranges::Index>(handle));
      return;
    }
    const int64_t number = -1 - handle;
    Slab& slab = slabs[static_cast<size_t>(number)];
    auto& room = with_room[class_number(bytes)];
    if (slab.used == slab.slots) room.emplace(slab.address, number);
    const auto slot = (address - slab.address) / bytes;
    slab.taken[slot / 64] &= ~(uint64_t{1} << (slot % 64));
    if (--slab.used == 0) {
      room.erase(slab.address);
      ranges.release(slab.extent);
      spare_slabs.push_back(number);
    }
  }

  void empty_cache() {
    size_t kept = 0;
    for (const Region& region : regions) {
      if (ranges[region.first].free && ranges[region.first].after == Ranges::kNone) {
        ranges.unbin(region.first);
        ranges.remove(region.first);
        reserved -= region.bytes;
        ++driver_frees;
      } else {
        regions[kept++] = region;
      }
    }
    regions.resize(kept);
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
  bool new_slab(int64_t size, std::map<int64_t, int64_t>& room) {
    const int64_t bytes = std::lcm(kPage, size);
    const Ranges::Index extent = take(bytes);
    if (extent == Ranges::kNone) return false;
    int64_t number = static_cast<int64_t>(slabs.size());
    if (spare_slabs.empty()) {
      slabs.emplace_back();
    } else {
      number = spare_slabs.back();
      spare_slabs.pop_back();
    }
    const auto slots = static_cast<int32_t>(bytes / size);
    slabs[static_cast<size_t>(number)] = Slab{extent, ranges[extent].address, slots, 0, {}};
    room.emplace(ranges[extent].address, number);
    return true;
  }

  Ranges::Index take(int64_t size) {
    Ranges::Index found = ranges.best(size);
    if (found == Ranges::kNone) {
      if (!grow(size)) return Ranges::kNone;
      found = regions.back().first;
    }
    ranges.take(found, size, true);
    return found;
  }

  bool grow(int64_t size) {
    const int64_t wanted = std::max(next_region, size_class(size));
    int64_t made = wanted;
    if (capacity >= 0 && made > capacity - reserved) {
      made = (capacity - reserved) / kPage * kPage;
      if (made < size) return false;
    }
    next_region = size_class(wanted + 1);
    const int64_t start = rounded_up(end, kRegionGap) + kRegionGap;
    regions.push_back(Region{start, made, ranges.release(ranges.add(start, made, Ranges::kNone))});
    end = start + made;
    reserved += made;
    ++driver_allocations;
    return true;
  }
};

}  // namespace

ReplayOutcome replay_size_classes(const RequestColumns& in, int64_t capacity, bool series, const Stop& stop) {
  return serve(SlabHeap(capacity), in, series, stop);
}

}  // namespace memfit
