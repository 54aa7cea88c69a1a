// Bindings of the probe of this machine's memory.
#include "bind.h"

#include "core/memory_probe.h"

namespace {
nb::tuple row(const memfit::ProbeTimes& t) { return nb::make_tuple(t.best, t.low, t.middle, t.windows); }
}  // namespace

void bind_memory(nb::module_& m) {
  nb::class_<memfit::MemoryProbe>(m, "MemoryProbe")
      .def(nb::init<size_t, bool>(), nb::arg("bytes"), nb::arg("huge"))
      .def("ok", &memfit::MemoryProbe::ok)
      .def("chase",
           [](memfit::MemoryProbe& probe, size_t count, size_t stride, size_t turn, double seconds, uint64_t seed) {
             const auto out = [&] {
               nb::gil_scoped_release release;
               return probe.chase(count, stride, turn, seconds, seed);
             }();
             return row(out);
           },
           "Nanoseconds a dependent load: best window, lower quartile, median; windows.")
      .def("stream",
           [](memfit::MemoryProbe& probe, size_t bytes, int kind, double seconds) {
             const auto out = [&] {
               nb::gil_scoped_release release;
               return probe.stream(bytes, kind, seconds);
             }();
             return row(out);
           },
           "Bytes a nanosecond: best window, upper quartile, median; windows.")
      .def_static("first_touch", &memfit::MemoryProbe::first_touch, "Seconds and faults of touching fresh pages.");
}
