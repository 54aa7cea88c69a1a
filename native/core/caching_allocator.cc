#include "caching_allocator.h"

namespace memfit {

namespace {

constexpr int64_t kMinimumBlock = 512;
constexpr int64_t kSmallRequest = 1 << 20;
constexpr int64_t kSmallSegment = 2 << 20;
constexpr int64_t kLargeRequest = 10 << 20;
constexpr int64_t kSegmentRounding = 2 << 20;
constexpr int64_t kUnlimited = int64_t{1} << 44;

int64_t rounded_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

}  // namespace

CachingAllocator::CachingAllocator(const std::vector<CachingQueue>& queues, const CachingRules& rules, int64_t capacity)
    : queues_(queues), rules_(rules), capacity_(capacity) {
  allowed_ = static_cast<int64_t>(rules.memory_fraction * static_cast<double>(device_bytes()));
  collects_ = rules.garbage_threshold > 0 && capacity >= 0;
  free_.reserve(queues_.size());
  for (const auto& queue : queues_) {
    free_.emplace_back(&blocks_);
    least_rest_.push_back(queue.small || rules.expandable ? kMinimumBlock : kSmallRequest + 1);
  }
  unmapped_.resize(queues_.size());
}

int64_t CachingAllocator::device_bytes() const { return capacity_ < 0 ? kUnlimited : capacity_; }

int32_t CachingAllocator::allocate(int32_t queue, int64_t size) {
  if (collects_ && queues_[queue].pool == 0 && !queues_[queue].small) ++searches_;
  const auto found = find(queue, size);
  int32_t slot;
  if (free_[queue].at_end(found)) {
    slot = miss(queue, size);
    if (slot < 0) return -1;
  } else {
    slot = free_[queue].slot(found);
    free_[queue].erase(found);
  }
  const int64_t rest = blocks_[slot].size - size;
  if (rest >= least_rest_[queue] && (size < rules_.max_split || queues_[queue].small || rules_.expandable)) insert(cut(slot, size));
  blocks_[slot].state = kUsed;
  return slot;
}

void CachingAllocator::request_free(int32_t slot, int64_t block) {
  blocks_[slot].state = kPending;
  pending_.emplace(slot, block);
}

void CachingAllocator::free(int32_t slot) {
  if (blocks_[slot].state == kPending) pending_.erase(slot);
  join(slot);
  insert(slot);
}

void CachingAllocator::empty_cache() {
  auto waiting = std::move(pending_);
  pending_.clear();
  for (const auto& [slot, block] : waiting) {
    blocks_[slot].state = kUsed;
    free(slot);
    synchronised.push_back(block);
  }
  std::vector<int32_t> whole;
  for (size_t queue = 0; queue < queues_.size(); ++queue) {
    if (queues_[queue].pool != 0) continue;
    whole.clear();
    free_[queue].each([&](int32_t slot) {
      if (rules_.expandable || (blocks_[slot].before < 0 && blocks_[slot].after < 0)) whole.push_back(slot);
    });
    for (const int32_t slot : whole) rules_.expandable ? unmap_pages(slot) : give_back(slot);
  }
}

FreeBlocks::Place CachingAllocator::find(int32_t queue, int64_t size) const {
  const FreeBlocks& free = free_[queue];
  const FreeBlocks::Place nothing{FreeBlocks::kEnd, 0};
  auto place = free.lower_bound(size);
  if (free.at_end(place)) return nothing;
  if (rules_.expandable) {
    int64_t grown = could_grow_to(free.slot(place));
    for (auto other = free.next(place); !free.at_end(other); other = free.next(other)) {
      const int64_t larger = could_grow_to(free.slot(other));
      if (larger >= grown) break;
      grown = larger;
      place = other;
    }
  }
  const int64_t held = blocks_[free.slot(place)].size;
  if (size < rules_.max_split ? held >= rules_.max_split : held >= size + rules_.rounding) return nothing;
  return place;
}

int64_t CachingAllocator::could_grow_to(int32_t slot) const {
  const CachedBlock& block = blocks_[slot];
  const bool grows = block.after >= 0 && blocks_[block.after].state == kUnmapped;
  return block.size + (grows ? blocks_[block.after].size : 0);
}

int32_t CachingAllocator::miss(int32_t queue, int64_t size) {
  const int64_t wanted = size <= kSmallRequest ? kSmallSegment : size < kLargeRequest ? rules_.large_segment : rounded_up(size, kSegmentRounding);
  if (collects_) collect_garbage();
  int32_t slot = grow(queue, size, wanted);
  if (slot < 0 && rules_.has_max_split && !rules_.expandable && release_oversize(queue, size)) slot = grow(queue, size, wanted);
  if (slot < 0 && queues_[queue].pool == 0) {
    empty_cache();
    slot = grow(queue, size, wanted);
  }
  return slot;
}

bool CachingAllocator::driver_gives(int64_t nbytes) {
  if (capacity_ < 0 || reserved + nbytes <= capacity_) return true;
  smallest_refused = std::min(smallest_refused, reserved + nbytes);
  return false;
}

int32_t CachingAllocator::grow(int32_t queue, int64_t size, int64_t wanted) {
  if (reserved + wanted > allowed_) {
    smallest_refused = std::min(smallest_refused, reserved + wanted);
    return -1;
  }
  if (rules_.expandable) return expand(queue, size);
  if (!driver_gives(wanted)) return -1;
  const int32_t slot = place(next_address(wanted), wanted, queue, -1);
  account(wanted);
  return slot;
}

void CachingAllocator::collect_garbage() {
  const int64_t target = reserved - static_cast<int64_t>(rules_.garbage_threshold * static_cast<double>(allowed_));
  std::vector<int32_t> whole;
  int64_t age = 0, reclaimed = 0;
  for (size_t queue = 0; queue < queues_.size(); ++queue) {
    if (queues_[queue].pool != 0 || queues_[queue].small) continue;
    free_[queue].each([&](int32_t slot) {
      if (blocks_[slot].before >= 0 || blocks_[slot].after >= 0) return;
      whole.push_back(slot);
      age += searches_ - inserted_[slot];
    });
  }
  bool freed = true;
  while (reclaimed < target && freed && !whole.empty()) {
    const double threshold = static_cast<double>(age) / static_cast<double>(whole.size());
    freed = false;
    std::vector<int32_t> kept;
    for (const int32_t slot : whole) {
      const int64_t mine = searches_ - inserted_[slot];
      if (static_cast<double>(mine) < threshold) {
        kept.push_back(slot);
        continue;
      }
      freed = true;
      reclaimed += blocks_[slot].size;
      age -= mine;
      give_back(slot);
    }
    whole.swap(kept);
  }
}

bool CachingAllocator::release_oversize(int32_t queue, int64_t size) {
  FreeBlocks& free = free_[queue];
  const int64_t least = std::max(size, rules_.max_split);
  const auto found = free.lower_bound(least);
  if (!free.at_end(found)) {
    give_back(free.slot(found));
    return true;
  }
  int64_t released = 0;
  while (released < least && !free.at_end(free.last())) {
    const int32_t slot = free.slot(free.last());
    if (blocks_[slot].size < rules_.max_split) break;
    released += blocks_[slot].size;
    give_back(slot);
  }
  return released >= least;
}

void CachingAllocator::account(int64_t change) {
  reserved += change;
  if (change > 0) {
    ++driver_allocations;
    peak_reserved = std::max(peak_reserved, reserved);
  } else {
    ++driver_frees;
  }
  if (keep_changes) changes.push_back({event, reserved});
}

void CachingAllocator::give_back(int32_t slot) {
  free_[blocks_[slot].queue].erase(slot);
  account(-blocks_[slot].size);
  drop(slot);
}

int64_t CachingAllocator::next_address(int64_t nbytes) {
  const int64_t address = next_address_;
  next_address_ += rounded_up(nbytes, kSegmentRounding);
  return address;
}

// Blocks.

int32_t CachingAllocator::place(int64_t address, int64_t size, int32_t queue, int64_t base) {
  int32_t slot;
  if (unused_.empty()) {
    slot = static_cast<int32_t>(blocks_.size());
    blocks_.push_back({address, size, -1, -1, queue, kFree});
    if (rules_.expandable) base_.push_back(base);
    if (collects_) inserted_.push_back(0);
  } else {
    slot = unused_.back();
    unused_.pop_back();
    blocks_[slot] = {address, size, -1, -1, queue, kFree};
    if (rules_.expandable) base_[slot] = base;
  }
  return slot;
}

int32_t CachingAllocator::cut(int32_t slot, int64_t size) {
  const CachedBlock whole = blocks_[slot];
  const int32_t rest = place(whole.address + size, whole.size - size, whole.queue, rules_.expandable ? base_[slot] : -1);
  blocks_[rest].before = slot;
  blocks_[rest].after = whole.after;
  if (whole.after >= 0) blocks_[whole.after].before = rest;
  blocks_[slot].after = rest;
  blocks_[slot].size = size;
  return rest;
}

void CachingAllocator::insert(int32_t slot) {
  CachedBlock& block = blocks_[slot];
  block.state = kFree;
  if (collects_) inserted_[slot] = searches_;
  free_[block.queue].insert(slot);
}

void CachingAllocator::join(int32_t slot) {
  const int32_t neighbours[] = {blocks_[slot].before, blocks_[slot].after};
  for (const int32_t other : neighbours) {
    if (other >= 0 && blocks_[other].state == kFree) {
      free_[blocks_[other].queue].erase(other);
      absorb(slot, other);
    }
  }
}

void CachingAllocator::absorb(int32_t slot, int32_t other) {
  CachedBlock& block = blocks_[slot];
  const CachedBlock& gone = blocks_[other];
  block.size += gone.size;
  if (block.before == other) {
    block.address = gone.address;
    block.before = gone.before;
    if (block.before >= 0) blocks_[block.before].after = slot;
  } else {
    block.after = gone.after;
    if (block.after >= 0) blocks_[block.after].before = slot;
  }
  drop(other);
}

void CachingAllocator::drop(int32_t slot) {
  blocks_[slot].state = kGone;
  unused_.push_back(slot);
}

// Expandable segments.

int64_t CachingAllocator::page(int32_t queue) const { return queues_[queue].small ? kSmallSegment : rules_.large_segment; }

int32_t CachingAllocator::expand(int32_t queue, int64_t size) {
  int32_t slot = room(queue, size);
  if (blocks_[slot].state == kUnmapped && !map_pages(slot, std::min(blocks_[slot].size, size))) return -1;
  while (blocks_[slot].size < size) {
    const int32_t more = blocks_[slot].after;
    if (!map_pages(more, std::min(size - blocks_[slot].size, blocks_[more].size))) return -1;
    slot = more;
  }
  free_[queue].erase(slot);
  return slot;
}

int32_t CachingAllocator::room(int32_t queue, int64_t size) {
  for (const auto& [address, slot] : unmapped_[queue]) {
    int32_t begin = slot;
    const int32_t before = blocks_[slot].before;
    if (before >= 0 && blocks_[before].state == kFree) begin = before;
    int64_t found = 0;
    for (int32_t at = begin; found < size && at >= 0; at = blocks_[at].after) {
      if (blocks_[at].state != kFree && blocks_[at].state != kUnmapped) break;
      found += blocks_[at].size;
    }
    if (found >= size) return begin;
  }
  const int64_t span = rounded_up(device_bytes() + device_bytes() / 8, page(queue));
  const int64_t base = next_address(span);
  const int32_t slot = place(base, span, queue, base);
  blocks_[slot].state = kUnmapped;
  unmapped_[queue].emplace(base, slot);
  return slot;
}

bool CachingAllocator::map_pages(int32_t slot, int64_t nbytes) {
  const int32_t queue = blocks_[slot].queue;
  const int64_t mapped = rounded_up(nbytes, page(queue));
  if (!driver_gives(mapped)) return false;
  unmapped_[queue].erase(blocks_[slot].address);
  if (mapped < blocks_[slot].size) {
    const int32_t rest = cut(slot, mapped);
    blocks_[rest].state = kUnmapped;
    unmapped_[queue].emplace(blocks_[rest].address, rest);
  }
  blocks_[slot].state = kFree;
  join(slot);
  insert(slot);
  account(mapped);
  return true;
}

void CachingAllocator::unmap_pages(int32_t slot) {
  const int32_t queue = blocks_[slot].queue;
  const int64_t step = page(queue), start = blocks_[slot].address - base_[slot];
  const int64_t begin = rounded_up(start, step), end = (start + blocks_[slot].size) / step * step;
  if (begin >= end) return;
  const int64_t behind = start + blocks_[slot].size - end;
  free_[queue].erase(slot);
  if (begin > start) {
    const int32_t rest = cut(slot, begin - start);
    insert(slot);
    slot = rest;
  }
  if (behind) insert(cut(slot, end - begin));
  account(-blocks_[slot].size);
  blocks_[slot].state = kUnmapped;
  const int32_t neighbours[] = {blocks_[slot].before, blocks_[slot].after};
  for (const int32_t other : neighbours) {
    if (other >= 0 && blocks_[other].state == kUnmapped) {
      unmapped_[queue].erase(blocks_[other].address);
      absorb(slot, other);
    }
  }
  if (blocks_[slot].before < 0 && blocks_[slot].after < 0) {
    drop(slot);
  } else {
    unmapped_[queue].emplace(blocks_[slot].address, slot);
  }
}

}  // namespace memfit
