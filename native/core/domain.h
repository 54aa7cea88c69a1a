// The account of a tenant: bytes in use, their high-water mark, and the budget that no charge goes over.
//
// A charge is one compare-and-swap loop, so that two threads at the limit never both get the last bytes. An account lives
// for ever: a block may be freed long after its domain was left, by any thread.
#pragma once
#include <atomic>
#include <cstdint>

namespace memfit {

struct DomainAccount {
  std::atomic<int64_t> used{0};
  std::atomic<int64_t> high{0};
  std::atomic<int64_t> budget{-1};  // bytes, -1: none
  std::atomic<int64_t> blocks{0};   // alive
  std::atomic<int64_t> charges{0};  // since it was opened
  std::atomic<int64_t> refused{0};
  std::atomic<int64_t> needed{0};  // bytes of the last charge that was refused
  std::atomic<int> guard{0};       // blocks lie between guard pages
  char name[56] = {};
};

// 1: charged; 0: it would go over the budget, and nothing changed but the counts of refusals.
inline int charge(DomainAccount* account, int64_t bytes) {
  int64_t before = account->used.load(std::memory_order_relaxed);
  do {
    const int64_t budget = account->budget.load(std::memory_order_relaxed);
    if (budget >= 0 && bytes > budget - before) {
      account->needed.store(bytes, std::memory_order_relaxed);
      account->refused.fetch_add(1, std::memory_order_relaxed);
      return 0;
    }
  } while (!account->used.compare_exchange_weak(before, before + bytes, std::memory_order_relaxed));
  const int64_t now = before + bytes;
  int64_t high = account->high.load(std::memory_order_relaxed);
  while (now > high && !account->high.compare_exchange_weak(high, now, std::memory_order_relaxed)) {}
  account->blocks.fetch_add(1, std::memory_order_relaxed);
  account->charges.fetch_add(1, std::memory_order_relaxed);
  return 1;
}

inline void credit(DomainAccount* account, int64_t bytes) {
  account->used.fetch_sub(bytes, std::memory_order_relaxed);
  account->blocks.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace memfit
