// Blocks below 32 KiB: a cache of each thread over malloc, by size classes, without a lock.
//
//   classes   64 128 ... 1024 | 1280 1536 1792 2048 | ... | 32768         every 64 bytes, then four a doubling
//
// What a thread frees it hands out again, last freed first; a class keeps at most 64 KiB and 64 blocks, the rest goes back
// to malloc, which also serves a cache that is empty. So a block is malloc's own: it may be freed anywhere, after a fork,
// after uninstall. A thread that ends hands its cache back. Cost: O(1), a few nanoseconds.
#pragma once
#include <cstddef>
#include <cstdint>

namespace memfit {

class PoolSmall {
 public:
  static constexpr size_t kLargest = 32 << 10;

  struct Figures {
    int64_t allocations = 0, frees = 0;  // calls
    int64_t live_bytes = 0;              // as malloc rounds them
    int64_t cached_bytes = 0;
  };

  static void* allocate(size_t bytes);  // bytes <= kLargest
  // Of any size from malloc itself, counted like the others and released like them.
  static void* allocate_plain(size_t bytes);
  static void* allocate_plain_zeroed(size_t bytes);
  static void release(void* address, size_t usable);
  // To malloc at once.
  static void release_plain(void* address, size_t usable);
  // Over all threads, those that ended included.
  static Figures figures();
  // Hands this thread's cache back to malloc.
  static void flush();
  // Around a fork: no other thread is inside the register of threads.
  static void lock();
  static void unlock();
};

}  // namespace memfit
