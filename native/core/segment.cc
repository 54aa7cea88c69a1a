#include "segment.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <system_error>

namespace memfit {
namespace {

constexpr int kSlots = 1 << 15;
constexpr int kName = 56;
constexpr unsigned char kPad = 0xA5;
constexpr int64_t kAlignment = 64;

// Read by the handler, at any moment, without a lock: `low` is written last, and 0 first.
struct Slot {
  std::atomic<uintptr_t> low{0};
  std::atomic<uintptr_t> high{0};
  std::atomic<uintptr_t> base{0};
  std::atomic<int64_t> bytes{0};
  std::atomic<int> protection{kReadWrite};
  std::atomic<bool> file{false};
  char name[kName] = {};
};

Slot slots[kSlots];
std::atomic<int> used{0};
std::mutex slots_lock;

struct Attempt {
  sigjmp_buf back;
  Fault fault;
};
__attribute__((tls_model("initial-exec"))) thread_local Attempt* attempt = nullptr;

struct sigaction before_segv, before_bus;

size_t page() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

size_t whole_pages(int64_t bytes) { return (static_cast<size_t>(bytes) + page() - 1) / page() * page(); }

int access_of(void* context) {
#if defined(__x86_64__)
  return static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & 2 ? 1 : 0;
#else
  (void)context;
  return 2;
#endif
}

// Text without malloc, for the handler.
class Line {
 public:
  Line& operator<<(const char* text) {
    while (*text != 0 && length_ < sizeof text_) text_[length_++] = *text++;
    return *this;
  }
  Line& operator<<(int64_t value) {
    char digits[24];
    int count = 0;
    uint64_t rest = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
    do digits[count++] = static_cast<char>('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (value < 0) digits[count++] = '-';
    while (count > 0 && length_ < sizeof text_) text_[length_++] = digits[--count];
    return *this;
  }
  void print() const {
    size_t done = 0;
    while (done < length_) {
      const ssize_t now = ::write(STDERR_FILENO, text_ + done, length_ - done);
      if (now <= 0) return;
      done += static_cast<size_t>(now);
    }
  }

 private:
  char text_[640];
  size_t length_ = 0;
};

void tell(const Slot& slot, const Fault& fault) {
  const int64_t bytes = slot.bytes.load();
  const char* what = fault.access == 1 ? "write" : fault.access == 0 ? "read" : "access";
  Line line;
  line << "memfit: " << what << " out of bounds or against the protection of segment '" << slot.name << "': ";
  if (fault.file) line << "the file behind it became shorter while it was mapped, at offset " << fault.offset << " of " << bytes;
  else if (fault.offset < 0) line << 0 - fault.offset << " bytes before its base";
  else if (fault.offset >= bytes) line << fault.offset - bytes << " bytes past its limit of " << bytes << " bytes";
  else line << "offset " << fault.offset << " of " << bytes << " bytes, which "
            << (slot.protection.load() == kNoAccess ? "may not be accessed (closed or protected)" : "is read-only");
  line << "; the process ends with exit code " << static_cast<int64_t>(kFaultExit) << "\n";
  line.print();
}

void hand_on(int number, siginfo_t* info, void* context, const struct sigaction& before) {
  if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction != nullptr) {
    before.sa_sigaction(number, info, context);
    return;
  }
  if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(number);
    return;
  }
  signal(number, SIG_DFL);  // the access runs again, and ends the process as it would have without us
  if (info->si_code <= 0) raise(number);
}

void on_fault(int number, siginfo_t* info, void* context) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  if (info->si_code > 0) {
    const int count = used.load(std::memory_order_acquire);
    for (int i = 0; i < count; ++i) {
      const Slot& slot = slots[i];
      const uintptr_t low = slot.low.load(std::memory_order_acquire);
      if (low == 0 || at < low || at >= slot.high.load(std::memory_order_relaxed)) continue;
      Fault fault{static_cast<int64_t>(at - slot.base.load()), access_of(context), number == SIGBUS && slot.file.load()};
      if (attempt != nullptr) {
        attempt->fault = fault;
        siglongjmp(attempt->back, 1);
      }
      tell(slot, fault);
      _exit(kFaultExit);
    }
  }
  hand_on(number, info, context, number == SIGBUS ? before_bus : before_segv);
}

void watch(int number, struct sigaction& before) {
  struct sigaction now, ours {};
  sigaction(number, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == &on_fault) return;
  before = now;
  ours.sa_sigaction = &on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&ours.sa_mask);
  sigaction(number, &ours, nullptr);
}

int enter(const char* name, const char* low, size_t range, const char* base, int64_t bytes, int protection, bool file) {
  std::lock_guard<std::mutex> guard(slots_lock);
  int at = 0;
  const int count = used.load();
  while (at < count && slots[at].low.load() != 0) ++at;
  if (at == kSlots) return -1;
  Slot& slot = slots[at];
  std::strncpy(slot.name, name, kName - 1);
  slot.high.store(reinterpret_cast<uintptr_t>(low) + range);
  slot.base.store(reinterpret_cast<uintptr_t>(base));
  slot.bytes.store(bytes);
  slot.protection.store(protection);
  slot.file.store(file);
  slot.low.store(reinterpret_cast<uintptr_t>(low), std::memory_order_release);
  if (at == count) used.store(count + 1, std::memory_order_release);
  return at;
}

