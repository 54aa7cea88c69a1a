#include "caching_replay.h"

namespace memfit {

namespace {

constexpr int64_t kSlice = 1 << 16;

template <bool kPlain>
int64_t run(CachingAllocator& allocator, const CachingTrace& trace, CachingOutcome& outcome, bool series, const Stopped& stopped) {
  std::vector<int32_t> slots(static_cast<size_t>(trace.blocks), -1);
  if (series) {
    outcome.size.reserve(static_cast<size_t>(trace.blocks));
    outcome.address.reserve(static_cast<size_t>(trace.blocks));
  }
  for (int64_t event = 0; event < trace.events; ++event) {
    if (event % kSlice == kSlice - 1 && stopped && stopped()) throw Interrupted{};
    allocator.event = event;
    const int64_t block = trace.block[event];
    switch (trace.action[event]) {
      case 0: {
        const int32_t slot = kPlain ? allocator.allocate_plain(trace.queue[event], trace.rounded[event])
                                    : allocator.allocate(trace.queue[event], trace.rounded[event]);
        if (slot < 0) return event;
        slots[block] = slot;
        if (series) {
          outcome.size.push_back(allocator.block(slot).size);
          outcome.address.push_back(allocator.block(slot).address);
        }
        break;
      }
      case 1:
        if (slots[block] >= 0) {
          allocator.free(slots[block]);
          slots[block] = -1;
        }
        break;
      case 2:
        allocator.request_free(slots[block], block);
        break;
      default:
        allocator.empty_cache();
    }
    if (!allocator.synchronised.empty()) {
      for (const int64_t freed : allocator.synchronised) slots[freed] = -1;
      allocator.synchronised.clear();
    }
  }
  return -1;
}

}  // namespace

CachingOutcome replay_caching(const CachingTrace& trace, const std::vector<CachingQueue>& queues, const CachingRules& rules,
                              int64_t capacity, bool series, const Stopped& stopped) {
  CachingAllocator allocator(queues, rules, capacity);
  allocator.keep_changes = series;
  CachingOutcome outcome;
  outcome.failed = allocator.plain() ? run<true>(allocator, trace, outcome, series, stopped)
                                     : run<false>(allocator, trace, outcome, series, stopped);
  outcome.peak_reserved = allocator.peak_reserved;
  outcome.driver_allocations = allocator.driver_allocations;
  outcome.driver_frees = allocator.driver_frees;
  outcome.smallest_refused = allocator.smallest_refused;
  outcome.changes = std::move(allocator.changes);
  return outcome;
}

SmallestCapacity smallest_capacity(const CachingTrace& trace, const std::vector<CachingQueue>& queues, const CachingRules& rules,
                                   int64_t least, int64_t step, int64_t effort, const Stopped& stopped) {
  SmallestCapacity found;
  // When garbage is collected depends on the capacity. Elsewhere a replay that is refused nothing else, or needs nothing
  // more, under another capacity goes the same way there. (An expandable segment's range of addresses depends on it too,
  // but is an eighth larger than all that can ever be mapped into it.)
  const bool tied = rules.garbage_threshold > 0 || rules.memory_fraction < 1.0;
  const auto steps = [step](int64_t bytes) { return (bytes + step - 1) / step; };
  const auto at = [&](int64_t capacity) {
    ++found.replays;
    return replay_caching(trace, queues, rules, capacity, false, stopped);
  };
  found.unlimited = at(-1);
  int64_t low = steps(least) - 1, high = steps(found.unlimited.peak_reserved);
  if (tied) high = steps(static_cast<int64_t>(static_cast<double>(found.unlimited.peak_reserved) / rules.memory_fraction) + step);
  found.there = tied || rules.expandable ? at(high * step) : found.unlimited;
  while (found.there.failed >= 0) {  // only where the capacity changes what is done
    low = high;
    high *= 2;
    found.there = at(high * step);
  }
  std::vector<std::pair<int64_t, int64_t>> failing;  // [first, last] multiples of step known to fail
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    auto there = at(middle * step);
    if (there.failed < 0) {
      high = tied ? middle : std::min(middle, steps(there.peak_reserved));
      found.there = std::move(there);
    } else {
      const int64_t last = tied ? middle : std::max(middle, (there.smallest_refused - 1) / step);
      failing.emplace_back(middle, std::min(last, high - 1));
      low = std::max(middle, std::min(last, high - 1));
    }
  }
  // Below: walk up from the lower bound, over what each refusal rules out.
  std::sort(failing.begin(), failing.end());
  int64_t next = steps(least);
  found.proved = true;
  while (next < high) {
    const auto known = std::find_if(failing.begin(), failing.end(), [next](const auto& range) { return range.first <= next && next <= range.second; });
    if (known != failing.end()) {
      next = known->second + 1;
      continue;
    }
    if (effort <= 0) {
      found.proved = false;
      break;
    }
    auto there = at(next * step);
    effort -= there.failed + 1;
    if (there.failed < 0) {
      high = next;
      found.there = std::move(there);
      break;
    }
    next = tied ? next + 1 : std::max(next + 1, (there.smallest_refused - 1) / step + 1);
  }
  found.capacity = high * step;
  return found;
}

}  // namespace memfit
