#include "pool.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

namespace memfit {
namespace {

constexpr int64_t kGranule = PoolRange::kGranule;
constexpr size_t kLazyZeros = 32 << 20;  // from here on zeros come from the system when they are touched, as in malloc

int64_t granules_of(size_t bytes) { return static_cast<int64_t>((bytes + kGranule - 1) / kGranule); }

int64_t machine_bytes() { return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE); }

[[noreturn]] void refuse(const void* address) {
  std::fprintf(stderr, "memfit pool: %p is freed, but no block starts there (freed twice, or never allocated)\n", address);
  std::abort();
}

}  // namespace

Pool::Pool(int64_t reserve) : range_(reserve), layout_(range_.size() / kGranule) {
  if (range_.size() == 0) return;
  const auto bytes = static_cast<size_t>(range_.size() / kGranule) * sizeof(Block);
  void* table = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  blocks_ = table == MAP_FAILED ? nullptr : static_cast<Block*>(table);
}

Pool& Pool::shared() {
  static Pool* pool = [] {
    auto* made = new Pool(4 * machine_bytes());
    pthread_atfork(
        [] {
          PoolSmall::lock();
          shared().lock();
        },
        [] {
          shared().unlock();
          PoolSmall::unlock();
        },
        [] {
          shared().unlock();
          PoolSmall::unlock();
        });
    return made;
  }();
  return *pool;
}

uint32_t Pool::second() const {
  timespec time;
#ifdef CLOCK_MONOTONIC_COARSE
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
#else
  clock_gettime(CLOCK_MONOTONIC, &time);
#endif
  return static_cast<uint32_t>(time.tv_sec);
}

// Whether the plan expects this event; if so, its place. Leaves the plan otherwise.
bool Pool::expected(uint64_t code, int64_t& start) {
  if (!following_) return false;
  const PoolPlan::Entry& entry = plan_.entries[cursor_];
  if (entry.code != code) {
    depart();
    return false;
  }
  start = entry.start;
  if (++cursor_ == plan_.entries.size()) {
    cursor_ = 0;
    ++followed_;
    ++figures_.periods;
  }
  return true;
}

// Remembers the event, unless the plan did; where a period has just ended, the next one may follow a plan.
void Pool::note(uint64_t code, int64_t start, bool matched) {
  if (matched || !planning_.load(std::memory_order_relaxed)) return;
  if (!repeats_.add({code, start, live_granules_})) return;
  if (code != PoolRepeats::kStepCode && repeats_.count() < quiet_until_) return;
  try {
    adopt();
  } catch (const std::bad_alloc&) {  // no plan, then
  }
}

void Pool::adopt() {
  depart();
  std::vector<PoolEvent> events;
  for (int64_t ago = repeats_.period() - 1; ago >= 0; --ago) events.push_back(repeats_.back(ago));
  std::vector<std::pair<int64_t, int64_t>> taken;
  int64_t from = 0;
  layout_.each_hole([&](int64_t start, int64_t end) {
    if (start > from) taken.emplace_back(from, start);
    from = end;
  });
  PoolPlan plan = plan_period(events, taken);
  quiet_until_ = repeats_.count() + 8 * repeats_.period();  // should this one be no good
  if (plan.spans.empty() || plan.end > high_) return;
  size_t got = 0;
  while (got < plan.spans.size() && layout_.take_at(plan.spans[got].first, plan.spans[got].second - plan.spans[got].first)) ++got;
  if (got < plan.spans.size()) {
    for (size_t i = 0; i < got; ++i) layout_.give(plan.spans[i].first, plan.spans[i].second - plan.spans[i].first);
    return;
  }
  quiet_until_ = 0;
  plan_ = std::move(plan);
  following_ = true;
  cursor_ = 0;
  followed_ = 0;
  ++figures_.plans;
}

// What the plan holds and no block lives in becomes holes; living blocks are from now on like any other.
void Pool::depart() {
  if (!following_) return;
  following_ = false;
  ++figures_.departures;
  if (followed_ < 3) quiet_until_ = repeats_.count() + 8 * static_cast<int64_t>(plan_.entries.size());
  std::vector<std::pair<int64_t, int64_t>> alive;
  const auto period = static_cast<int64_t>(plan_.entries.size());
  for (size_t i = 0; i < cursor_; ++i) {
    const PoolPlan::Entry& entry = plan_.entries[i];
    repeats_.add({entry.code, entry.start, repeats_.back(period - 1).live});  // what was followed was not remembered
    if (entry.granules > 0 && entry.until >= static_cast<int64_t>(cursor_)) alive.emplace_back(entry.start, entry.start + entry.granules);
  }
  std::sort(alive.begin(), alive.end());
  auto next = alive.begin();
  for (const auto& span : plan_.spans) {
    int64_t from = span.first;
    for (; next != alive.end() && next->first < span.second; ++next) {
      if (next->first > from) layout_.give(from, next->first - from);
      from = next->second;
    }
    if (span.second > from) layout_.give(from, span.second - from);
  }
}

