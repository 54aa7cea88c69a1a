// An allocator that stands on top of torch's CPU allocator for a while, and forwards what is none of its business.
//
// Several may stand on one another, and leave in any order: one that is no longer on top when its last user leaves stays
// where it is as a passage, since whoever stands over it may call it. One that does not (a pool that serves by itself) is
// found out by asking it for a block, and then stood upon.
#pragma once
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

namespace memfit {

// Only an equal or higher priority replaces an allocator; the lowest one that works leaves room for others.
inline bool replace_cpu_allocator(c10::Allocator* wanted) {
  for (const uint8_t priority : {0, 1, 100, 255}) {
    c10::SetCPUAllocator(wanted, priority);
    if (c10::GetCPUAllocator() == wanted) return true;
  }
  return false;
}

class StackedAllocator : public c10::Allocator {
 public:
  // Counts users; false where torch does not take the allocator.
  bool push() {
    std::lock_guard<std::mutex> guard(top_);
    if (users_++ > 0) return true;
    c10::Allocator* beneath = c10::GetCPUAllocator();
    if (beneath == this) passage_ = false;
    if (beneath == this || (passage_ && is_asked())) return true;
    passage_ = false;
    inner_.store(beneath);
    if (replace_cpu_allocator(this)) return true;
    --users_;
    return false;
  }

  void pop() {
    std::lock_guard<std::mutex> guard(top_);
    if (--users_ > 0 || passage_) return;
    if (c10::GetCPUAllocator() == this) replace_cpu_allocator(inner_.load());
    else passage_ = true;
  }

  bool is_simple_data_ptr(const c10::DataPtr& data) const override { return inner()->is_simple_data_ptr(data); }
  void copy_data(void* to, const void* from, std::size_t count) const override { inner()->copy_data(to, from, count); }

 protected:
  c10::Allocator* inner() const { return inner_.load(std::memory_order_relaxed); }
  // Every allocation begins with it.
  void asked() const {
    if (wanted_ == this) wanted_ = nullptr;
  }

 private:
  // Whether an allocation of torch comes here now.
  bool is_asked() const {
    wanted_ = this;
    try {
      c10::GetCPUAllocator()->allocate(64);
    } catch (const std::exception&) {
    }
    const bool found = wanted_ == nullptr;
    wanted_ = nullptr;
    return found;
  }

  static inline thread_local const StackedAllocator* wanted_ = nullptr;
  std::atomic<c10::Allocator*> inner_{nullptr};
  std::mutex top_;
  int users_ = 0;
  bool passage_ = false;
};

}  // namespace memfit
