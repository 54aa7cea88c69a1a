// What the binding files share: arrays that travel between NumPy and the kernels without Python in the kernels.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <functional>
#include <vector>

namespace nb = nanobind;

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> own(std::vector<T>&& values) {
  auto* held = new std::vector<T>(std::move(values));
  nb::capsule owner(held, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T, nb::ndim<1>>(held->data(), {held->size()}, owner);
}

template <class T>
std::vector<T> copy(const Array<T>& array) {
  return std::vector<T>(array.data(), array.data() + array.shape(0));
}

// Runs without the interpreter's lock; `run` polls what it is given, and an interruption is raised here.
template <class Run>
auto interruptible(Run run) {
  bool interrupted = false;
  const std::function<bool()> stop = [&interrupted] {
    nb::gil_scoped_acquire acquire;
    return interrupted = PyErr_CheckSignals() != 0;
  };
  auto out = [&] {
    nb::gil_scoped_release release;
    return run(stop);
  }();
  if (interrupted) throw nb::python_error();
  return out;
}

// One file of bindings each; `bind.cpp` makes the module of them.
void bind_placement(nb::module_& m);
void bind_greedy(nb::module_& m);
void bind_large_placement(nb::module_& m);
void bind_caching(nb::module_& m);
void bind_policies(nb::module_& m);
void bind_census(nb::module_& m);
void bind_order(nb::module_& m);
void bind_replacement(nb::module_& m);
void bind_kv_cache(nb::module_& m);
void bind_pool(nb::module_& m);
void bind_lowbit(nb::module_& m);
void bind_data(nb::module_& m);
void bind_cache(nb::module_& m);
void bind_memory(nb::module_& m);
