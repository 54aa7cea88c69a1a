#include "replay_buddy.h"

#include <algorithm>

#include "ranges.h"

namespace memfit {
namespace {

constexpr int kOrders = 62;

// Addresses in order, the lowest first; a short vector as a rule, sorted downward so that the lowest is at the end.
class Addresses {
 public:
  bool empty() const { return values_.empty(); }
  int64_t pop_lowest() {
    const int64_t lowest = values_.back();
    values_.pop_back();
    return lowest;
  }
  void insert(int64_t address) { values_.insert(place(address), address); }
  bool erase(int64_t address) {
    const auto at = place(address);
    if (at == values_.end() || *at != address) return false;
    values_.erase(at);
    return true;
  }

 private:
  std::vector<int64_t>::iterator place(int64_t address) {
    return std::lower_bound(values_.begin(), values_.end(), address, std::greater<int64_t>());
  }
  std::vector<int64_t> values_;
};

struct BuddyHeap {
  using Handle = int32_t;  // the order
  int64_t capacity;
  int smallest, granule;
  int64_t reserved = 0, driver_allocations = 0, driver_frees = 0;
  Addresses free_blocks[kOrders];
  uint64_t orders = 0;  // those with a free block

  BuddyHeap(int64_t limit, int smallest_order, int granule_order)
      : capacity(limit), smallest(smallest_order), granule(granule_order) {}

  Grant<Handle> allocate(int64_t nbytes) {
    const int order = nbytes <= 1 ? smallest : std::max(smallest, highest_bit(static_cast<uint64_t>(nbytes - 1)) + 1);
    uint64_t fitting = orders >> order << order;
    if (!fitting) {
      if (!grow(order)) return {0, -1, 0};
      fitting = orders >> order << order;
    }
    int found = lowest_bit(fitting);
    const int64_t address = free_blocks[found].pop_lowest();
    if (free_blocks[found].empty()) orders &= ~(uint64_t{1} << found);
    while (found > order) {
      --found;
      put(found, address + (int64_t{1} << found));
    }
    return {address, int64_t{1} << order, order};
  }

  void free(int64_t address, int64_t, Handle order) { release(address, order); }

  void empty_cache() {
    bool lowered = false;
    for (;;) {
      int order = granule;
      for (; order < kOrders; ++order) {
        if (!(orders >> order & 1)) continue;
        const int64_t start = reserved - (int64_t{1} << order);
        if (start >= 0 && free_blocks[order].erase(start)) break;
      }
      if (order == kOrders) break;
      if (free_blocks[order].empty()) orders &= ~(uint64_t{1} << order);
      reserved -= int64_t{1} << order;
      lowered = true;
    }
    driver_frees += lowered;
  }

  void segments(std::vector<int64_t>& address, std::vector<int64_t>& bytes) const {
    address.assign(1, 0);
    bytes.assign(1, reserved);
  }

 private:
  void put(int order, int64_t address) {
    free_blocks[order].insert(address);
    orders |= uint64_t{1} << order;
  }

  void release(int64_t address, int order) {
    while (orders >> order & 1 && free_blocks[order].erase(address ^ (int64_t{1} << order))) {
      if (free_blocks[order].empty()) orders &= ~(uint64_t{1} << order);
      address &= ~(int64_t{1} << order);
      ++order;
    }
    put(order, address);
  }

  bool grow(int order) {
    int made = std::max(order, granule);
    int64_t base = rounded_up(reserved, int64_t{1} << made);
    if (capacity >= 0 && base + (int64_t{1} << made) > capacity) {
      made = order;
      base = rounded_up(reserved, int64_t{1} << made);
      if (base + (int64_t{1} << made) > capacity) return false;
    }
    while (reserved < base) {  // what lies below the alignment becomes free blocks of rising orders
      const int gap = lowest_bit(static_cast<uint64_t>(reserved));
      const int64_t start = reserved;
      reserved += int64_t{1} << gap;
      release(start, gap);
    }
    reserved = base + (int64_t{1} << made);
    ++driver_allocations;
    release(base, made);
    return true;
  }
};

}  // namespace

ReplayOutcome replay_buddy(const RequestColumns& in, int64_t capacity, bool series, int smallest, int granule,
                           const Stop& stop) {
  return serve(BuddyHeap(capacity, smallest, granule), in, series, stop);
}

}  // namespace memfit
