// Bindings of the other allocator policies.
#include "bind.h"

#include "core/replay_buddy.h"
#include "core/replay_chunks.h"
#include "core/replay_fits.h"
#include "core/replay_plan.h"
#include "core/replay_size_classes.h"

using memfit::ReplayOutcome;

namespace {

using Actions = Array<uint8_t>;
using Longs = Array<int64_t>;

memfit::RequestColumns columns(const Actions& action, const Longs& block, const Longs& nbytes, int64_t blocks) {
  return {action.data(), block.data(), nbytes.data(), static_cast<int64_t>(action.shape(0)), blocks};
}

// Runs a replay without the interpreter's lock; an interruption ends it and is raised here.
template <class Run>
nb::tuple replayed(Run run) {
  ReplayOutcome out;
  bool interrupted = false;
  {
    nb::gil_scoped_release release;
    out = run([&interrupted] {
      nb::gil_scoped_acquire acquire;
      interrupted = PyErr_CheckSignals() != 0;
      return interrupted;
    });
  }
  if (interrupted) throw nb::python_error();
  auto figures = nb::make_tuple(out.peak_live, out.peak_allocated, out.peak_reserved, out.driver_allocations,
                                out.driver_frees, out.failed);
  return nb::make_tuple(figures, own(std::move(out.live)), own(std::move(out.allocated)), own(std::move(out.reserved)),
                        own(std::move(out.address)), own(std::move(out.taken)), own(std::move(out.segment_address)),
                        own(std::move(out.segment_bytes)));
}

}  // namespace

void bind_policies(nb::module_& m) {
  m.def(
      "replay_fit",
      [](Actions action, Longs block, Longs nbytes, int64_t blocks, int64_t capacity, bool series, int kind,
         int64_t alignment, int64_t granule) {
        return replayed([&](const memfit::Stop& stop) {
          return memfit::replay_fit(columns(action, block, nbytes, blocks), capacity, series,
                                    static_cast<memfit::FitKind>(kind), alignment, granule, stop);
        });
      },
      "First, best, worst or next fit over one growing arena.");
  m.def(
      "replay_chunks",
      [](Actions action, Longs block, Longs nbytes, int64_t blocks, int64_t capacity, bool series,
         const std::vector<int64_t>& rules) {
        if (rules.size() != 10) throw nb::value_error("ten rules");
        const memfit::Growth growth{rules[0], rules[1], rules[2], rules[3], rules[4],
                                    rules[5], rules[6], rules[7], rules[8], rules[9]};
        return replayed([&](const memfit::Stop& stop) {
          return memfit::replay_chunks(columns(action, block, nbytes, blocks), capacity, series, growth, stop);
        });
      },
      "Best fit with coalescing over regions.");
  m.def(
      "replay_buddy",
      [](Actions action, Longs block, Longs nbytes, int64_t blocks, int64_t capacity, bool series, int smallest,
         int granule) {
        return replayed([&](const memfit::Stop& stop) {
          return memfit::replay_buddy(columns(action, block, nbytes, blocks), capacity, series, smallest, granule, stop);
        });
      },
      "The binary buddy system over one growing arena.");
  m.def(
      "replay_size_classes",
      [](Actions action, Longs block, Longs nbytes, int64_t blocks, int64_t capacity, bool series) {
        return replayed([&](const memfit::Stop& stop) {
          return memfit::replay_size_classes(columns(action, block, nbytes, blocks), capacity, series, stop);
        });
      },
      "Size classes with slabs.");
  m.def(
      "replay_plan",
      [](Actions action, Longs block, Longs nbytes, int64_t blocks, int64_t capacity, bool series, Longs offset,
         int64_t bytes) {
        if (static_cast<int64_t>(offset.shape(0)) < blocks) throw nb::value_error("an offset for every block");
        return replayed([&](const memfit::Stop& stop) {
          return memfit::replay_plan(columns(action, block, nbytes, blocks), capacity, series, offset.data(), bytes, stop);
        });
      },
      "Offsets that were planned before, looked up.");
}
