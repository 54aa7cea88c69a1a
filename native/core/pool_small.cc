#include "pool_small.h"

#include <malloc.h>
#include <pthread.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>

namespace memfit {
namespace {

constexpr int kClasses = 16 + 5 * 4;
constexpr size_t kAlignment = 64;
constexpr size_t kKeptBytes = 64 << 10;
constexpr uint32_t kKeptBlocks = 64;

// The smallest class of at least so many bytes.
int class_above(size_t bytes) {
  if (bytes <= 1024) return bytes == 0 ? 0 : static_cast<int>((bytes - 1) / 64);
  const int power = 63 - __builtin_clzll(bytes - 1);  // 10: up to 2048
  return 16 + (power - 10) * 4 + static_cast<int>((bytes - 1) >> (power - 2) & 3);
}

size_t class_bytes(int number) {
  if (number < 16) return static_cast<size_t>(number + 1) * 64;
  const int power = 10 + (number - 16) / 4;
  return (size_t{1} << power) + static_cast<size_t>((number - 16) % 4 + 1) * (size_t{1} << (power - 2));
}

// The largest class that so many bytes can serve, -1: none.
int class_below(size_t bytes) {
  if (bytes < 64) return -1;
  if (bytes < 1024 + 256) return bytes >= 1024 ? 15 : static_cast<int>(bytes / 64) - 1;
  const int power = 63 - __builtin_clzll(bytes);
  const int found = 16 + (power - 10) * 4 + static_cast<int>(bytes >> (power - 2) & 3) - 1;
  return found < kClasses ? found : kClasses - 1;
}

struct Link {
  Link* next;
};

// Written by its own thread alone; the counters are read by others.
struct Cache {
  Link* first[kClasses] = {};
  uint32_t count[kClasses] = {};
  std::atomic<int64_t> allocations{0}, frees{0}, live{0}, cached{0};
  Cache* before = nullptr;
  Cache* after = nullptr;
};

void add(std::atomic<int64_t>& counter, int64_t amount) {
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

std::mutex register_lock;
Cache* threads = nullptr;
PoolSmall::Figures ended;  // of threads that ended, or have no cache
pthread_key_t key;

Cache* const kEnded = reinterpret_cast<Cache*>(1);
__attribute__((tls_model("initial-exec"))) thread_local Cache* mine = nullptr;

void empty(Cache& cache) {
  for (int number = 0; number < kClasses; ++number) {
    while (Link* link = cache.first[number]) {
      cache.first[number] = link->next;
      std::free(link);
    }
    cache.count[number] = 0;
  }
  cache.cached.store(0, std::memory_order_relaxed);
}

void end_thread(void* held) {
  auto* cache = static_cast<Cache*>(held);
  mine = kEnded;
  empty(*cache);
  {
    std::lock_guard<std::mutex> guard(register_lock);
    if (cache->before != nullptr) cache->before->after = cache->after;
    else threads = cache->after;
    if (cache->after != nullptr) cache->after->before = cache->before;
    ended.allocations += cache->allocations;
    ended.frees += cache->frees;
    ended.live_bytes += cache->live;
  }
  delete cache;
}

Cache* start_thread() {
  if (mine == kEnded) return nullptr;
  static const bool made = pthread_key_create(&key, end_thread) == 0;
  auto* cache = made ? new (std::nothrow) Cache() : nullptr;
  if (cache == nullptr || pthread_setspecific(key, cache) != 0) {
    delete cache;
    return nullptr;
  }
  std::lock_guard<std::mutex> guard(register_lock);
  cache->after = threads;
  if (threads != nullptr) threads->before = cache;
  threads = cache;
  return mine = cache;
}

inline Cache* my_cache() {
  Cache* cache = mine;
  return reinterpret_cast<uintptr_t>(cache) > 1 ? cache : start_thread();
}

void* fresh(size_t bytes) {
  void* address = nullptr;
  return posix_memalign(&address, kAlignment, bytes) == 0 ? address : nullptr;
}

int64_t usable_bytes(void* address) { return static_cast<int64_t>(malloc_usable_size(address)); }

void* counted(Cache* cache, void* address, int64_t usable) {
  if (cache != nullptr) {
    add(cache->allocations, 1);
    add(cache->live, usable);
  } else {
    std::lock_guard<std::mutex> guard(register_lock);
    ++ended.allocations;
    ended.live_bytes += usable;
  }
  return address;
}

}  // namespace

void* PoolSmall::allocate(size_t bytes) {
  const int number = class_above(bytes);
  Cache* cache = my_cache();
  if (cache != nullptr && cache->first[number] != nullptr) {
    Link* link = cache->first[number];
    cache->first[number] = link->next;
    --cache->count[number];
    const int64_t usable = usable_bytes(link);
    add(cache->cached, -usable);
    return counted(cache, link, usable);
  }
  void* address = fresh(class_bytes(number));
  return address == nullptr ? nullptr : counted(cache, address, usable_bytes(address));
}

void* PoolSmall::allocate_plain(size_t bytes) {
  void* address = fresh(bytes);
  return address == nullptr ? nullptr : counted(my_cache(), address, usable_bytes(address));
}

void* PoolSmall::allocate_plain_zeroed(size_t bytes) {
  void* address = std::calloc(bytes, 1);
  return address == nullptr ? nullptr : counted(my_cache(), address, usable_bytes(address));
}

void PoolSmall::release_plain(void* address, size_t usable) {
  if (Cache* cache = my_cache()) {
    add(cache->frees, 1);
    add(cache->live, -static_cast<int64_t>(usable));
  } else {
    std::lock_guard<std::mutex> guard(register_lock);
    ++ended.frees;
    ended.live_bytes -= static_cast<int64_t>(usable);
  }
  std::free(address);
}

void PoolSmall::release(void* address, size_t usable) {
  Cache* cache = my_cache();
  const int number = class_below(usable);
  // A block far above its class is malloc's to cut.
  if (cache == nullptr || number < 0 || usable > class_bytes(number) * 2 || cache->count[number] >= kKeptBlocks ||
      (cache->count[number] > 0 && cache->count[number] * class_bytes(number) >= kKeptBytes)) {
    release_plain(address, usable);
    return;
  }
  add(cache->frees, 1);
  add(cache->live, -static_cast<int64_t>(usable));
  auto* link = static_cast<Link*>(address);
  link->next = cache->first[number];
  cache->first[number] = link;
  ++cache->count[number];
  add(cache->cached, static_cast<int64_t>(usable));
}

PoolSmall::Figures PoolSmall::figures() {
  std::lock_guard<std::mutex> guard(register_lock);
  Figures sum = ended;
  for (const Cache* cache = threads; cache != nullptr; cache = cache->after) {
    sum.allocations += cache->allocations.load(std::memory_order_relaxed);
    sum.frees += cache->frees.load(std::memory_order_relaxed);
    sum.live_bytes += cache->live.load(std::memory_order_relaxed);
    sum.cached_bytes += cache->cached.load(std::memory_order_relaxed);
  }
  return sum;
}

void PoolSmall::flush() {
  if (reinterpret_cast<uintptr_t>(mine) > 1) empty(*mine);
}

void PoolSmall::lock() { register_lock.lock(); }
void PoolSmall::unlock() { register_lock.unlock(); }

}  // namespace memfit
