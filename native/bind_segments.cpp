// Segments and domains: the part of `runtime` that needs signals, protections and NumPy's allocation hooks.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>

#include "bind.h"
#include "core/domain.h"
#include "core/segment.h"

namespace {

using memfit::DomainAccount;
using memfit::Fault;
using memfit::Segment;

nb::object fault_of(bool done, const Fault& fault) {
  if (done) return nb::none();
  return nb::make_tuple(fault.offset, fault.access, fault.file);
}

// NumPy's allocation hooks (NEP 49), as its header has them; the table of its C functions gives the two calls.
struct Hooks {
  void* context;
  void* (*allocate)(void*, size_t);
  void* (*zeroed)(void*, size_t, size_t);
  void* (*resize)(void*, void*, size_t);
  void (*free)(void*, void*, size_t);
};
struct Handler {
  char name[127];
  uint8_t version;
  Hooks hooks;
};
constexpr int kSetHandler = 304, kGetHandler = 305;
constexpr const char* kCapsule = "mem_handler";

// What one domain's arrays come from: the account, and the handler found when the domain was entered. Bytes are kept by
// address: a resize does not say what was.
struct NumpyDomain {
  Handler handler{};
  Hooks inner{};
  PyObject* beneath = nullptr;  // held: its functions are called as long as arrays live
  DomainAccount* account = nullptr;
  std::mutex lock;
  std::unordered_map<void*, int64_t> bytes;

  void keep(void* address, int64_t size) {
    std::lock_guard<std::mutex> guard(lock);
    bytes[address] = size;
  }
  int64_t take(void* address, int64_t otherwise) {
    std::lock_guard<std::mutex> guard(lock);
    const auto at = bytes.find(address);
    if (at == bytes.end()) return otherwise;
    const int64_t size = at->second;
    bytes.erase(at);
    return size;
  }
};

void* numpy_made(NumpyDomain* domain, size_t count, size_t each, bool zeroed) {
  size_t size = 0;
  if (__builtin_mul_overflow(count, each, &size) || size > INT64_MAX) return nullptr;
  DomainAccount* account = domain->account;
  if (memfit::charge(account, static_cast<int64_t>(size)) == 0) return nullptr;
  void* made = account->guard.load() != 0 ? memfit::allocate_guarded(account->name, size)  // fresh pages are zero
               : zeroed                   ? domain->inner.zeroed(domain->inner.context, count, each)
                                          : domain->inner.allocate(domain->inner.context, size);
  if (made == nullptr) memfit::credit(account, static_cast<int64_t>(size));
  else domain->keep(made, static_cast<int64_t>(size));
  return made;
}

void* numpy_allocate(void* context, size_t size) { return numpy_made(static_cast<NumpyDomain*>(context), 1, size, false); }

void* numpy_zeroed(void* context, size_t count, size_t each) {
  return numpy_made(static_cast<NumpyDomain*>(context), count, each, true);
}

void numpy_free(void* context, void* address, size_t size) {
  auto* domain = static_cast<NumpyDomain*>(context);
  if (address == nullptr) return;
  memfit::credit(domain->account, domain->take(address, static_cast<int64_t>(size)));
  if (!memfit::free_guarded(address)) domain->inner.free(domain->inner.context, address, size);
}

void* numpy_resize(void* context, void* address, size_t size) {
  auto* domain = static_cast<NumpyDomain*>(context);
  if (address == nullptr) return numpy_allocate(context, size);
  void* made = numpy_allocate(context, size);
  if (made == nullptr) return nullptr;
  const int64_t before = domain->take(address, 0);
  std::memcpy(made, address, std::min(size, static_cast<size_t>(before)));
  memfit::credit(domain->account, before);
  if (!memfit::free_guarded(address)) domain->inner.free(domain->inner.context, address, static_cast<size_t>(before));
  return made;
}

void** numpy_table() {
  static void** table = nullptr;
  if (table == nullptr) {
    nb::object module = nb::module_::import_("numpy._core._multiarray_umath");
    nb::object capsule = module.attr("_ARRAY_API");
    table = static_cast<void**>(PyCapsule_GetPointer(capsule.ptr(), nullptr));
    if (table == nullptr) nb::raise_python_error();
  }
  return table;
}

PyObject* numpy_set(PyObject* handler) {
  return reinterpret_cast<PyObject* (*)(PyObject*)>(numpy_table()[kSetHandler])(handler);
}

// Puts the domain's handler over the one in place; the one to give back to `numpy_leave`.
nb::object numpy_enter(uintptr_t account) {
  auto* found = reinterpret_cast<PyObject* (*)()>(numpy_table()[kGetHandler])();
  if (found == nullptr) nb::raise_python_error();
  auto* beneath = static_cast<Handler*>(PyCapsule_GetPointer(found, kCapsule));
  if (beneath == nullptr) nb::raise_python_error();
  auto* domain = new NumpyDomain();
  std::strncpy(domain->handler.name, "memfit_domain", sizeof domain->handler.name - 1);
  domain->handler.version = 1;
  domain->handler.hooks = {domain, &numpy_allocate, &numpy_zeroed, &numpy_resize, &numpy_free};
  domain->inner = beneath->hooks;
  domain->beneath = found;
  if (beneath->hooks.allocate == &numpy_allocate) {  // inside of another domain: the innermost alone is charged
    auto* outer = static_cast<NumpyDomain*>(beneath->hooks.context);
    domain->inner = outer->inner;
    domain->beneath = outer->beneath;
    Py_INCREF(domain->beneath);
  }
  domain->account = reinterpret_cast<DomainAccount*>(account);
  // Arrays hold the capsule; the last of them, or the context that it is set in, lets it go.
  PyObject* capsule = PyCapsule_New(&domain->handler, kCapsule, [](PyObject* self) {
    auto* handler = static_cast<Handler*>(PyCapsule_GetPointer(self, kCapsule));
    auto* gone = static_cast<NumpyDomain*>(handler->hooks.context);
    Py_XDECREF(gone->beneath);
    delete gone;
  });
  if (capsule == nullptr) nb::raise_python_error();
  PyObject* old = numpy_set(capsule);
  Py_DECREF(capsule);
  if (domain->beneath != found) Py_DECREF(found);
  if (old == nullptr) nb::raise_python_error();
  return nb::steal(old);
}

void numpy_leave(nb::object before) {
  PyObject* old = numpy_set(before.ptr());
  if (old == nullptr) nb::raise_python_error();
  Py_DECREF(old);
}

}  // namespace

