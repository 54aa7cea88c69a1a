// What is called several times in every step, as functions of Python's own: a call costs 0.1 us, one through ctypes 1 us.
//
// The CPU time of the process is told by a system call of about 1 us, where the clock of the wall costs 0.03: a step that
// begins within 10 us of the end of the last one begins at that reading.
#include "recording.h"

#if __has_include(<Python.h>)
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <time.h>

namespace memfit {
namespace {

constexpr int64_t kAtOnce = 10'000;  // ns
int64_t ended_at = -1;               // monotonic: the last end of a step
int64_t cpu_began = 0, cpu_ended = 0;

int64_t cpu_now() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<int64_t>(time.tv_sec) * 1000000000 + time.tv_nsec;
}

PyObject* mark_phase(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 2) return PyErr_Format(PyExc_TypeError, "mark_phase takes a step and a phase");
  const long long step = PyLong_AsLongLong(arguments[0]);
  if (step == -1 && PyErr_Occurred()) return nullptr;
  const char* phase = PyUnicode_AsUTF8(arguments[1]);
  if (phase == nullptr) return nullptr;
  push_mark(step, phase);
  Py_RETURN_NONE;
}

PyObject* begin_step(PyObject*, PyObject*) {
  turn_step();
  cpu_began = ended_at >= 0 && now() - ended_at < kAtOnce ? cpu_ended : cpu_now();
  Py_RETURN_NONE;
}

PyObject* end_step(PyObject*, PyObject*) {
  cpu_ended = cpu_now();
  ended_at = now();
  const StepFigures figures = turn_step();
  return Py_BuildValue("LLLd", static_cast<long long>(figures.peak), static_cast<long long>(figures.live),
                       static_cast<long long>(figures.digest), static_cast<double>(cpu_ended - cpu_began) * 1e-9);
}

PyMethodDef methods[] = {
    {"begin_step", begin_step, METH_NOARGS, nullptr},
    {"end_step", end_step, METH_NOARGS, nullptr},
    {"mark_phase", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(mark_phase)), METH_FASTCALL, nullptr},
};

}  // namespace
}  // namespace memfit

// (begin_step, end_step, mark_phase), with the interpreter lock held.
extern "C" PyObject* memfit_step_calls() {
  PyObject* calls = PyTuple_New(3);
  if (calls == nullptr) return nullptr;
  for (Py_ssize_t at = 0; at < 3; ++at) {
    PyObject* call = PyCFunction_New(&memfit::methods[at], nullptr);
    if (call == nullptr) {
      Py_DECREF(calls);
      return nullptr;
    }
    PyTuple_SET_ITEM(calls, at, call);
  }
  return calls;
}

#endif
