// Bindings of the pool, and its handler for NumPy's arrays (NEP 49). No header of NumPy is needed: the handler is a struct
// of a fixed layout, version 1, and it is set through NumPy's table of functions.
#include "bind.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <cstring>

#include "core/pool.h"
#include "core/pool_plan.h"

using memfit::Pool;

namespace {

struct ArrayHandler {  // PyDataMem_Handler of numpy/ndarraytypes.h
  char name[127];
  uint8_t version;
  void* context;
  void* (*allocate)(void*, size_t);
  void* (*allocate_zeroed)(void*, size_t, size_t);
  void* (*resize)(void*, void*, size_t);
  void (*release)(void*, void*, size_t);
};

ArrayHandler& handler() {
  static ArrayHandler made = [] {
    ArrayHandler out{};
    std::strncpy(out.name, "memfit_pool", sizeof out.name - 1);
    out.version = 1;
    out.context = &Pool::shared();
    out.allocate = [](void* pool, size_t bytes) { return static_cast<Pool*>(pool)->allocate(bytes); };
    out.allocate_zeroed = [](void* pool, size_t count, size_t each) -> void* {
      size_t bytes;
      if (__builtin_mul_overflow(count, each, &bytes)) return nullptr;
      return static_cast<Pool*>(pool)->allocate_zeroed(bytes);
    };
    out.resize = [](void* pool, void* block, size_t bytes) { return static_cast<Pool*>(pool)->resize(block, bytes); };
    out.release = [](void* pool, void* block, size_t) { static_cast<Pool*>(pool)->release(block); };
    return out;
  }();
  return made;
}

void* allocate_block(size_t bytes) { return Pool::shared().allocate(bytes); }
void release_block(void* block) { Pool::shared().release(block); }
size_t block_bytes(const void* block) { return Pool::shared().bytes_of(block); }

constexpr size_t kSetHandler = 304;  // in NumPy's table of functions, as its stable interface promises

// Makes `wanted` the handler of this context; returns the one before.
nb::object set_array_handler(nb::object table, nb::object wanted) {
  auto** functions = static_cast<void**>(PyCapsule_GetPointer(table.ptr(), nullptr));
  if (functions == nullptr) throw nb::python_error();
  using Set = PyObject* (*)(PyObject*);
  PyObject* before = reinterpret_cast<Set>(functions[kSetHandler])(wanted.ptr());
  if (before == nullptr) throw nb::python_error();
  return nb::steal(before);
}

nb::dict figures_of(Pool& pool) {
  const auto figures = pool.figures();
  const auto small = memfit::PoolSmall::figures();
  nb::dict out;
  out["live_bytes"] = figures.live_bytes;
  out["live_blocks"] = figures.live_blocks;
  out["allocated_bytes"] = figures.allocated_bytes;
  out["peak_live_bytes"] = figures.peak_live_bytes;
  out["peak_allocated_bytes"] = figures.peak_allocated_bytes;
  out["reserved_bytes"] = figures.reserved_bytes;
  out["touched_bytes"] = figures.touched_bytes;
  out["peak_touched_bytes"] = figures.peak_touched_bytes;
  out["given_back_bytes"] = figures.given_back_bytes;
  out["allocations"] = figures.allocations;
  out["frees"] = figures.frees;
  out["holes"] = figures.holes;
  out["largest_hole_bytes"] = figures.largest_hole_below_top;
  out["refused"] = figures.refused;
  out["plans"] = figures.plans;
  out["departures"] = figures.departures;
  out["periods"] = figures.periods;
  out["planned"] = figures.planned;
  out["plan_events"] = figures.plan_events;
  out["plan_bytes"] = figures.plan_bytes;
  out["plan_packed"] = figures.plan_packed != 0;
  out["small_allocations"] = small.allocations;
  out["small_frees"] = small.frees;
  out["small_live_bytes"] = small.live_bytes;
  out["small_cached_bytes"] = small.cached_bytes;
  return out;
}

// A pool's placement alone, for the test that holds it against its twin.
class Layout {
 public:
  explicit Layout(int64_t granules) : layout_(granules) {}
  Layout(const Layout&) = delete;
  int64_t take(int64_t size) { return layout_.take(size); }
  bool take_at(int64_t start, int64_t size) { return layout_.take_at(start, size); }
  void give(int64_t start, int64_t size) { layout_.give(start, size); }

 private:
  memfit::PoolLayout layout_;
};

}  // namespace

void bind_pool(nb::module_& m) {
  m.def("pool_activate", [](bool on) { Pool::shared().activate(on); });
  m.def("pool_settings", [](int64_t patience, bool planning) {
    Pool::shared().set_patience(patience);
    Pool::shared().set_planning(planning);
  });
  m.def("pool_step", [] { Pool::shared().mark_step(); });
  m.def("pool_trim", [] {
    nb::gil_scoped_release release;
    return Pool::shared().trim();
  });
  m.def("pool_figures", [] { return figures_of(Pool::shared()); });
  m.def("pool_living", [] { return Pool::shared().living(); }, "Address and bytes of each block in the pool's range.");
  m.def("pool_holds", [](uintptr_t address) { return Pool::shared().holds(reinterpret_cast<void*>(address)); });
  m.def("pool_functions", [] {
    return nb::make_tuple(reinterpret_cast<uintptr_t>(&allocate_block), reinterpret_cast<uintptr_t>(&release_block),
                          reinterpret_cast<uintptr_t>(&block_bytes));
  }, "Addresses of allocate(bytes), release(block), bytes(block), for a framework's own adapter.");
  m.def("pool_array_handler", [] { return nb::capsule(&handler(), "mem_handler"); });
  m.def("set_array_handler", &set_array_handler, nb::arg("table"), nb::arg("handler").none());
  nb::class_<Layout>(m, "PoolLayout", "Where the pool puts blocks, in granules.")
      .def(nb::init<int64_t>())
      .def("take", &Layout::take)
      .def("take_at", &Layout::take_at)
      .def("give", &Layout::give);
  nb::class_<memfit::PoolRepeats>(m, "PoolRepeats", "Which events of a stream repeat, as they come.")
      .def(nb::init<>())
      .def("add", [](memfit::PoolRepeats& self, uint64_t code, int64_t live) { return self.add({code, -1, live}); })
      .def_prop_ro("period", &memfit::PoolRepeats::period);
  m.def("plan_period",
        [](Array<uint64_t> code, Array<int64_t> start, std::vector<std::pair<int64_t, int64_t>> taken) {
          std::vector<memfit::PoolEvent> events;
          for (size_t i = 0; i < code.shape(0); ++i) events.push_back({code.data()[i], start.data()[i], 0});
          const auto plan = memfit::plan_period(events, taken);
          std::vector<int64_t> places, until;
          for (const auto& entry : plan.entries) {
            places.push_back(entry.start);
            until.push_back(entry.until);
          }
          return nb::make_tuple(own(std::move(places)), own(std::move(until)), plan.end, plan.packed, plan.spans);
        },
        "The plan of one period: place and freeing event of each event, end, packed, union of the places.");
}
