// Bindings of the cache simulators.
#include "bind.h"

#include "core/cache_simulation.h"
#include "core/reuse_distance.h"

namespace {

using Ints = Array<int64_t>;

// levels: sets, ways, policy, prefetch of each, in one row.
memfit::CacheShape shape_of(Ints levels, int inclusion, bool apply, uint64_t seed) {
  memfit::CacheShape shape;
  for (size_t i = 0; i + 3 < levels.shape(0); i += 4)
    shape.levels.push_back({static_cast<uint32_t>(levels.data()[i]), static_cast<uint32_t>(levels.data()[i + 1]),
                            static_cast<memfit::Replacement>(levels.data()[i + 2]), levels.data()[i + 3] != 0});
  shape.inclusion = static_cast<memfit::Inclusion>(inclusion);
  shape.apply_write_backs = apply;
  shape.seed = seed;
  return shape;
}

std::vector<memfit::NestArray> arrays_of(Ints spans) {
  std::vector<memfit::NestArray> arrays;
  for (size_t i = 0; i + 1 < spans.shape(0); i += 2) arrays.push_back({spans.data()[i], spans.data()[i + 1]});
  return arrays;
}

// A node: 1, end, variable, number of bounds, then each bound (constant, coefficients); or 0, array, write, address likewise.
memfit::Nest nest_of(Ints code, Ints spans, int variables, int line_shift) {
  memfit::Nest nest;
  nest.variables = variables;
  nest.line_shift = line_shift;
  nest.arrays = arrays_of(spans);
  const int64_t* at = code.data();
  const int64_t* const end = at + code.shape(0);
  const auto affine = [&] {
    memfit::Affine sum{*at, std::vector<int64_t>(at + 1, at + 1 + variables)};
    at += 1 + variables;
    return sum;
  };
  while (at < end) {
    memfit::NestNode node;
    node.loop = at[0] != 0;
    if (node.loop) {
      node.end = static_cast<int32_t>(at[1]);
      node.variable = static_cast<int32_t>(at[2]);
      const int64_t bounds = at[3];
      at += 4;
      for (int64_t b = 0; b < bounds; ++b) node.trips.push_back(affine());
    } else {
      node.end = static_cast<int32_t>(nest.nodes.size()) + 1;
      node.array = static_cast<int32_t>(at[1]);
      node.write = at[2] != 0;
      at += 3;
      node.address = affine();
    }
    nest.nodes.push_back(std::move(node));
  }
  return nest;
}

template <class Address>
memfit::CacheTrace trace_of(Array<Address> addresses, Array<uint8_t> write, int line_shift, uint64_t first) {
  memfit::CacheTrace trace;
  if constexpr (sizeof(Address) == 8)
    trace.wide = addresses.data();
  else
    trace.narrow = addresses.data();
  trace.write = write.shape(0) ? write.data() : nullptr;
  trace.count = static_cast<int64_t>(addresses.shape(0));
  trace.line_shift = line_shift;
  trace.first_line = first;
  return trace;
}

template <class Address>
void define_traces(nb::module_& m) {
  m.def("cache_trace",
        [](Ints levels, int inclusion, bool apply, uint64_t seed, Array<Address> addresses, Array<uint8_t> write,
           int line_shift, uint64_t first, Ints spans, bool general) {
          const auto shape = shape_of(levels, inclusion, apply, seed);
          auto trace = trace_of<Address>(addresses, write, line_shift, first);
          trace.arrays = arrays_of(spans);
          auto out = interruptible([&](const memfit::CacheStop& stop) { return simulate_trace(shape, trace, general, stop); });
          return nb::make_tuple(own(std::move(out.served)), own(std::move(out.write_backs)), own(std::move(out.prefetches)),
                                out.near);
        },
        "Accesses that each depth served, [array and others][depth]; write-backs and prefetches of each level; whether "
        "all lines could be numbered (where not, the rest means nothing).");
  m.def("reuse_trace",
        [](Array<Address> addresses, int line_shift, uint64_t first, int64_t lines) {
          const auto trace = trace_of<Address>(addresses, Array<uint8_t>(), line_shift, first);
          auto out = interruptible([&](const memfit::CacheStop& stop) { return memfit::reuse_of_trace(trace, lines, stop); });
          return own(std::move(out.distance));
        },
        "Accesses of each stack distance, in lines; the last entry counts first uses.");
}

}  // namespace

void bind_cache(nb::module_& m) {
  define_traces<uint64_t>(m);
  define_traces<uint32_t>(m);
  m.def("cache_nest",
        [](Ints levels, int inclusion, bool apply, uint64_t seed, Ints code, Ints spans, int variables, int line_shift,
           bool general, bool jump) {
          const auto shape = shape_of(levels, inclusion, apply, seed);
          const auto nest = nest_of(code, spans, variables, line_shift);
          auto out = interruptible([&](const memfit::CacheStop& stop) { return simulate_nest(shape, nest, general, jump, stop); });
          return nb::make_tuple(own(std::move(out.served)), own(std::move(out.write_backs)), own(std::move(out.prefetches)),
                                out.simulated, out.jumps, out.jumped_periods);
        },
        "As cache_trace, of a nest; then accesses simulated, jumps, and periods jumped over.");
  m.def("reuse_nest",
        [](Ints code, Ints spans, int variables, int line_shift, Ints capacities) {
          const auto nest = nest_of(code, spans, variables, line_shift);
          const auto sizes = copy(capacities);
          auto out = interruptible([&](const memfit::CacheStop& stop) { return memfit::reuse_of_nest(nest, sizes, stop); });
          return nb::make_tuple(own(std::move(out.distance)), own(std::move(out.misses)), own(std::move(out.cold)));
        },
        "Accesses of each stack distance (last: first uses); misses at the capacities by array; first uses by array.");
  m.def("nest_footprint",
        [](Ints code, Ints spans, int variables, int line_shift) {
          const auto nest = nest_of(code, spans, variables, line_shift);
          return own(interruptible([&](const memfit::CacheStop&) { return memfit::footprint(nest); }));
        },
        "Different lines that the accesses to each array touch.");
}
