// The pool's lock: held for some tens of nanoseconds as a rule, so a waiter first looks again, then lets others run.
//
// Taking it is one exchange, leaving it one store; half of what std::mutex costs where nobody waits. It owns no thread, so
// a forked child may leave it for the thread that took it.
#pragma once
#include <sched.h>
#include <time.h>

#include <atomic>

namespace memfit {

class PoolLock {
 public:
  void lock() {
    for (int tries = 0; held_.exchange(true, std::memory_order_acquire); ++tries) {
      for (int look = 0; look < 64 && held_.load(std::memory_order_relaxed); ++look) pause();
      if (tries < 32) {
        sched_yield();
      } else {  // the holder maps memory, or was stopped
        const timespec some{0, 50000};
        nanosleep(&some, nullptr);
      }
    }
  }
  void unlock() { held_.store(false, std::memory_order_release); }

 private:
  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }
  std::atomic<bool> held_{false};
};

}  // namespace memfit
