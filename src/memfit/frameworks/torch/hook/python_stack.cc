// Where Python stands: the innermost torch.nn.Module whose forward runs, and on request the whole stack.
//
// A thread's own frames stay as they are while it is inside C++, so they are read without the interpreter lock, by
// pointer chasing: no frame object is made. The lock is taken only when a stack is seen for the first time, to keep its
// code objects alive. Python 3.11 to 3.13 by their frame layout; others through the public interface, which is slower.
#include "recording.h"

#if __has_include(<Python.h>)
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030E0000 && !defined(MEMFIT_PUBLIC_FRAMES) && !defined(Py_GIL_DISABLED)
#define MEMFIT_FRAME_LAYOUT 1
#define Py_BUILD_CORE 1
#include <internal/pycore_frame.h>
#undef Py_BUILD_CORE
#endif
#define MEMFIT_PYTHON 1
#endif

#include <cstring>
#include <unordered_map>

namespace memfit {
namespace {

struct Frame {
  const void* code;
  int64_t instruction;  // byte offset, as PyCode_Addr2Line takes it
  bool operator==(const Frame& other) const { return code == other.code && instruction == other.instruction; }
};

constexpr int kFrames = 96;        // innermost frames of a stack that are kept
constexpr int kModuleSearch = 24;  // frames looked at for a module when no stacks are kept

std::mutex stacks_lock;
std::vector<std::vector<Frame>> stacks;
std::unordered_multimap<uint64_t, int32_t> stack_index;
std::vector<const void*> kept;  // code objects with a reference of ours
std::atomic<bool> keep_stacks{false};
std::atomic<const void*> module_call{nullptr};  // the code of torch.nn.Module.__call__

[[maybe_unused]] int32_t find_stack(uint64_t hash, const Frame* frames, int count) {
  const auto [begin, end] = stack_index.equal_range(hash);
  for (auto at = begin; at != end; ++at) {
    const auto& known = stacks[at->second];
    if (known.size() == static_cast<size_t>(count) && std::equal(known.begin(), known.end(), frames)) return at->second;
  }
  return -1;
}

}  // namespace

#ifdef MEMFIT_PYTHON

namespace {

int32_t stack_of(const Frame* frames, int count) {
  uint64_t hash = 1469598103934665603ull;
  for (int at = 0; at < count; ++at) {
    hash = (hash ^ reinterpret_cast<uintptr_t>(frames[at].code)) * 0x9E3779B97F4A7C15ull;
    hash = (hash ^ static_cast<uint64_t>(frames[at].instruction)) * 0xC2B2AE3D27D4EB4Full;
    hash ^= hash >> 29;
  }
  {
    std::lock_guard<std::mutex> guard(stacks_lock);
    const int32_t known = find_stack(hash, frames, count);
    if (known >= 0) return known;
  }
  const PyGILState_STATE gil = PyGILState_Ensure();  // never while a lock of ours is held
  for (int at = 0; at < count; ++at) Py_INCREF(reinterpret_cast<PyObject*>(const_cast<void*>(frames[at].code)));
  PyGILState_Release(gil);
  std::lock_guard<std::mutex> guard(stacks_lock);
  for (int at = 0; at < count; ++at) kept.push_back(frames[at].code);
  const int32_t known = find_stack(hash, frames, count);
  if (known >= 0) return known;
  stacks.emplace_back(frames, frames + count);
  stack_index.emplace(hash, static_cast<int32_t>(stacks.size()) - 1);
  return static_cast<int32_t>(stacks.size()) - 1;
}

#ifdef MEMFIT_FRAME_LAYOUT

const void* first_local(_PyInterpreterFrame* frame) {
  PyObject* value = frame->localsplus[0];
  return value != nullptr && PyCell_Check(value) ? PyCell_GET(value) : value;
}

int walk(PyThreadState* thread, Frame* frames, int limit, bool all, const void** module) {
#if PY_VERSION_HEX >= 0x030D0000
  _PyInterpreterFrame* frame = thread->current_frame;
#else
  _PyInterpreterFrame* frame = thread->cframe->current_frame;
#endif
  const void* wanted = module_call.load(std::memory_order_relaxed);
  int count = 0;
  for (int seen = 0; frame != nullptr && count < limit && (all || seen < kModuleSearch); frame = frame->previous, ++seen) {
#if PY_VERSION_HEX >= 0x030D0000
    if (frame->owner == FRAME_OWNED_BY_CSTACK || frame->f_executable == nullptr || !PyCode_Check(frame->f_executable)) continue;
    auto* code = reinterpret_cast<PyCodeObject*>(frame->f_executable);
    const int64_t instruction = (frame->instr_ptr - _PyCode_CODE(code)) * static_cast<int64_t>(sizeof(_Py_CODEUNIT));
#else
#if PY_VERSION_HEX >= 0x030C0000
    if (frame->owner == FRAME_OWNED_BY_CSTACK) continue;
#endif
    PyCodeObject* code = frame->f_code;
    const int64_t instruction = (frame->prev_instr - _PyCode_CODE(code)) * static_cast<int64_t>(sizeof(_Py_CODEUNIT));
#endif
    if (*module == nullptr && code == wanted) {
      *module = first_local(frame);
      if (!all) return 0;
    }
    if (all) frames[count++] = {code, instruction};
  }
  return count;
}

#else

int walk(PyThreadState* thread, Frame* frames, int limit, bool all, const void** module) {
  const void* wanted = module_call.load(std::memory_order_relaxed);
  const PyGILState_STATE gil = PyGILState_Ensure();
  PyFrameObject* frame = PyThreadState_GetFrame(thread);
  int count = 0;
  for (int seen = 0; frame != nullptr && count < limit && (all || seen < kModuleSearch); ++seen) {
    PyCodeObject* code = PyFrame_GetCode(frame);
    if (*module == nullptr && code == wanted) {
#if PY_VERSION_HEX >= 0x030C0000
      PyObject* self = PyFrame_GetVarString(frame, "self");
      *module = self;
      if (self == nullptr) PyErr_Clear();
      Py_XDECREF(self);
#else
      PyObject* locals = PyFrame_GetLocals(frame);
      *module = locals == nullptr ? nullptr : PyDict_GetItemString(locals, "self");
      Py_XDECREF(locals);
#endif
      if (!all) frame = (Py_DECREF(frame), nullptr);
    }
    if (all) frames[count++] = {code, PyFrame_GetLasti(frame)};
    Py_DECREF(code);  // the frame keeps it
    if (frame != nullptr) {
      PyFrameObject* back = PyFrame_GetBack(frame);
      Py_DECREF(frame);
      frame = back;
    }
  }
  Py_XDECREF(frame);
  PyGILState_Release(gil);
  return count;
}

#endif

}  // namespace

Position python_position() {
  Position position;
  PyThreadState* thread = PyGILState_GetThisThreadState();
  if (thread == nullptr) return position;  // a thread without Python
  Frame frames[kFrames];
  const bool all = keep_stacks.load(std::memory_order_relaxed);
  const int count = walk(thread, frames, kFrames, all, &position.module);
  if (count > 0) position.stack = stack_of(frames, count);
  return position;
}

#else

Position python_position() { return {}; }

#endif

void gather_stacks(bool on) { keep_stacks.store(on); }

size_t stack_bytes() {
  std::lock_guard<std::mutex> guard(stacks_lock);
  size_t bytes = kept.capacity() * sizeof(void*);
  for (const auto& stack : stacks) bytes += stack.capacity() * sizeof(Frame) + 64;
  return bytes;
}

}  // namespace memfit

