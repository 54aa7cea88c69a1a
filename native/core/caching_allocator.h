// The CUDA caching allocator's state and rules, compiled; the twin in allocators/caching_twin.py says them in Python.
#pragma once
#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "free_blocks.h"

namespace memfit {

struct CachingRules {
  bool expandable = false;
  int64_t max_split = int64_t{1} << 62;
  bool has_max_split = false;
  int64_t rounding = 0;
  int64_t large_segment = 0;
  double garbage_threshold = 0.0;  // 0: none is ever collected
  double memory_fraction = 1.0;
};

struct CachingQueue {
  int32_t pool;
  bool small;
};

class CachingAllocator {
 public:
  enum State : uint8_t { kFree, kUsed, kPending, kUnmapped, kGone };
  struct Change {
    int64_t event;
    int64_t reserved;
  };

  CachingAllocator(const std::vector<CachingQueue>& queues, const CachingRules& rules, int64_t capacity);
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  // The slot that serves a rounded request, or -1 when memory ran out.
  int32_t allocate(int32_t queue, int64_t size);
  void request_free(int32_t slot, int64_t block);
  void free(int32_t slot);
  void empty_cache();

  // The same for rules under which a block found is a block taken.
  int32_t allocate_plain(int32_t queue, int64_t size) {
    FreeBlocks& free = free_[queue];
    const auto place = free.lower_bound(size);
    int32_t slot;
    if (!free.at_end(place)) {
      slot = free.slot(place);
      free.erase(place);
    } else {
      slot = miss(queue, size);
      if (slot < 0) return -1;
    }
    if (blocks_[slot].size - size >= least_rest_[queue]) insert(cut(slot, size));
    blocks_[slot].state = kUsed;
    return slot;
  }
  bool plain() const { return !rules_.expandable && !collects_ && !rules_.has_max_split; }

  const CachedBlock& block(int32_t slot) const { return blocks_[slot]; }
  int64_t event = 0;
  int64_t reserved = 0;
  int64_t peak_reserved = 0;
  int64_t driver_allocations = 0;
  int64_t driver_frees = 0;
  int64_t smallest_refused = INT64_MAX;  // bytes reserved that would have been enough for the refusal that came closest
  bool keep_changes = true;
  std::vector<Change> changes;
  std::vector<int64_t> synchronised;  // blocks whose pending free a synchronisation completed

 private:
  using Unmapped = std::map<int64_t, int32_t>;  // address -> slot

  FreeBlocks::Place find(int32_t queue, int64_t size) const;
  int64_t could_grow_to(int32_t slot) const;
  int32_t miss(int32_t queue, int64_t size);
  int32_t grow(int32_t queue, int64_t size, int64_t wanted);
  bool driver_gives(int64_t nbytes);
  void collect_garbage();
  bool release_oversize(int32_t queue, int64_t size);
  void account(int64_t change);
  void give_back(int32_t slot);
  int32_t expand(int32_t queue, int64_t size);
  int32_t room(int32_t queue, int64_t size);
  int64_t page(int32_t queue) const;
  bool map_pages(int32_t slot, int64_t nbytes);
  void unmap_pages(int32_t slot);
  int64_t next_address(int64_t nbytes);
  int64_t device_bytes() const;

  int32_t place(int64_t address, int64_t size, int32_t queue, int64_t base);
  int32_t cut(int32_t slot, int64_t size);
  void insert(int32_t slot);
  void join(int32_t slot);
  void absorb(int32_t slot, int32_t other);
  void drop(int32_t slot);

  std::vector<CachingQueue> queues_;
  CachingRules rules_;
  int64_t capacity_;  // -1: none
  int64_t allowed_;
  bool collects_;
  int64_t searches_ = 0;
  int64_t next_address_ = int64_t{1} << 32;
  std::vector<CachedBlock> blocks_;
  std::vector<int64_t> base_;       // of expandable segments, by slot
  std::vector<int64_t> inserted_;   // value of searches_ when the slot became free
  std::vector<int32_t> unused_;
  std::vector<FreeBlocks> free_;
  std::vector<Unmapped> unmapped_;
  std::vector<int64_t> least_rest_;
  std::unordered_map<int32_t, int64_t> pending_;  // slot -> block
};

}  // namespace memfit
