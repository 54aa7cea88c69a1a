// torch's CPU allocator that asks memfit's pool for every block; the pool itself is in memfit's core, reached by address.
//
// A block keeps the deleter of the pool, which knows its own blocks by their address: tensors that are alive when the pool
// is uninstalled are freed right. This library is never unloaded.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

void* (*pool_allocate)(std::size_t) = nullptr;
void (*pool_release)(void*) = nullptr;

void release(void* block) {
  if (block == nullptr) return;
  c10::profiledCPUMemoryReporter().Delete(block);
  pool_release(block);
}

class PoolAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, c10::Device(c10::DeviceType::CPU)};
    void* block = pool_allocate(bytes);
    if (block == nullptr) {
      c10::profiledCPUMemoryReporter().OutOfMemory(bytes);
      TORCH_CHECK(false, "memfit pool: can't allocate memory: you tried to allocate ", bytes, " bytes");
    }
    c10::profiledCPUMemoryReporter().New(block, bytes);
    return {block, block, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override { std::memcpy(to, from, count); }
};

PoolAllocator& allocator() {
  static auto* instance = new PoolAllocator();  // storages keep a pointer to it: lives for ever
  return *instance;
}

c10::Allocator* before = nullptr;

// Only an equal or higher priority replaces an allocator; the lowest one that works leaves room for others.
bool replace(c10::Allocator* wanted) {
  for (const std::uint8_t priority : {0, 1, 100, 255}) {
    c10::SetCPUAllocator(wanted, priority);
    if (c10::GetCPUAllocator() == wanted) return true;
  }
  return false;
}

}  // namespace

extern "C" {

// 0: in place; 2: torch did not take the allocator; 3: another one than torch's own is in place.
int memfit_pool_install(void* (*allocate)(std::size_t), void (*free_block)(void*)) {
  pool_allocate = allocate;
  pool_release = free_block;
  if (c10::GetCPUAllocator() == &allocator()) return 0;
  if (c10::GetCPUAllocator() != c10::GetDefaultCPUAllocator()) return 3;
  before = c10::GetCPUAllocator();
  return replace(&allocator()) ? 0 : 2;
}

// 0: torch's own allocator is back; 1: another one was put over ours, which stays as a passage to malloc.
int memfit_pool_uninstall() {
  if (before == nullptr) return 0;
  if (c10::GetCPUAllocator() != &allocator()) return 1;
  return replace(before) ? 0 : 1;
}

}  // extern "C"
