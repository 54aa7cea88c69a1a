#include "pool_range.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>

namespace memfit {
namespace {

constexpr int64_t kStep = 64 << 20;

// Under a limit of addresses the pool leaves half of what is left to others.
int64_t allowed(int64_t bytes) {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return bytes;
  return std::min<int64_t>(bytes, static_cast<int64_t>(limit.rlim_cur / 2));
}

}  // namespace

PoolRange::PoolRange(int64_t bytes) {
  for (int64_t size = allowed(bytes) / kPage * kPage; size >= kStep; size = size / 2 / kPage * kPage) {
    void* found = mmap(nullptr, static_cast<size_t>(size + kPage), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) continue;
    void* marks = mmap(nullptr, static_cast<size_t>(size / kPage) * sizeof(uint32_t), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (marks == MAP_FAILED) {
      munmap(found, static_cast<size_t>(size + kPage));
      continue;
    }
    const auto address = (reinterpret_cast<uintptr_t>(found) + kPage - 1) / kPage * kPage;
    base_ = reinterpret_cast<char*>(address);
    used_ = static_cast<uint32_t*>(marks);
    size_ = size;
    return;
  }
}

bool PoolRange::commit(int64_t end) {
  if (end <= committed_) return true;
  if (end > size_) return false;
  const int64_t wanted = std::min(size_, (end + kStep - 1) / kStep * kStep);
  char* from = base_ + committed_;
  const auto bytes = static_cast<size_t>(wanted - committed_);
  if (mprotect(from, bytes, PROT_READ | PROT_WRITE) != 0) return false;
#ifdef MADV_HUGEPAGE
  madvise(from, bytes, MADV_HUGEPAGE);  // where the system has none, small pages do
#endif
  committed_ = wanted;
  return true;
}

bool PoolRange::use(int64_t start, int64_t end, uint32_t second) {
  bool clean = true;
  for (int64_t page = start / kPage; page * kPage < end; ++page) {
    if (used_[page] == 0) {
      ++touched_pages_;
    } else {
      clean = false;
    }
    used_[page] = second + 1;
  }
  return clean;
}

int64_t PoolRange::give_back(int64_t start, int64_t end, uint32_t second) {
  int64_t given = 0;
  const int64_t last = end / kPage;
  for (int64_t page = (start + kPage - 1) / kPage; page < last; ++page) {
    int64_t stop = page;
    while (stop < last && used_[stop] != 0 && used_[stop] <= second) ++stop;
    if (stop == page) continue;
    if (madvise(base_ + page * kPage, static_cast<size_t>((stop - page) * kPage), MADV_DONTNEED) == 0) {
      std::fill(used_ + page, used_ + stop, 0u);
      touched_pages_ -= stop - page;
      given += (stop - page) * kPage;
    }
    page = stop;
  }
  return given;
}

void PoolRange::clear(int64_t start, int64_t end) {
  const int64_t whole = end / kGranule * kGranule;
  if (start >= whole || madvise(base_ + start, static_cast<size_t>(whole - start), MADV_DONTNEED) != 0) {
    std::memset(base_ + start, 0, static_cast<size_t>(end - start));
  } else {
    std::memset(base_ + whole, 0, static_cast<size_t>(end - whole));
  }
}

}  // namespace memfit
