#include "core/direct_reader.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#if defined(__linux__) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#define MEMFIT_RING 1
#endif

namespace memfit {
namespace {

struct Pieces {
  const int64_t *offsets, *lengths, *targets;
  int64_t count;
  uint8_t* memory;
  int64_t file_bytes;
  int64_t wanted(int64_t i) const { return std::min(lengths[i], std::max<int64_t>(0, file_bytes - offsets[i])); }
};

ReadFailure by_threads(int descriptor, const Pieces& pieces, int depth) {
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> failed{-1};
  std::atomic<int> error{0};
  const auto work = [&] {
    for (int64_t i = next++; i < pieces.count && failed.load() < 0; i = next++) {
      int64_t done = 0;
      while (done < pieces.wanted(i)) {
        const ssize_t n = pread(descriptor, pieces.memory + pieces.targets[i] + done,
                                static_cast<size_t>(pieces.lengths[i] - done), pieces.offsets[i] + done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
          int64_t none = -1;
          const int why = n < 0 ? errno : 0;
          if (failed.compare_exchange_strong(none, i)) error = why;
          return;
        }
        done += n;
      }
    }
  };
  const int threads = static_cast<int>(std::min<int64_t>(std::min(depth, 8), pieces.count));
  std::vector<std::thread> others;
  try {
    for (int t = 1; t < threads; ++t) others.emplace_back(work);
  } catch (const std::system_error&) {
    // Fewer threads than wanted read as well.
  }
  work();
  for (auto& other : others) other.join();
  return {failed.load(), error.load()};
}

#ifdef MEMFIT_RING
// A ring lives for one call: making one costs 30 us.
class Ring {
 public:
  explicit Ring(unsigned entries) {
    io_uring_params p;
    std::memset(&p, 0, sizeof p);
    descriptor_ = static_cast<int>(syscall(__NR_io_uring_setup, entries, &p));
    if (descriptor_ < 0) return;
    sq_bytes_ = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    cq_bytes_ = p.cq_off.cqes + p.cq_entries * sizeof(io_uring_cqe);
    sqe_bytes_ = p.sq_entries * sizeof(io_uring_sqe);
    sq_ = map(sq_bytes_, IORING_OFF_SQ_RING);
    cq_ = map(cq_bytes_, IORING_OFF_CQ_RING);
    sqes_ = static_cast<io_uring_sqe*>(static_cast<void*>(map(sqe_bytes_, IORING_OFF_SQES)));
    if (!sq_ || !cq_ || !sqes_) {
      release();
      return;
    }
    sq_tail_ = at(sq_, p.sq_off.tail);
    sq_mask_ = *at(sq_, p.sq_off.ring_mask);
    sq_array_ = at(sq_, p.sq_off.array);
    cq_head_ = at(cq_, p.cq_off.head);
    cq_tail_ = at(cq_, p.cq_off.tail);
    cq_mask_ = *at(cq_, p.cq_off.ring_mask);
    cqes_ = reinterpret_cast<io_uring_cqe*>(cq_ + p.cq_off.cqes);
    entries_ = p.sq_entries;
    process_ = getpid();
  }
  ~Ring() { release(); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  bool usable() const { return descriptor_ >= 0 && process_ == getpid(); }
  unsigned entries() const { return entries_; }

  void push(int file, void* to, unsigned length, int64_t offset, uint64_t tag) {
    const unsigned tail = *sq_tail_, slot = tail & sq_mask_;
    io_uring_sqe& sqe = sqes_[slot];
    std::memset(&sqe, 0, sizeof sqe);
    sqe.opcode = IORING_OP_READ;
    sqe.fd = file;
    sqe.addr = reinterpret_cast<uint64_t>(to);
    sqe.len = length;
    sqe.off = static_cast<uint64_t>(offset);
    sqe.user_data = tag;
    sq_array_[slot] = slot;
    __atomic_store_n(sq_tail_, tail + 1, __ATOMIC_RELEASE);
    ++pushed_;
  }

  // What was pushed and the system has not taken.
  unsigned waiting() const { return pushed_; }

  // Waits for one answer at least, and hands nothing over. Where the system refuses even that, answers still come.
  void wait_only() const {
    if (!pop_ready() && syscall(__NR_io_uring_enter, descriptor_, 0u, 1u, IORING_ENTER_GETEVENTS, nullptr, 0) < 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  // Hands over what was pushed and waits for one answer at least. 0 or errno.
  int submit_and_wait() {
    for (;;) {
      const long n = syscall(__NR_io_uring_enter, descriptor_, pushed_, 1u, IORING_ENTER_GETEVENTS, nullptr, 0);
      if (n >= 0) {
        pushed_ -= static_cast<unsigned>(n);
        return 0;
      }
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EBUSY) {
        std::this_thread::yield();
        if (pop_ready()) return 0;
        continue;
      }
      return errno;
    }
  }

  bool pop_ready() const { return *cq_head_ != __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE); }
  bool pop(uint64_t& tag, int& result) {
    const unsigned head = *cq_head_;
    if (head == __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE)) return false;
    const io_uring_cqe& cqe = cqes_[head & cq_mask_];
    tag = cqe.user_data;
    result = cqe.res;
    __atomic_store_n(cq_head_, head + 1, __ATOMIC_RELEASE);
    return true;
  }

