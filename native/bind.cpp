// The only file that knows both languages.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "core/liveness.h"

namespace nb = nanobind;
using memfit::Bytes;

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
static nb::ndarray<nb::numpy, T, nb::ndim<1>> own(std::vector<T>&& values) {
  auto* held = new std::vector<T>(std::move(values));
  nb::capsule owner(held, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T, nb::ndim<1>>(held->data(), {held->size()}, owner);
}

NB_MODULE(_core, m) {
  m.doc() = "Native kernels of memfit; each has a Python twin.";
  m.def(
      "simulate",
      [](Array<int64_t> reads_start, Array<int32_t> reads, Array<int64_t> writes_start, Array<int32_t> writes,
         Array<int64_t> workspace, Array<double> seconds, Array<int32_t> reuse, Array<int64_t> nbytes,
         Array<uint8_t> pinned, Array<int32_t> sequence, int64_t base) {
        memfit::LivenessGraph graph{static_cast<int32_t>(workspace.shape(0)), static_cast<int32_t>(nbytes.shape(0)),
                                    {reads_start.data(), reads.data()},       {writes_start.data(), writes.data()},
                                    workspace.data(),                         seconds.data(),
                                    reuse.data(),                             nbytes.data(),
                                    pinned.data()};
        auto result = memfit::simulate(graph, sequence.data(), static_cast<int64_t>(sequence.shape(0)), base);
        return nb::make_tuple(result.peak, result.peak_position, result.seconds, own(std::move(result.during)),
                              own(std::move(result.reused)));
      },
      "Liveness of a schedule: (peak, peak position, seconds, bytes live during each run, reused flags).");
}