// Once a second: pages that nobody used for long go back to the system. The clock is read every 16th time.
void Pool::sweep() {
  if (until_clock_-- > 0) return;
  until_clock_ = 15;
  const uint32_t now = second();
  if (now == swept_) return;
  swept_ = now;
  const int64_t patience = patience_.load(std::memory_order_relaxed);
  if (patience < 0 || static_cast<int64_t>(now) <= patience) return;
  const int64_t top = range_.committed();
  layout_.each_hole([&](int64_t start, int64_t end) {
    if (start * kGranule < top)
      figures_.given_back_bytes +=
          range_.give_back(start * kGranule, std::min(end * kGranule, top), static_cast<uint32_t>(now - patience));
  });
}

// Room for a block outside of the plan.
bool Pool::place(int64_t granules, int64_t& start) {
  start = layout_.take(granules);
  if (start < 0) return false;
  if (range_.commit((start + granules) * kGranule)) return true;
  layout_.give(start, granules);
  return false;
}

void* Pool::large(size_t bytes, bool* clean) {
  static const auto most = static_cast<size_t>(machine_bytes());
  if (!active() || blocks_ == nullptr || bytes > most) return PoolSmall::allocate_plain(bytes);
  const int64_t granules = granules_of(bytes);
  const uint64_t code = PoolRepeats::allocation(granules);
  {
    std::lock_guard<PoolLock> guard(lock_);
    sweep();
    int64_t start = -1;
    const bool matched = expected(code, start);
    if (start >= 0 || place(granules, start)) {
      blocks_[start] = {static_cast<uint32_t>(granules), births_++, static_cast<int64_t>(bytes)};
      const bool untouched = range_.use(start * kGranule, (start + granules) * kGranule, swept_);
      if (clean != nullptr) *clean = untouched;
      live_granules_ += granules;
      high_ = std::max(high_, start + granules);
      ++figures_.allocations;
      if (matched && start >= 0) ++figures_.planned;
      figures_.live_bytes += static_cast<int64_t>(bytes);
      figures_.peak_live_bytes = std::max(figures_.peak_live_bytes, figures_.live_bytes);
      figures_.peak_allocated_bytes = std::max(figures_.peak_allocated_bytes, live_granules_ * kGranule);
      figures_.peak_touched_bytes = std::max(figures_.peak_touched_bytes, range_.touched());
      note(code, start, matched);
      return range_.at(start * kGranule);
    }
    depart();
    repeats_.forget();
    ++figures_.refused;
  }
  return PoolSmall::allocate_plain(bytes);
}

void Pool::release(void* address) {
  if (address == nullptr) return;
  if (!range_.holds(address)) {
    const size_t usable = malloc_usable_size(address);
    if (usable <= 2 * PoolSmall::kLargest && active()) {
      PoolSmall::release(address, usable);
    } else {
      PoolSmall::release_plain(address, usable);
    }
    return;
  }
  const int64_t offset = range_.offset(address), start = offset / kGranule;
  std::lock_guard<PoolLock> guard(lock_);
  Block& block = blocks_[start];
  if (offset % kGranule != 0 || block.granules == 0) refuse(address);
  sweep();
  const int64_t granules = block.granules;
  const uint64_t code = PoolRepeats::release(births_ - block.birth);
  int64_t place = -1;
  const bool matched = expected(code, place);
  if (!matched || place < 0) layout_.give(start, granules);
  range_.use(start * kGranule, (start + granules) * kGranule, swept_);
  live_granules_ -= granules;
  ++figures_.frees;
  figures_.live_bytes -= block.bytes;
  block.granules = 0;
  note(code, start, matched);
}

void* Pool::allocate_zeroed(size_t bytes) {
  if (bytes <= PoolSmall::kLargest && active()) {
    void* address = PoolSmall::allocate(bytes);
    return address == nullptr ? nullptr : std::memset(address, 0, bytes);
  }
  if (!active() && bytes >= kLazyZeros) return PoolSmall::allocate_plain_zeroed(bytes);
  bool clean = false;
  void* address = large(bytes, &clean);
  if (address == nullptr || (clean && holds(address))) return address;
  if (!holds(address) && bytes >= kLazyZeros) {
    release(address);
    return PoolSmall::allocate_plain_zeroed(bytes);
  }
  if (holds(address) && bytes >= kLazyZeros) {
    const int64_t offset = range_.offset(address);
    range_.clear(offset, offset + static_cast<int64_t>(bytes));
    return address;
  }
  return std::memset(address, 0, bytes);
}

