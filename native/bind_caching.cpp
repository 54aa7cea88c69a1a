// Bindings of PyTorch's caching allocator.
#include <chrono>
#include <memory>

#include "bind.h"
#include "core/caching_replay.h"
#include "core/pickle_scan.h"

namespace {

using memfit::CachingOutcome;
using memfit::CachingQueue;
using memfit::CachingRules;
using memfit::CachingTrace;

// Asks Python for a pending Ctrl-C, at most twenty times a second.
memfit::Stopped watch_for_interrupt() {
  auto last = std::make_shared<std::chrono::steady_clock::time_point>(std::chrono::steady_clock::now());
  return [last] {
    const auto now = std::chrono::steady_clock::now();
    if (now - *last < std::chrono::milliseconds(50)) return false;
    *last = now;
    nb::gil_scoped_acquire held;
    return PyErr_CheckSignals() != 0;
  };
}

CachingTrace trace_of(const Array<uint8_t>& action, const Array<int64_t>& block, const Array<int64_t>& rounded,
                      const Array<int32_t>& queue, int64_t blocks) {
  return {static_cast<int64_t>(action.shape(0)), action.data(), block.data(), rounded.data(), queue.data(), blocks};
}

std::vector<CachingQueue> queues_of(const Array<int32_t>& pool, const Array<uint8_t>& small) {
  std::vector<CachingQueue> queues;
  for (size_t i = 0; i < pool.shape(0); ++i) queues.push_back({pool.data()[i], small.data()[i] != 0});
  return queues;
}

CachingRules rules_of(bool expandable, int64_t max_split, int64_t rounding, int64_t large_segment, double garbage_threshold,
                      double memory_fraction) {
  return {expandable, max_split < 0 ? int64_t{1} << 62 : max_split, max_split >= 0, rounding, large_segment, garbage_threshold, memory_fraction};
}

nb::tuple told(CachingOutcome&& outcome) {
  std::vector<int64_t> event, reserved;
  for (const auto& change : outcome.changes) {
    event.push_back(change.event);
    reserved.push_back(change.reserved);
  }
  return nb::make_tuple(outcome.failed, outcome.peak_reserved, outcome.driver_allocations, outcome.driver_frees,
                        own(std::move(outcome.size)), own(std::move(outcome.address)), own(std::move(event)), own(std::move(reserved)));
}

template <class Work>
auto without_lock(Work&& work) {
  try {
    nb::gil_scoped_release released;
    return work();
  } catch (const memfit::Interrupted&) {
    throw nb::python_error();
  }
}

}  // namespace

void bind_caching(nb::module_& m) {
  m.def(
      "replay_caching",
      [](Array<uint8_t> action, Array<int64_t> block, Array<int64_t> rounded, Array<int32_t> queue, int64_t blocks,
         Array<int32_t> pool, Array<uint8_t> small, bool expandable, int64_t max_split, int64_t rounding, int64_t large_segment,
         double garbage_threshold, double memory_fraction, int64_t capacity, bool series) {
        const auto trace = trace_of(action, block, rounded, queue, blocks);
        const auto queues = queues_of(pool, small);
        const auto rules = rules_of(expandable, max_split, rounding, large_segment, garbage_threshold, memory_fraction);
        return told(without_lock([&] { return memfit::replay_caching(trace, queues, rules, capacity, series, watch_for_interrupt()); }));
      },
      "A trace through the caching allocator: (failed event or -1, peak reserved, driver allocations, driver frees, bytes and "
      "address by block, events at which reserved changed, reserved there).");
  m.def(
      "smallest_capacity",
      [](Array<uint8_t> action, Array<int64_t> block, Array<int64_t> rounded, Array<int32_t> queue, int64_t blocks,
         Array<int32_t> pool, Array<uint8_t> small, bool expandable, int64_t max_split, int64_t rounding, int64_t large_segment,
         double garbage_threshold, double memory_fraction, int64_t least, int64_t step, int64_t effort) {
        const auto trace = trace_of(action, block, rounded, queue, blocks);
        const auto queues = queues_of(pool, small);
        const auto rules = rules_of(expandable, max_split, rounding, large_segment, garbage_threshold, memory_fraction);
        auto found = without_lock([&] { return memfit::smallest_capacity(trace, queues, rules, least, step, effort, watch_for_interrupt()); });
        return nb::make_tuple(found.capacity, found.there.driver_allocations, found.there.driver_frees, found.unlimited.peak_reserved,
                              found.unlimited.driver_allocations + found.unlimited.driver_frees, found.proved, found.replays);
      },
      "(capacity, driver allocations and frees there, reserved peak and driver calls without a limit, proved, replays).");
  m.def(
      "scan_pickle",
      [](nb::bytes data) {
        const auto found = memfit::scan_pickle(reinterpret_cast<const uint8_t*>(data.c_str()), data.size());
        return nb::make_tuple(found.place, static_cast<int>(found.why));
      },
      "(place, why) of the first opcode that plain data does not need; (-1, 0) where there is none.");
}