using namespace memfit;

extern "C" {

int memfit_has_python() {
#ifdef MEMFIT_PYTHON
  return 1;
#else
  return 0;
#endif
}

void memfit_set_module_call(const void* code) { module_call.store(code); }

int64_t memfit_stack_count(int64_t* frames) {
  std::lock_guard<std::mutex> guard(stacks_lock);
  *frames = 0;
  for (const auto& stack : stacks) *frames += static_cast<int64_t>(stack.size());
  return static_cast<int64_t>(stacks.size());
}

// Lengths of the stacks, then their frames one after another, innermost first.
void memfit_copy_stacks(int64_t* length, int64_t* code, int64_t* instruction) {
  std::lock_guard<std::mutex> guard(stacks_lock);
  size_t at = 0;
  for (size_t row = 0; row < stacks.size(); ++row) {
    length[row] = static_cast<int64_t>(stacks[row].size());
    for (const Frame& frame : stacks[row]) {
      code[at] = reinterpret_cast<int64_t>(frame.code);
      instruction[at++] = frame.instruction;
    }
  }
}

// With the interpreter lock held.
void memfit_clear_stacks() {
  std::vector<const void*> drop;
  {
    std::lock_guard<std::mutex> guard(stacks_lock);
    drop.swap(kept);
    stacks.clear();
    stack_index.clear();
  }
#ifdef MEMFIT_PYTHON
  for (const void* code : drop) Py_DECREF(reinterpret_cast<PyObject*>(const_cast<void*>(code)));
#endif
}

}  // extern "C"