void leave(int at) {
  if (at < 0) return;
  std::lock_guard<std::mutex> guard(slots_lock);
  slots[at].low.store(0, std::memory_order_release);
}

void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

char* reserve(size_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == MAP_FAILED ? nullptr : static_cast<char*>(at);
}

}  // namespace

void watch_faults() {
  std::lock_guard<std::mutex> guard(slots_lock);
  watch(SIGSEGV, before_segv);
  watch(SIGBUS, before_bus);
}

bool copy_checked(void* to, const void* from, size_t bytes, Fault& fault) {
  Attempt mine;
  Attempt* const outer = attempt;
  if (sigsetjmp(mine.back, 1) != 0) {
    attempt = outer;
    fault = mine.fault;
    return false;
  }
  attempt = &mine;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  std::memcpy(to, from, bytes);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  attempt = outer;
  return true;
}

Segment::Segment(const char* name, int64_t bytes, int64_t guard_bytes) : bytes_(bytes) {
  const size_t guard = whole_pages(std::max<int64_t>(guard_bytes, 0));
  data_bytes_ = std::max(whole_pages(bytes), page());
  range_bytes_ = data_bytes_ + 2 * guard;
  range_ = reserve(range_bytes_);
  if (range_ == nullptr) fail("reserve a segment");
  data_ = range_ + guard;
  if (mprotect(data_, data_bytes_, PROT_READ | PROT_WRITE) != 0) {
    const int error = errno;
    munmap(range_, range_bytes_);
    errno = error;
    fail("memory for a segment");
  }
  madvise(data_, data_bytes_, MADV_HUGEPAGE);
  // Flush with the guard behind it, as far as the alignment lets it.
  base_ = data_ + data_bytes_ - (static_cast<size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
  std::memset(data_, kPad, static_cast<size_t>(base_ - data_));
  std::memset(base_ + bytes_, kPad, static_cast<size_t>(data_ + data_bytes_ - base_ - bytes_));
  enlist(name);
}

Segment::Segment(const char* name, int descriptor, int64_t bytes, int64_t guard_bytes)
    : bytes_(bytes), protection_(kRead), file_(true) {
  const size_t guard = whole_pages(std::max<int64_t>(guard_bytes, 0));
  data_bytes_ = std::max(whole_pages(bytes), page());
  range_bytes_ = data_bytes_ + 2 * guard;
  range_ = reserve(range_bytes_);
  if (range_ == nullptr) fail("reserve a segment");
  data_ = base_ = range_ + guard;
  if (bytes > 0 && mmap(data_, static_cast<size_t>(bytes), PROT_READ, MAP_PRIVATE | MAP_FIXED, descriptor, 0) == MAP_FAILED) {
    const int error = errno;
    munmap(range_, range_bytes_);
    errno = error;
    fail("map a file as a segment");
  }
  enlist(name);
}

void Segment::enlist(const char* name) {
  slot_ = enter(name, range_, range_bytes_, base_, bytes_, protection_, file_);
  watch_faults();
}

Segment::~Segment() {
  leave(slot_);
  if (range_ != nullptr) munmap(range_, range_bytes_);
}

void Segment::rename(const char* name) {
  if (slot_ < 0) return;
  leave(slot_);
  slot_ = enter(name, range_, range_bytes_, base_, bytes_, protection_, file_);
}

void Segment::protect(int protection) {
  if (closed_) throw std::system_error(EBADF, std::generic_category(), "a closed segment");
  if (mprotect(data_, data_bytes_, protection) != 0) fail("protect a segment");
  protection_ = protection;
  if (slot_ >= 0) slots[slot_].protection.store(protection);
}

void Segment::close() {
  if (closed_) return;
  if (mmap(data_, data_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
    fail("close a segment");
  closed_ = true;
  protection_ = kNoAccess;
  if (slot_ >= 0) slots[slot_].protection.store(kNoAccess);
}

int64_t Segment::breach() const {
  if (closed_ || file_ || protection_ == kNoAccess) return INT64_MIN;
  for (const char* at = data_; at < base_; ++at)
    if (static_cast<unsigned char>(*at) != kPad) return at - base_;
  for (const char* at = base_ + bytes_; at < data_ + data_bytes_; ++at)
    if (static_cast<unsigned char>(*at) != kPad) return at - base_;
  return INT64_MIN;
}

namespace {
std::mutex guarded_lock;
std::map<void*, std::unique_ptr<Segment>>& guarded() {
  static auto* known = new std::map<void*, std::unique_ptr<Segment>>();
  return *known;
}
}  // namespace

void* allocate_guarded(const char* name, size_t bytes) {
  try {
    auto made = std::make_unique<Segment>(name, static_cast<int64_t>(bytes), static_cast<int64_t>(page()));
    void* address = made->base();
    std::lock_guard<std::mutex> guard(guarded_lock);
    guarded()[address] = std::move(made);
    return address;
  } catch (const std::exception&) {
    return nullptr;
  }
}

bool free_guarded(void* address) {
  std::unique_ptr<Segment> gone;
  {
    std::lock_guard<std::mutex> guard(guarded_lock);
    const auto at = guarded().find(address);
    if (at == guarded().end()) return false;
    gone = std::move(at->second);
    guarded().erase(at);
  }
  return true;
}

}  // namespace memfit
