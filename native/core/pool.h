// The pool: blocks of NumPy arrays and tensors that are not given back to the system after each use.
//
//   up to 32 KiB     pool_small: a cache of each thread over malloc
//   above            pool_layout: first fit by address in pool_range, 4 KiB granules, one lock
//   a period known   pool_plan: the k-th request of a period gets the k-th place; the first request that differs ends that,
//                    the free parts of the plan are holes again at once, and its living blocks ordinary ones
//   no room left, or inactive     malloc
//
// Who owns an address is seen from the address, so every block may be released at any time, on any thread, in a forked
// child, and after the pool was made inactive. Nothing of the pool is ever destroyed. Under the lock nothing waits for
// another lock than malloc's, which a fork takes later; so a fork never finds the pool half changed.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pool_layout.h"
#include "pool_lock.h"
#include "pool_plan.h"
#include "pool_range.h"
#include "pool_repeats.h"
#include "pool_small.h"

namespace memfit {

struct PoolFigures {
  int64_t live_bytes = 0, live_blocks = 0;      // of the range: as requested
  int64_t allocated_bytes = 0;                  // the same, rounded to granules
  int64_t peak_live_bytes = 0, peak_allocated_bytes = 0;
  int64_t reserved_bytes = 0;                   // made usable
  int64_t touched_bytes = 0, peak_touched_bytes = 0;  // pages used since the system gave them: what can be resident
  int64_t given_back_bytes = 0;                 // over all time
  int64_t allocations = 0, frees = 0;           // of the range
  int64_t holes = 0, largest_hole_below_top = 0;
  int64_t refused = 0;                          // requests that had no room and went to malloc
  int64_t plans = 0, departures = 0, periods = 0;  // adopted, left, followed to their end
  int64_t plan_events = 0, plan_bytes = 0, plan_packed = 0;  // of the plan that is followed now
  int64_t planned = 0;                          // requests served from a plan
};

class Pool {
 public:
  // `reserve`: addresses asked for, in bytes.
  explicit Pool(int64_t reserve);
  // The one that frameworks use; made on the first call, safe around forks, never destroyed.
  static Pool& shared();

  void* allocate(size_t bytes) { return bytes <= PoolSmall::kLargest && active() ? PoolSmall::allocate(bytes) : large(bytes, nullptr); }
  void* allocate_zeroed(size_t bytes);
  // The block grown or shrunk, moved if need be; null, and the block untouched, where there is no memory.
  void* resize(void* address, size_t bytes);
  void release(void* address);
  // Bytes of a block: as requested, or, of a small one, as malloc has it.
  size_t bytes_of(const void* address) const;
  bool holds(const void* address) const { return range_.holds(address); }

  bool active() const { return active_.load(std::memory_order_relaxed); }
  void activate(bool on) { active_.store(on); }
  void set_patience(int64_t seconds) { patience_.store(seconds); }  // before unused pages are given back
  void set_planning(bool on) { planning_.store(on); }
  // The user says that a step ends here.
  void mark_step();
  // Gives back what is free; returns the bytes.
  int64_t trim();
  PoolFigures figures();
  // Addresses and bytes of the blocks that are alive in the range.
  std::vector<std::pair<uintptr_t, int64_t>> living();

  void lock() { lock_.lock(); }
  void unlock() { lock_.unlock(); }

 private:
  struct Block {
    uint32_t granules;  // 0: no block starts here
    uint32_t birth;     // how many were allocated before, modulo 2^32
    int64_t bytes;
  };
  void* large(size_t bytes, bool* clean);
  bool place(int64_t granules, int64_t& start);
  bool expected(uint64_t code, int64_t& start);
  void note(uint64_t code, int64_t start, bool matched);
  void adopt();
  void depart();
  void sweep();
  uint32_t second() const;

  PoolRange range_;
  PoolLayout layout_;
  Block* blocks_ = nullptr;  // of each granule
  PoolLock lock_;
  std::atomic<bool> active_{false}, planning_{true};
  std::atomic<int64_t> patience_{10};
  PoolRepeats repeats_;
  PoolPlan plan_;
  bool following_ = false;
  size_t cursor_ = 0;
  int64_t followed_ = 0, quiet_until_ = 0;
  uint32_t births_ = 0, swept_ = 0, until_clock_ = 0;
  int64_t live_granules_ = 0, high_ = 0;
  PoolFigures figures_;
};

}  // namespace memfit
