// One pass over the objects that Python's collector tracks: who they are, of which type, how long the containers among
// them are, and how many there are of each type. The twins are `columns_slowly` and `survey_slowly` in runtime/living.py.
// About 60 ns an object, nearly all of it the collector's own list of them; no object is made or kept.
#include <unordered_map>

#include "bind.h"

namespace {

int64_t length_of(PyObject* object, const PyObject* deque) {
  Py_ssize_t length = -1;
  if (PyList_Check(object)) {
    length = PyList_Size(object);
  } else if (PyDict_Check(object)) {
    length = PyDict_Size(object);
  } else if (PyAnySet_Check(object)) {
    length = PySet_Size(object);
  } else if (reinterpret_cast<PyObject*>(Py_TYPE(object)) == deque) {
    length = PyObject_Size(object);
  }
  if (length < 0) PyErr_Clear();
  return length;
}

int64_t address_of(const void* object) { return static_cast<int64_t>(reinterpret_cast<intptr_t>(object)); }

// One call without a switch of threads: a tuple that another thread is just filling must not be referred to when that
// thread goes on, since it is then refused to grow. Tuples are left out for that reason, in the collector's own list.
nb::object tracked() {
  nb::object all = nb::module_::import_("gc").attr("get_objects")();
  const Py_ssize_t count = PyList_Size(all.ptr());
  Py_ssize_t kept = 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* object = PyList_GetItem(all.ptr(), i);
    if (PyTuple_CheckExact(object)) continue;
    if (kept != i) {
      Py_INCREF(object);
      PyList_SetItem(all.ptr(), kept, object);
    }
    ++kept;
  }
  if (PyList_SetSlice(all.ptr(), kept, count, nullptr) < 0) throw nb::python_error();
  return all;
}

struct Columns {
  std::vector<int64_t> address, type, length;

  Columns(PyObject* objects, const PyObject* deque) {
    const auto count = static_cast<size_t>(PyList_Size(objects));
    address.resize(count), type.resize(count), length.resize(count);
    for (size_t i = 0; i < count; ++i) {
      PyObject* object = PyList_GetItem(objects, static_cast<Py_ssize_t>(i));
      address[i] = address_of(object);
      type[i] = address_of(Py_TYPE(object));
      length[i] = length_of(object, deque);
    }
  }
};

}  // namespace

void bind_census(nb::module_& m) {
  m.def(
      "census",
      [](nb::list objects, nb::handle deque) {
        Columns found(objects.ptr(), deque.ptr());
        return nb::make_tuple(own(std::move(found.address)), own(std::move(found.type)), own(std::move(found.length)));
      },
      "Addresses, types (as addresses) and lengths (-1: no container) of the objects in a list.");
  m.def("living", &tracked, "All objects that the collector tracks, but tuples.");
  m.def(
      "survey",
      [](nb::handle deque) {
        nb::object objects = tracked();
        Columns found(objects.ptr(), deque.ptr());
        std::unordered_map<int64_t, size_t> place;
        std::vector<int64_t> kinds, numbers, first;
        int64_t last = 0;
        size_t row = 0;
        for (size_t i = 0; i < found.type.size(); ++i) {
          if (found.type[i] != last) {
            last = found.type[i];
            const auto [at, fresh] = place.emplace(last, kinds.size());
            row = at->second;
            if (fresh) kinds.push_back(last), numbers.push_back(0), first.push_back(static_cast<int64_t>(i));
          }
          ++numbers[row];
        }
        return nb::make_tuple(objects, own(std::move(found.address)), own(std::move(found.type)),
                              own(std::move(found.length)), own(std::move(kinds)), own(std::move(numbers)),
                              own(std::move(first)));
      },
      "What is living, its three columns, and of each type its address, how many, and the index of the first.");
}
