// Bindings of exact placement.
#include "bind.h"

#include <memory>

#include "core/placement_portfolio.h"

namespace {

using Column = Array<int64_t>;

// A shape with a place on the heap, so that searches may point at it.
struct Prepared {
  memfit::PlacementInstance instance;
  memfit::PlacementShape shape;
};

// Offsets of all buffers in bytes: the moving ones from the search, the pinned ones as given.
std::vector<int64_t> in_bytes(const Prepared& prepared, const std::vector<int64_t>& offsets) {
  std::vector<int64_t> out(prepared.instance.fixed);
  for (size_t k = 0; k < offsets.size(); ++k)
    out[prepared.shape.buffer[k]] = offsets[k] * prepared.shape.divisor;
  return out;
}

}  // namespace

void bind_placement(nb::module_& m) {
  nb::class_<Prepared>(m, "PlacementShape", "A placement instance prepared for search.")
      .def("__init__",
           [](Prepared* self, Column lower, Column upper, Column size, Column alignment, Column fixed, Column start,
              Column piece_lower, Column piece_upper, Column piece_low, Column piece_high) {
             auto* made = new (self) Prepared{};
             made->instance = {copy(lower),       copy(upper),       copy(size),      copy(alignment), copy(fixed),
                               copy(start),       copy(piece_lower), copy(piece_upper), copy(piece_low), copy(piece_high)};
             made->shape = memfit::make_shape(made->instance);
           })
      .def_prop_ro("load", [](const Prepared& self) { return self.shape.load * self.shape.divisor; },
                   "Largest sum of live sizes in bytes.")
      .def_prop_ro("divisor", [](const Prepared& self) { return self.shape.divisor; }, "Bytes of a unit.")
      .def_prop_ro("windowed", [](const Prepared& self) { return self.shape.windowed; },
                   "Whether a piece uses a part of its buffer only.");
  nb::class_<memfit::PlacementPortfolio>(m, "PlacementPortfolio", "Interleaved complete searches under one limit.")
      .def("__init__",
           [](memfit::PlacementPortfolio* self, const Prepared& prepared, int64_t limit, uint32_t switches, uint64_t seed,
              int32_t first, int32_t stride) {
             new (self) memfit::PlacementPortfolio(prepared.shape, limit / prepared.shape.divisor, switches, seed, first,
                                                   stride);
           },
           nb::keep_alive<1, 2>())
      .def("run",
           [](memfit::PlacementPortfolio& self, int64_t nodes) { return static_cast<int>(self.run(nodes)); },
           nb::call_guard<nb::gil_scoped_release>(), "0 found, 1 nothing fits (proved), 2 paused after so many nodes.")
      .def("aim",
           [](memfit::PlacementPortfolio& self, const Prepared& prepared, int64_t limit) {
             self.aim(limit / prepared.shape.divisor);
           },
           "Begins anew under another limit in bytes; lanes that learn keep what they learned.")
      .def("offsets",
           [](const memfit::PlacementPortfolio& self, const Prepared& prepared) {
             return own(in_bytes(prepared, self.offsets()));
           },
           "Offsets in bytes of all buffers, after run() returned 0.")
      .def_prop_ro("limit",
                   [](const memfit::PlacementPortfolio& self) { return self.limit() * self.unit(); },
                   "The limit in bytes, rounded down to whole units.")
      .def_prop_ro("nodes", &memfit::PlacementPortfolio::nodes, "Nodes opened so far.")
      .def_prop_ro("winner", &memfit::PlacementPortfolio::winner, "The lane that found or proved, or -1.");
}
