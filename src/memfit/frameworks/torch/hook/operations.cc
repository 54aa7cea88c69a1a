// Which operation runs: a RecordFunction observer keeps a small stack per thread, and an operation becomes a row of the
// recording only when a block is allocated in it, or when autograd numbered it and so may come back to it.
#include <ATen/record_function.h>

#include <cstring>
#include <unordered_map>

#include "recording.h"

namespace memfit {

std::vector<std::string> texts;

namespace {

constexpr int32_t kUnknown = -2;  // not yet a row
constexpr int32_t kAfterNode = 64;  // scope of what the engine itself runs on the gradients that a node returned
constexpr int kDepth = 128;       // deeper operations are charged to the one at this depth

struct Active {
  const at::RecordFunction* function;
  int32_t operation;
  int8_t python;  // whether it may run Python inside, -1: not asked yet
};

struct ThreadState {
  int64_t epoch = -1;
  int depth = 0;
  Active active[kDepth];
};

thread_local ThreadState state;
std::atomic<int64_t> epoch{0};
at::CallbackHandle handle = at::INVALID_CALLBACK_HANDLE;
std::unordered_map<std::string, int32_t>& text_index() {
  static auto* index = new std::unordered_map<std::string, int32_t>();
  return *index;
}

// Text pointers of schemas are stable, others are not: the cache compares the text, and saves only the allocation.
struct Cached {
  const char* text = nullptr;
  const char* overload = nullptr;
  int32_t index = -1;
};
Cached cache[1024];

bool is_text(const std::string& whole, const char* text, const char* overload) {
  const size_t length = std::strlen(text);
  if (*overload == 0) return whole == text;
  return whole.size() > length && whole[length] == '.' && whole.compare(0, length, text) == 0 &&
         std::strcmp(whole.c_str() + length + 1, overload) == 0;
}

bool is_engine(const char* name) { return std::strncmp(name, "autograd::engine::", 18) == 0; }
// An operation of C++ runs no Python of its own; autograd.Function, record_function and backward nodes may.
bool runs_python(Active& active) {
  if (active.python < 0)
    active.python = active.function->scope() != at::RecordScope::FUNCTION || std::strstr(active.function->name(), "::") == nullptr;
  return active.python != 0;
}

// The row of active[top], making rows for it and what it runs in.
int32_t row_of(ThreadState& here, int top) {
  int first = top;
  while (first > 0 && here.active[first - 1].operation == kUnknown) --first;
  for (int at = first; at <= top; ++at) {
    Active& active = here.active[at];
    if (active.operation != kUnknown) continue;
    const at::RecordFunction& function = *active.function;
    const int32_t parent = at == 0 ? -1 : here.active[at - 1].operation;
    const char* name = function.name();
    const bool in_function = at > 0 && !runs_python(here.active[at - 1]);
    const bool deep = in_function && at > 1 && !runs_python(here.active[at - 2]);
    if (is_engine(name) || (deep && std::strncmp(name, "aten::empty", 11) == 0)) {
      active.operation = parent;
      continue;
    }
    const bool after_node = at > 0 && parent < 0 && function.scope() == at::RecordScope::FUNCTION &&
                            is_engine(here.active[at - 1].function->name());
    const int32_t scope = after_node ? kAfterNode : static_cast<int32_t>(function.scope());
    Position position;
    if (!in_function || parent < 0) position = python_position();
    std::lock_guard<std::mutex> guard(lock);
    if (in_function && parent >= 0) position = {operations[parent].module, operations[parent].stack};
    active.operation = static_cast<int32_t>(operations.size());
    operations.push({function.seqNr(), function.threadId(), function.forwardThreadId(), now(), position.module,
                     intern(name, function.overload_name()), parent, scope, position.stack});
  }
  return here.active[top].operation;
}

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  ThreadState& here = state;
  const int64_t current = epoch.load(std::memory_order_relaxed);
  if (here.epoch != current) {
    here.epoch = current;
    here.depth = 0;
  }
  if (here.depth < kDepth) here.active[here.depth] = {&function, kUnknown, -1};
  ++here.depth;
  return nullptr;
}

void on_end(const at::RecordFunction& function, at::ObserverContext*) {
  ThreadState& here = state;
  if (here.epoch != epoch.load(std::memory_order_relaxed) || here.depth == 0) return;
  if (here.depth > kDepth) {
    --here.depth;
    return;
  }
  int at = here.depth - 1;
  while (at >= 0 && here.active[at].function != &function) --at;
  if (at < 0) return;  // began before the recording, or on another thread
  const bool outermost = at == 0 || runs_python(here.active[at - 1]);
  if (outermost && function.seqNr() >= 0 && here.active[at].operation == kUnknown && recording.load(std::memory_order_relaxed))
    row_of(here, at);
  here.depth = at;
}

}  // namespace

