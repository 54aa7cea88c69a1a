// One pass over a list of Python objects: who they are, of which type, and how long the containers among them are.
// The twin is `census_slowly` in observe/leak_census.py. About 5 ns an object; no object is made or kept.
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

}  // namespace

void bind_census(nb::module_& m) {
  m.def(
      "census",
      [](nb::list objects, nb::handle deque) {
        const auto count = static_cast<size_t>(PyList_Size(objects.ptr()));
        std::vector<int64_t> address(count), type(count), length(count);
        for (size_t i = 0; i < count; ++i) {
          PyObject* object = PyList_GetItem(objects.ptr(), static_cast<Py_ssize_t>(i));
          address[i] = static_cast<int64_t>(reinterpret_cast<intptr_t>(object));
          type[i] = static_cast<int64_t>(reinterpret_cast<intptr_t>(Py_TYPE(object)));
          length[i] = length_of(object, deque.ptr());
        }
        return nb::make_tuple(own(std::move(address)), own(std::move(type)), own(std::move(length)));
      },
      "Addresses, types (as addresses) and lengths (-1: no container) of the objects in a list.");
  m.def(
      "living",
      [] {
        // One call without a switch of threads: a tuple that another thread is just filling must not be referred to
        // when that thread goes on, since it is then refused to grow. Tuples are left out for that reason.
        nb::object all = nb::module_::import_("gc").attr("get_objects")();
        nb::list found;
        const Py_ssize_t count = PyList_Size(all.ptr());
        for (Py_ssize_t i = 0; i < count; ++i) {
          PyObject* object = PyList_GetItem(all.ptr(), i);
          if (!PyTuple_CheckExact(object)) found.append(nb::handle(object));
        }
        return found;
      },
      "All objects that the collector tracks, but tuples.");
}