size_t Pool::bytes_of(const void* address) const {
  if (address == nullptr) return 0;
  if (!holds(address)) return malloc_usable_size(const_cast<void*>(address));
  return static_cast<size_t>(blocks_[range_.offset(address) / kGranule].bytes);
}

void* Pool::resize(void* address, size_t bytes) {
  if (address == nullptr) return allocate(bytes);
  const size_t before = bytes_of(address);
  if (!holds(address)) {
    if (bytes <= before && bytes >= before / 2) return address;
  } else if (bytes > PoolSmall::kLargest && active()) {
    const int64_t start = range_.offset(address) / kGranule, wanted = granules_of(bytes);
    std::lock_guard<PoolLock> guard(lock_);
    Block& block = blocks_[start];
    const int64_t granules = block.granules;
    if (granules == 0) refuse(address);
    bool done = wanted == granules;
    if (!done) {
      depart();
      repeats_.forget();
      if (wanted < granules) {
        layout_.give(start + wanted, granules - wanted);
        done = true;
      } else if (layout_.take_at(start + granules, wanted - granules)) {
        done = range_.commit((start + wanted) * kGranule);
        if (!done) layout_.give(start + granules, wanted - granules);
      }
    }
    if (done) {
      if (wanted > granules) range_.use((start + granules) * kGranule, (start + wanted) * kGranule, swept_);
      high_ = std::max(high_, start + wanted);
      live_granules_ += wanted - granules;
      figures_.live_bytes += static_cast<int64_t>(bytes) - block.bytes;
      figures_.peak_live_bytes = std::max(figures_.peak_live_bytes, figures_.live_bytes);
      figures_.peak_allocated_bytes = std::max(figures_.peak_allocated_bytes, live_granules_ * kGranule);
      figures_.peak_touched_bytes = std::max(figures_.peak_touched_bytes, range_.touched());
      block.granules = static_cast<uint32_t>(wanted);
      block.bytes = static_cast<int64_t>(bytes);
      return address;
    }
  }
  void* moved = allocate(bytes);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, address, std::min(before, bytes));
  release(address);
  return moved;
}

void Pool::mark_step() {
  std::lock_guard<PoolLock> guard(lock_);
  int64_t place = -1;
  const bool matched = expected(PoolRepeats::kStepCode, place);
  note(PoolRepeats::kStepCode, -1, matched);
}

int64_t Pool::trim() {
  PoolSmall::flush();
  malloc_trim(0);
  std::lock_guard<PoolLock> guard(lock_);
  depart();
  repeats_.forget();
  quiet_until_ = 0;
  int64_t given = 0;
  const int64_t top = range_.committed();
  layout_.each_hole([&](int64_t start, int64_t end) {
    if (start * kGranule < top) given += range_.give_back(start * kGranule, std::min(end * kGranule, top), UINT32_MAX);
  });
  figures_.given_back_bytes += given;
  return given;
}

PoolFigures Pool::figures() {
  std::lock_guard<PoolLock> guard(lock_);
  PoolFigures out = figures_;
  out.live_blocks = out.allocations - out.frees;
  out.allocated_bytes = live_granules_ * kGranule;
  out.reserved_bytes = range_.committed();
  out.touched_bytes = range_.touched();
  layout_.each_hole([&](int64_t start, int64_t end) {
    ++out.holes;
    if (end < range_.size() / kGranule) out.largest_hole_below_top = std::max(out.largest_hole_below_top, (end - start) * kGranule);
  });
  if (following_) {
    out.plan_events = static_cast<int64_t>(plan_.entries.size());
    out.plan_packed = plan_.packed;
    for (const auto& span : plan_.spans) out.plan_bytes += (span.second - span.first) * kGranule;
  }
  return out;
}

std::vector<std::pair<uintptr_t, int64_t>> Pool::living() {
  std::lock_guard<PoolLock> guard(lock_);
  std::vector<std::pair<uintptr_t, int64_t>> out;
  for (int64_t at = 0; at < high_;) {
    const Block& block = blocks_[at];
    if (block.granules != 0) out.emplace_back(reinterpret_cast<uintptr_t>(range_.at(at * kGranule)), block.bytes);
    at += std::max<int64_t>(block.granules, 1);
  }
  return out;
}

}  // namespace memfit
