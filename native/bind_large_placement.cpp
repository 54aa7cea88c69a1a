// Bindings of placement of large problems.
#include "bind.h"
#include "core/large_placement.h"
#include "core/large_placement_search.h"

namespace {

template <class T>
auto column(std::vector<T> values) {
  return own(std::move(values));
}

template <class Search>
void bind_run(nb::class_<Search>& type) {
  type.def(
          "run",
          [](Search& self, int64_t work) {
            nb::gil_scoped_release release;
            return self.run(work);
          },
          "Goes on for so many neighbours looked at; true when done.")
      .def_prop_ro("out", &Search::out, "Buffers that found no place below the ceiling.")
      .def_prop_ro("work", &Search::work, "Neighbours or intervals looked at so far.")
      .def("offset", [](const Search& self) { return column(self.offset()); }, "Offsets, -1 of what is out.")
      .def("whole", [](const Search& self) { return column(self.whole()); }, "Offsets, with what is out put on top.");
}

}  // namespace

void bind_large_placement(nb::module_& m) {
  using memfit::EjectionSearch;
  using memfit::Filling;
  using memfit::LargeProblem;
  using Column = Array<int64_t>;
  nb::class_<LargeProblem>(m, "LargeProblem", "Buffers and their pieces, cut into sections of time.")
      .def("__init__",
           [](LargeProblem* self, Column size, Column alignment, Column fixed, Column start, Column lower, Column upper,
              Column low, Column high) {
             new (self) LargeProblem(copy(size), copy(alignment), copy(fixed), copy(start), copy(lower), copy(upper),
                                     copy(low), copy(high));
           })
      .def_ro("sections", &LargeProblem::sections)
      .def_ro("blocks", &LargeProblem::blocks)
      .def_prop_ro("bound", &LargeProblem::bound, "The largest load.")
      .def("load", [](const LargeProblem& self) { return column(self.load); }, "Of each section.")
      .def("lifetime", [](const LargeProblem& self) { return column(self.lifetime); }, "Of each buffer, in sections.")
      .def("largest_load", [](const LargeProblem& self) { return column(self.largest_load()); },
           "Of each buffer: the largest load while it is alive.");
  auto filling = nb::class_<Filling>(m, "Filling", "Places buffers in a given order.")
                     .def("__init__",
                          [](Filling* self, const LargeProblem& problem, Array<int32_t> order, int32_t fit, int64_t ceiling) {
                            new (self) Filling(problem, copy(order), static_cast<memfit::GapFit>(fit),
                                               ceiling < 0 ? memfit::kNoCeiling : ceiling);
                          },
                          nb::keep_alive<1, 2>());
  bind_run(filling);
  auto ejection = nb::class_<EjectionSearch>(m, "EjectionSearch", "Search by ejection below a ceiling.")
                      .def("__init__",
                           [](EjectionSearch* self, const LargeProblem& problem, Column offset, int64_t ceiling,
                              int32_t turn, uint64_t seed) {
                             new (self) EjectionSearch(problem, copy(offset), ceiling,
                                                       static_cast<memfit::Turn>(turn), seed);
                           },
                           nb::keep_alive<1, 2>());
  bind_run(ejection);
}