void bind_segments(nb::module_& m) {
  nb::class_<Segment>(m, "Segment", "A range of memory with a base, a limit and a protection, between guard pages.",
                      nb::is_weak_referenceable())
      .def("__init__", [](Segment* self, const std::string& name, int64_t bytes, int64_t guard) {
        new (self) Segment(name.c_str(), bytes, guard);
      })
      .def_static("map", [](const std::string& name, int descriptor, int64_t bytes, int64_t guard) {
        return new Segment(name.c_str(), descriptor, bytes, guard);
      })
      .def("protect", &Segment::protect)
      .def("rename", [](Segment& self, const std::string& name) { self.rename(name.c_str()); })
      .def("close", &Segment::close)
      .def("breach", [](const Segment& self) -> nb::object {
        const int64_t at = self.breach();
        return at == INT64_MIN ? nb::none() : nb::cast(at);
      })
      .def("read", [](Segment& self, int64_t offset, nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> to) {
        Fault fault;
        const bool done = memfit::copy_checked(to.data(), self.base() + offset, to.shape(0), fault);
        return fault_of(done, fault);
      }, "Copies from the segment, not held to its limit; None, or where it faulted: (offset, access, file).")
      .def("write", [](Segment& self, int64_t offset, Array<uint8_t> from) {
        Fault fault;
        const bool done = memfit::copy_checked(self.base() + offset, from.data(), from.shape(0), fault);
        return fault_of(done, fault);
      }, "Copies to the segment, not held to its limit; None, or where it faulted: (offset, access, file).")
      .def("bytes", [](nb::handle self) {
        auto* segment = nb::cast<Segment*>(self);
        return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(segment->base(), {static_cast<size_t>(segment->bytes())},
                                                            nb::borrow(self));
      }, "All of it as an array, which keeps the segment.")
      .def_prop_ro("address", [](const Segment& self) { return reinterpret_cast<uintptr_t>(self.base()); })
      .def_prop_ro("protection", &Segment::protection);
  m.def("watch_faults", &memfit::watch_faults);
  m.attr("FAULT_EXIT") = memfit::kFaultExit;

  m.def("domain_open", [](const std::string& name) {
    auto* account = new DomainAccount();  // lives for ever: blocks are credited to it whenever they are freed
    std::strncpy(account->name, name.c_str(), sizeof account->name - 1);
    return reinterpret_cast<uintptr_t>(account);
  });
  m.def("domain_limit", [](uintptr_t account, int64_t budget, bool guard) {
    auto* at = reinterpret_cast<DomainAccount*>(account);
    at->budget.store(budget);
    at->guard.store(guard ? 1 : 0);
  });
  m.def("domain_figures", [](uintptr_t account) {
    auto* at = reinterpret_cast<DomainAccount*>(account);
    return nb::make_tuple(at->used.load(), at->high.load(), at->budget.load(), at->blocks.load(), at->charges.load(),
                          at->refused.load(), at->needed.load());
  });
  m.def("domain_reset_high", [](uintptr_t account) {
    auto* at = reinterpret_cast<DomainAccount*>(account);
    at->high.store(at->used.load());
  });
  m.def("domain_charge", [](uintptr_t account, int64_t bytes) {
    return memfit::charge(reinterpret_cast<DomainAccount*>(account), bytes) != 0;
  });
  m.def("domain_credit", [](uintptr_t account, int64_t bytes) {
    memfit::credit(reinterpret_cast<DomainAccount*>(account), bytes);
  });
  // For a library of C++ that stands between a framework and its memory: the calls, as addresses.
  m.def("domain_calls", [] {
    return nb::make_tuple(reinterpret_cast<uintptr_t>(+[](void* account, int64_t bytes) {
                            return memfit::charge(static_cast<DomainAccount*>(account), bytes);
                          }),
                          reinterpret_cast<uintptr_t>(+[](void* account, int64_t bytes) {
                            memfit::credit(static_cast<DomainAccount*>(account), bytes);
                          }),
                          reinterpret_cast<uintptr_t>(+[](void* account, int64_t bytes) -> void* {
                            auto* at = static_cast<DomainAccount*>(account);
                            if (at->guard.load() == 0) return nullptr;
                            return memfit::allocate_guarded(at->name, static_cast<size_t>(bytes));
                          }),
                          reinterpret_cast<uintptr_t>(+[](void* address) { return memfit::free_guarded(address) ? 1 : 0; }));
  });
  m.def("numpy_enter", &numpy_enter);
  m.def("numpy_leave", &numpy_leave);
}
