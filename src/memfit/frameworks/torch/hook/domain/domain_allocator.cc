// The allocator of domains: every block is charged to the domain of the thread that asks for it, and credited to that
// domain when it is freed, by whatever thread.
//
// The domain of a thread is an entry of torch's thread-local debug information, which autograd's threads and forked tasks
// take over from who launched them; so a backward pass charges who called it. A charge over the budget throws the Python
// error that a callback makes. The accounts are memfit's own (native/core/domain.h), reached by the addresses of its calls.
#include "../stacked_allocator.h"

#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/csrc/Exceptions.h>

#include <cstdint>
#include <exception>
#include <string_view>

#include "../block_table.h"

namespace {

using Charge = int (*)(void*, int64_t);
using Credit = void (*)(void*, int64_t);
using Guarded = void* (*)(void*, int64_t);
using FreeGuarded = int (*)(void*);

Charge charge = nullptr;
Credit credit = nullptr;
Guarded guarded = nullptr;
FreeGuarded free_guarded = nullptr;
PyObject* make_error = nullptr;  // called with the account and the bytes; gives the error

constexpr std::string_view kName = "MEMFIT_DOMAIN";
constexpr c10::DebugInfoKind kDomain(&kName);

struct DomainOfThread final : c10::DebugInfoBase {
  explicit DomainOfThread(void* given) : account(given) {}
  void* account;
};

// Blocks by address, in parts with a lock each, so that threads rarely meet. A block's number is its account.
struct Part {
  std::mutex lock;
  memfit::BlockTable blocks;
};
constexpr size_t kParts = 32;
Part& part_of(const void* address) {
  static Part* parts = new Part[kParts];  // never destroyed: blocks are freed after static destructors ran
  return parts[(reinterpret_cast<uintptr_t>(address) * 0x9E3779B97F4A7C15ull >> 40) % kParts];
}

bool release_if_ours(void* address) {
  memfit::Block block;
  Part& part = part_of(address);
  {
    std::lock_guard<std::mutex> guard(part.lock);
    if (!part.blocks.remove(address, block)) return false;
  }
  credit(reinterpret_cast<void*>(block.number), block.bytes);
  if (block.deleter != nullptr) block.deleter(address);
  else free_guarded(address);
  return true;
}

void release(void* address) { release_if_ours(address); }
void release_raw(void* address);

[[noreturn]] void refuse(void* account, int64_t bytes) {
  const PyGILState_STATE gil = PyGILState_Ensure();  // never while a lock of ours is held
  PyObject* error = PyObject_CallFunction(make_error, "LL", static_cast<long long>(reinterpret_cast<intptr_t>(account)),
                                          static_cast<long long>(bytes));
  if (error != nullptr) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error)), error);
    Py_DECREF(error);
  }
  python_error thrown;
  thrown.persist();
  PyGILState_Release(gil);
  throw thrown;
}

class DomainAllocator final : public memfit::StackedAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    asked();
    auto* entry = static_cast<DomainOfThread*>(c10::ThreadLocalDebugInfo::get(kDomain));
    if (entry == nullptr || bytes == 0) return inner()->allocate(bytes);
    const auto size = static_cast<int64_t>(bytes);
    if (charge(entry->account, size) == 0) refuse(entry->account, size);
    if (void* address = guarded(entry->account, size)) {
      keep(address, size, entry->account, nullptr);
      return {address, address, &release, c10::Device(c10::DeviceType::CPU)};
    }
    c10::DataPtr data;
    try {
      data = inner()->allocate(bytes);
    } catch (...) {
      credit(entry->account, size);
      throw;
    }
    const auto deleter = data.get_deleter();
    if (data.get_context() != data.get() || deleter == nullptr) {  // no plain block: nobody would tell of its free
      credit(entry->account, size);
      return data;
    }
    keep(data.get(), size, entry->account, deleter);
    if (!data.compare_exchange_deleter(deleter, &release)) std::terminate();  // it is the deleter that it has
    return data;
  }
  c10::DeleterFnPtr raw_deleter() const override { return inner()->raw_deleter() == nullptr ? nullptr : &release_raw; }
  void forward_free(void* address) const { inner()->raw_deleter()(address); }

 private:
  static void keep(void* address, int64_t bytes, void* account, void (*deleter)(void*)) {
    Part& part = part_of(address);
    memfit::Block stale;  // freed past us, through an allocator beneath
    bool known = false;
    {
      std::lock_guard<std::mutex> guard(part.lock);
      known = part.blocks.remove(address, stale);
      part.blocks.insert({address, bytes, reinterpret_cast<int64_t>(account), deleter});
    }
    if (known) credit(reinterpret_cast<void*>(stale.number), stale.bytes);
  }
};

DomainAllocator& allocator() {
  static DomainAllocator* instance = new DomainAllocator();  // storages keep a pointer to it: lives for ever
  return *instance;
}

void release_raw(void* address) {
  if (address != nullptr && !release_if_ours(address)) allocator().forward_free(address);
}

}  // namespace

extern "C" {

// The addresses of the account's calls, and what makes the error of a refusal; once.
void memfit_domain_calls(void* to_charge, void* to_credit, void* to_guard, void* to_free, PyObject* error) {
  charge = reinterpret_cast<Charge>(to_charge);
  credit = reinterpret_cast<Credit>(to_credit);
  guarded = reinterpret_cast<Guarded>(to_guard);
  free_guarded = reinterpret_cast<FreeGuarded>(to_free);
  Py_XINCREF(error);
  make_error = error;
}

// This thread charges the account from now on. 0: torch did not accept the allocator.
int memfit_domain_enter(void* account) {
  if (!allocator().push()) return 0;
  c10::ThreadLocalDebugInfo::_push(kDomain, std::make_shared<DomainOfThread>(account));
  return 1;
}

// What it charged before, again. 0: something else was begun in the domain and is not ended, so it stays.
int memfit_domain_leave() {
  int done = 1;
  try {
    c10::ThreadLocalDebugInfo::_pop(kDomain);
  } catch (const std::exception&) {
    done = 0;
  }
  allocator().pop();
  return done;
}

}  // extern "C"
