// The variables of a function's frame, read where they lie. Before Python 3.13 the attribute f_locals copies them into a
// table that stays beside the frame: it holds what the function lets go, puts back what a program took out of the table
// that locals() gave it, and, emptied while another thread's trace function runs, empties the frame itself. The layout
// of a frame is the interpreter's own: this is compiled for one version of Python, and not at all from 3.13 on.
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE 1
#include <Python.h>
#include "internal/pycore_code.h"
#include "internal/pycore_frame.h"

static const int kHidden = 0x10;

static PyObject *variables(PyObject *module, PyObject *argument) {
  (void)module;
  if (!PyFrame_Check(argument)) {
    PyErr_SetString(PyExc_TypeError, "variables() takes a frame");
    return NULL;
  }
  struct _PyInterpreterFrame *frame = ((PyFrameObject *)argument)->f_frame;
  PyCodeObject *code = frame->f_code;
  PyObject *found = PyDict_New();
  for (int at = 0; found && at < code->co_nlocalsplus; at++) {
    PyObject *value = frame->localsplus[at];
    int kind = (unsigned char)PyBytes_AS_STRING(code->co_localspluskinds)[at];
    if (!value || (kind & kHidden)) {
      continue;
    }
    if ((kind & (CO_FAST_CELL | CO_FAST_FREE)) && PyCell_Check(value)) {
      value = PyCell_GET(value);
    }
    if (value && PyDict_SetItem(found, PyTuple_GET_ITEM(code->co_localsplusnames, at), value) < 0) {
      Py_CLEAR(found);
    }
  }
  return found;
}

static PyMethodDef methods[] = {{"variables", variables, METH_O, "The variables of a function's frame, as a new dict."},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "_frames", .m_methods = methods};

PyMODINIT_FUNC PyInit__frames(void) { return PyModule_Create(&definition); }