 private:
  uint8_t* map(size_t bytes, int64_t what) const {
    void* made = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor_, what);
    return made == MAP_FAILED ? nullptr : static_cast<uint8_t*>(made);
  }
  static unsigned* at(uint8_t* base, unsigned offset) { return reinterpret_cast<unsigned*>(base + offset); }
  void release() {
    if (sq_) munmap(sq_, sq_bytes_);
    if (cq_) munmap(cq_, cq_bytes_);
    if (sqes_) munmap(sqes_, sqe_bytes_);
    if (descriptor_ >= 0) close(descriptor_);
    sq_ = cq_ = nullptr;
    sqes_ = nullptr;
    descriptor_ = -1;
  }

  int descriptor_ = -1;
  pid_t process_ = 0;
  size_t sq_bytes_ = 0, cq_bytes_ = 0, sqe_bytes_ = 0;
  uint8_t *sq_ = nullptr, *cq_ = nullptr;
  io_uring_sqe* sqes_ = nullptr;
  io_uring_cqe* cqes_ = nullptr;
  unsigned *sq_tail_ = nullptr, *sq_array_ = nullptr, *cq_head_ = nullptr, *cq_tail_ = nullptr;
  unsigned sq_mask_ = 0, cq_mask_ = 0, entries_ = 0, pushed_ = 0;
};

ReadFailure by_ring(Ring& ring, int descriptor, const Pieces& pieces, int depth, int refused) {
  std::vector<int64_t> done(static_cast<size_t>(pieces.count), 0);
  std::vector<int64_t> again;
  again.reserve(done.size());  // nothing may throw while reads are under way
  int submissions = 0;
  const int64_t most = std::min<int64_t>(depth, ring.entries());
  int64_t next = 0, flying = 0;
  ReadFailure failure{-1, 0};
  const auto push = [&](int64_t i) {
    const int64_t at = done[static_cast<size_t>(i)];
    const int64_t length = std::min<int64_t>(pieces.lengths[i] - at, int64_t{1} << 30);
    ring.push(descriptor, pieces.memory + pieces.targets[i] + at, static_cast<unsigned>(length), pieces.offsets[i] + at,
              static_cast<uint64_t>(i));
    ++flying;
  };
  for (;;) {
    while (failure.piece < 0 && flying < most && (!again.empty() || next < pieces.count)) {
      if (!again.empty()) {
        push(again.back());
        again.pop_back();
      } else if (pieces.wanted(next) > 0) {
        push(next++);
      } else {
        ++next;
      }
    }
    if (flying == 0) return failure;  // also after a failure: nothing writes to the memory any more
    if (failure.piece < 0) {
      const int error = submissions++ == refused ? EIO : ring.submit_and_wait();
      if (error) {
        // What the system took already goes on writing to the memory: it is waited for before anybody may free it.
        failure = {next - 1, error};
        flying -= ring.waiting();
        continue;
      }
    } else {
      ring.wait_only();
    }
    uint64_t tag;
    int result;
    while (ring.pop(tag, result)) {
      --flying;
      const auto i = static_cast<int64_t>(tag);
      if (failure.piece >= 0) {
        continue;
      } else if (result == -EINTR || result == -EAGAIN) {
        again.push_back(i);
      } else if (result <= 0) {
        failure = {i, -result};
        flying -= ring.waiting();
      } else if ((done[tag] += result) < pieces.wanted(i)) {
        again.push_back(i);
      }
    }
  }
}
#endif

}  // namespace

bool ring_here() {
#ifdef MEMFIT_RING
  static const bool here = [] {
    Ring ring(4);
    return ring.usable();
  }();
  return here;
#else
  return false;
#endif
}

ReadFailure read_pieces(int descriptor, const int64_t* offsets, const int64_t* lengths, const int64_t* targets, int64_t count,
                        uint8_t* memory, int64_t file_bytes, int depth, ReadMethod method, int refused) {
  const Pieces pieces{offsets, lengths, targets, count, memory, file_bytes};
  if (count < 1) return {-1, 0};
#ifdef MEMFIT_RING
  if (method == ReadMethod::ring) {
    Ring ring(static_cast<unsigned>(std::clamp(depth, 1, 256)));
    if (ring.usable()) return by_ring(ring, descriptor, pieces, depth, refused);
  }
#endif
  return by_threads(descriptor, pieces, depth);
}

}  // namespace memfit
