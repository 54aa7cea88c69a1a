// Address -> block, for every block that the hook handed out and that is still alive.
//
// Linear probing with backward-shift deletion (Knuth, TAOCP 3, algorithm R of 6.4): no tombstones, so a long run of
// allocations and frees does not slow it down. Expected O(1). At most 1/2 full.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace memfit {

struct Block {
  void* address = nullptr;
  int64_t bytes = 0;
  int64_t number = 0;
  void (*deleter)(void*) = nullptr;  // what really frees it
};

class BlockTable {
 public:
  BlockTable() : slots_(1024) {}

  void insert(const Block& block) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    size_t at = home(block.address);
    while (slots_[at].address != nullptr) at = next(at);
    slots_[at] = block;
    ++size_;
  }

  const Block* find(const void* address) const {
    for (size_t at = home(address); slots_[at].address != nullptr; at = next(at))
      if (slots_[at].address == address) return &slots_[at];
    return nullptr;
  }

  bool remove(const void* address, Block& removed) {
    size_t hole = home(address);
    while (slots_[hole].address != address) {
      if (slots_[hole].address == nullptr) return false;
      hole = next(hole);
    }
    removed = slots_[hole];
    for (size_t at = next(hole); slots_[at].address != nullptr; at = next(at)) {
      const size_t wanted = home(slots_[at].address);
      const bool stays = hole <= at ? (hole < wanted && wanted <= at) : (hole < wanted || wanted <= at);
      if (stays) continue;
      slots_[hole] = slots_[at];
      hole = at;
    }
    slots_[hole].address = nullptr;
    --size_;
    return true;
  }

  size_t size() const { return size_; }
  size_t bytes() const { return slots_.size() * sizeof(Block); }
  const std::vector<Block>& slots() const { return slots_; }

 private:
  size_t home(const void* address) const {
    return static_cast<size_t>((reinterpret_cast<uintptr_t>(address) >> 4) * 0x9E3779B97F4A7C15ull >> 20) & (slots_.size() - 1);
  }
  size_t next(size_t at) const { return (at + 1) & (slots_.size() - 1); }
  void grow() {
    std::vector<Block> old(slots_.size() * 2);
    old.swap(slots_);
    size_ = 0;
    for (const Block& block : old)
      if (block.address != nullptr) insert(block);
  }

  std::vector<Block> slots_;
  size_t size_ = 0;
};

}  // namespace memfit
