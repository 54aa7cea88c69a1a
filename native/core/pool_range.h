// The addresses of the pool: one reserved range, made usable as it grows, in huge pages, given back where long unused.
//
// Every block of the pool lies in it, so `holds` is one comparison and says who owns an address. A page of 2 MiB is
// *clean* while nobody used it since the system gave it (it reads as zeros and costs no memory), else it carries the
// second of its last use. Nothing is ever unmapped: blocks may outlive everything else. Cost: O(1) and O(pages of a block).
#pragma once
#include <cstddef>
#include <cstdint>

namespace memfit {

class PoolRange {
 public:
  static constexpr int64_t kGranule = 4096;
  static constexpr int64_t kPage = 2 << 20;

  // Reserves up to `bytes`, half of it again and again where the system refuses; `size` is 0 where it refuses all.
  explicit PoolRange(int64_t bytes);
  PoolRange(const PoolRange&) = delete;

  int64_t size() const { return size_; }
  char* at(int64_t offset) const { return base_ + offset; }
  int64_t offset(const void* address) const { return static_cast<const char*>(address) - base_; }
  bool holds(const void* address) const {
    return reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(base_) < static_cast<uint64_t>(size_);
  }
  // Makes [0, end) usable; false where the system refuses.
  bool commit(int64_t end);
  int64_t committed() const { return committed_; }

  // The bytes [start, end) are handed out, or given back, at `second`; says whether all of them were clean.
  bool use(int64_t start, int64_t end, uint32_t second);
  // Gives the whole pages in the free range [start, end) back that were last used before `second`; returns their bytes.
  int64_t give_back(int64_t start, int64_t end, uint32_t second);
  // Drops the contents of [start, end): it reads as zeros. Bytes of partial granules are written.
  void clear(int64_t start, int64_t end);
  // Bytes of pages that are not clean: an upper bound of what is resident.
  int64_t touched() const { return touched_pages_ * kPage; }

 private:
  char* base_ = nullptr;
  int64_t size_ = 0, committed_ = 0, touched_pages_ = 0;
  uint32_t* used_ = nullptr;  // of each page: 0 clean, else the second of its last use + 1
};

}  // namespace memfit