int32_t intern(const char* text, const char* overload) {
  if (overload == nullptr) overload = "";
  const size_t slot = (reinterpret_cast<uintptr_t>(text) * 31 + reinterpret_cast<uintptr_t>(overload)) / 8 % 1024;
  Cached& cached = cache[slot];
  if (cached.text == text && cached.overload == overload && is_text(texts[cached.index], text, overload)) return cached.index;
  const std::string whole = *overload == 0 ? std::string(text) : std::string(text) + "." + overload;
  const auto [found, added] = text_index().try_emplace(whole, static_cast<int32_t>(texts.size()));
  if (added) texts.push_back(whole);
  cached = {text, overload, found->second};
  return found->second;
}

void clear_texts() {
  texts.clear();
  text_index().clear();
  for (Cached& cached : cache) cached = {};
}

int32_t current_operation(bool materialise) {
  ThreadState& here = state;
  if (here.epoch != epoch.load(std::memory_order_relaxed) || here.depth == 0) return -1;
  const int top = (here.depth < kDepth ? here.depth : kDepth) - 1;
  if (materialise) return row_of(here, top);
  for (int at = top; at >= 0; --at)
    if (here.active[at].operation != kUnknown) return here.active[at].operation;
  return -1;
}

void push_mark(int64_t step, const char* text) {
  if (!recording.load(std::memory_order_relaxed)) return;
  std::lock_guard<std::mutex> guard(lock);
  marks.push({static_cast<int64_t>(events.size()), static_cast<int64_t>(operations.size()), now(), step, intern(text, "")});
}

void watch_operations(bool on) {
  watching.store(on);
  if (handle != at::INVALID_CALLBACK_HANDLE) {
    at::removeCallback(handle);
    handle = at::INVALID_CALLBACK_HANDLE;
  }
  ++epoch;
  if (on)
    handle = at::addGlobalCallback(at::RecordFunctionCallback(on_start, on_end)
                                       .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION,
                                                at::RecordScope::USER_SCOPE}));
}

}  // namespace memfit

using namespace memfit;

extern "C" {

void memfit_mark(const char* text) { push_mark(kNoStep, text); }

void memfit_mark_phase(int64_t step, const char* phase) { push_mark(step, phase); }

// While a recording runs: note operations from now on, or no longer.
void memfit_watch(int on) {
  if (recording.load() && (on != 0) != watching.load()) watch_operations(on != 0);
}

// Rows of events, operations, marks, and the bytes of all texts with a newline after each.
void memfit_counts(int64_t* counts) {
  std::lock_guard<std::mutex> guard(lock);
  int64_t characters = 0;
  for (const std::string& text : texts) characters += static_cast<int64_t>(text.size()) + 1;
  counts[0] = static_cast<int64_t>(events.size());
  counts[1] = static_cast<int64_t>(operations.size());
  counts[2] = static_cast<int64_t>(marks.size());
  counts[3] = characters;
}

void memfit_copy_operations(int64_t* sequence, int64_t* thread, int64_t* forward_thread, int64_t* nanoseconds,
                            int64_t* module, int32_t* name, int32_t* parent, int32_t* scope, int32_t* stack) {
  std::lock_guard<std::mutex> guard(lock);
  for (size_t row = 0; row < operations.size(); ++row) {
    const Operation& operation = operations[row];
    sequence[row] = operation.sequence;
    thread[row] = static_cast<int64_t>(operation.thread);
    forward_thread[row] = static_cast<int64_t>(operation.forward_thread);
    nanoseconds[row] = operation.nanoseconds;
    module[row] = reinterpret_cast<int64_t>(operation.module);
    name[row] = operation.name;
    parent[row] = operation.parent;
    scope[row] = operation.scope;
    stack[row] = operation.stack;
  }
}

void memfit_copy_marks(int64_t* event, int64_t* operation, int64_t* nanoseconds, int64_t* step, int32_t* text) {
  std::lock_guard<std::mutex> guard(lock);
  for (size_t row = 0; row < marks.size(); ++row) {
    event[row] = marks[row].event;
    operation[row] = marks[row].operation;
    nanoseconds[row] = marks[row].nanoseconds;
    step[row] = marks[row].step;
    text[row] = marks[row].text;
  }
}

void memfit_copy_texts(char* characters) {
  std::lock_guard<std::mutex> guard(lock);
  for (const std::string& text : texts) {
    std::memcpy(characters, text.data(), text.size());
    characters += text.size();
    *characters++ = '\n';
  }
}

// Frees what was recorded.
void memfit_clear() {
  std::lock_guard<std::mutex> guard(lock);
  events.clear();
  operations.clear();
  marks.clear();
  clear_texts();
}

}  // extern "C"
