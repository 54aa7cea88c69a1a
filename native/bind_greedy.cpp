// Bindings of greedy placement.
#include "bind.h"

#include "core/greedy_placement.h"

void bind_greedy(nb::module_& m) {
  using memfit::GreedyPlacement;
  using Column = Array<int64_t>;
  nb::class_<GreedyPlacement>(m, "GreedyPlacement", "Greedy placement of one Instance in a given order.")
      .def("__init__",
           [](GreedyPlacement* self, Column start, Column lower, Column upper, Column low, Column high,
              Column alignment, Column fixed, Column order, int fit) {
             memfit::PlacementColumns columns{copy(start), copy(lower),     copy(upper), copy(low),
                                              copy(high),  copy(alignment), copy(fixed)};
             new (self) GreedyPlacement(std::move(columns), copy(order), static_cast<memfit::Fit>(fit));
           })
      .def("advance", &GreedyPlacement::advance, nb::call_guard<nb::gil_scoped_release>(),
           "Looks at about this many pieces; whether all rows are placed.")
      .def("offsets", [](GreedyPlacement& self) {
        auto values = self.offsets();
        return own(std::move(values));
      });
}
