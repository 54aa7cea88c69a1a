// The stress test of the pool, without Python: threads, foreign frees, resizes, repeating steps, forks, uninstall.
//
// Every block is filled with a pattern of its own and checked before it goes: a block handed out twice, moved wrongly or
// given back too early is seen as a changed byte. At the end every block must be accounted for. `make sanitize` runs it
// under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer. Neither follows a fork in the middle of
// another thread's malloc (AddressSanitizer's own allocator is not fork-safe before GCC 14), so under the first the threads
// stand still between two rounds while a child is made; without sanitizers they run on, which is what the pool must bear.
//
//   pool_stress [rounds of each thread] [threads]
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "core/pool.h"
#include "core/random.h"

using memfit::Pool;

namespace {

struct Held {
  unsigned char* data;
  size_t bytes;
  unsigned char mark;
};

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "pool_stress: %s\n", what);
  std::fflush(nullptr);
  std::_Exit(1);
}

// First, last and some bytes between carry the mark.
void fill(const Held& held) {
  for (size_t at = 0; at < held.bytes; at += 509) held.data[at] = held.mark;
  if (held.bytes > 0) held.data[held.bytes - 1] = held.mark;
}

void check(const Held& held) {
  for (size_t at = 0; at < held.bytes; at += 509)
    if (held.data[at] != held.mark) fail("a byte of a living block has changed");
  if (held.bytes > 0 && held.data[held.bytes - 1] != held.mark) fail("the last byte of a living block has changed");
}

using Numbers = memfit::Random;

size_t some_bytes(Numbers& numbers) {
  const uint64_t kind = numbers.next() % 16;
  if (kind < 8) return numbers.next() % 4096 + 1;
  if (kind < 13) return numbers.next() % (256 << 10) + 1;
  return numbers.next() % (3 << 20) + 1;
}

Held make(Pool& pool, Numbers& numbers, size_t bytes) {
  const bool zeroed = numbers.next() % 4 == 0;
  Held held{static_cast<unsigned char*>(zeroed ? pool.allocate_zeroed(bytes) : pool.allocate(bytes)), bytes,
            static_cast<unsigned char>(numbers.next() | 1)};
  if (held.data == nullptr) fail("no memory");
  if (reinterpret_cast<uintptr_t>(held.data) % 64 != 0 && pool.holds(held.data)) fail("a block is not aligned");
  if (zeroed)
    for (size_t at = 0; at < bytes; ++at)
      if (held.data[at] != 0) fail("a zeroed block is not zero");
  fill(held);
  return held;
}

std::mutex exchange_lock;
std::vector<Held> exchange;  // blocks on their way to another thread

#ifdef __SANITIZE_ADDRESS__
std::shared_mutex forking;  // shared by a round, alone for a fork
std::atomic<bool> fork_wanted{false};

std::shared_lock<std::shared_mutex> a_round(bool child) {
  if (child) return {};
  while (fork_wanted.load()) std::this_thread::yield();  // the mutex alone would let readers pass the fork for ever
  return std::shared_lock<std::shared_mutex>(forking);
}
#else
struct Round {
  ~Round() {}
};

Round a_round(bool) { return {}; }
#endif

void mixed(Pool& pool, uint64_t seed, int rounds, bool child = false) {
  Numbers numbers{seed};
  std::vector<Held> mine;
  for (int round = 0; round < rounds; ++round) {
    const auto turn = a_round(child);
    const uint64_t what = numbers.next() % 16;
    if (mine.size() < 4 || (what < 8 && mine.size() < 64)) {
      mine.push_back(make(pool, numbers, some_bytes(numbers)));
      continue;
    }
    const size_t which = numbers.next() % mine.size();
    check(mine[which]);
    if (what == 8) {
      Held& held = mine[which];
      const size_t bytes = some_bytes(numbers);
      auto* moved = static_cast<unsigned char*>(pool.resize(held.data, bytes));
      if (moved == nullptr) fail("no memory to resize");
      check({moved, bytes < held.bytes ? 1 : held.bytes, held.mark});
      held = {moved, bytes, held.mark};
      fill(held);
      continue;
    }
    if (what == 9 && !child) {  // the lock may be held by a thread that a child does not have
      std::lock_guard<std::mutex> guard(exchange_lock);
      exchange.push_back(mine[which]);
      if (exchange.size() > 32) {
        mine[which] = exchange.front();
        exchange.front() = exchange.back();
        exchange.pop_back();
      } else {
        mine[which] = mine.back();
        mine.pop_back();
      }
      continue;
    }
    pool.release(mine[which].data);
    mine[which] = mine.back();
    mine.pop_back();
    if (round % 4096 == 0) pool.trim();
    if (round % 1024 == 0) pool.figures();
  }
  const auto turn = a_round(child);
  for (const Held& held : mine) {
    check(held);
    pool.release(held.data);
  }
}

// A step like those of a training: forward keeps blocks, backward frees them in reverse; `odd` departs in the middle.
void step(Pool& pool, Numbers& numbers, bool odd) {
  std::vector<Held> kept;
  for (size_t layer = 0; layer < 24; ++layer) {
    const Held scratch = make(pool, numbers, 100000 + layer * 40000);
    kept.push_back(make(pool, numbers, 70000 + layer * 30000));
    if (odd && layer == 11) {
      const Held more = make(pool, numbers, 333333);
      check(more);
      pool.release(more.data);
    }
    check(scratch);
    pool.release(scratch.data);
  }
  while (!kept.empty()) {
    const Held gradient = make(pool, numbers, kept.back().bytes);
    check(kept.back());
    pool.release(kept.back().data);
    kept.pop_back();
    check(gradient);
    pool.release(gradient.data);
  }
}

void repeated(Pool& pool, bool marks) {
  Numbers numbers{77};
  const auto before = pool.figures();
  for (int round = 0; round < 60; ++round) {
    step(pool, numbers, round == 20 || round == 21 || round == 40);
    if (marks) pool.mark_step();
  }
  const auto after = pool.figures();
  if (after.plans - before.plans < 2) fail("repeating steps got no plan");
  if (after.departures - before.departures < 2) fail("a step that differs did not leave the plan");
  if (after.planned - before.planned < 1000) fail("the plan served too little");
}

void forked(Pool& pool, uint64_t seed) {
#ifdef __SANITIZE_ADDRESS__
  fork_wanted.store(true);
  forking.lock();
#endif
  const pid_t child = fork();
  if (child < 0) fail("no fork");
  if (child == 0) {
    mixed(pool, seed, 300, true);
    std::_Exit(0);
  }
#ifdef __SANITIZE_ADDRESS__
  forking.unlock();
  fork_wanted.store(false);
#endif
  int status = 0;
  for (int waited = 0; waitpid(child, &status, WNOHANG) == 0; ++waited) {
    if (waited > 60000) {
      kill(child, SIGKILL);  // who waits for the end of our output would wait for it too
      fail("a forked child hangs");
    }
    usleep(1000);
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail("a forked child failed");
}

}  // namespace

int main(int count, char** words) {
  const int rounds = count > 1 ? std::atoi(words[1]) : 20000;
  const int threads = count > 2 ? std::atoi(words[2]) : 4;
  Pool& pool = Pool::shared();
  pool.activate(true);
  pool.set_patience(1);
  repeated(pool, false);
  pool.trim();
  repeated(pool, true);
  std::vector<std::thread> running;
  std::atomic<bool> stop{false};
  for (int number = 0; number < threads; ++number) running.emplace_back(mixed, std::ref(pool), 1000 + number, rounds, false);
#ifndef __SANITIZE_THREAD__  // it does not follow a fork of many threads
  for (int number = 0; number < 20; ++number) forked(pool, 9000 + number);
#endif
  std::thread watcher([&] {
    while (!stop.load()) {
      pool.figures();
      pool.living();
      pool.trim();
      usleep(2000);
    }
  });
  for (auto& thread : running) thread.join();
  stop.store(true);
  watcher.join();
  Numbers numbers{5};
  std::vector<Held> across;
  for (int number = 0; number < 200; ++number) across.push_back(make(pool, numbers, some_bytes(numbers)));
  pool.activate(false);  // uninstalled with living blocks
  for (int number = 0; number < 200; ++number) across.push_back(make(pool, numbers, some_bytes(numbers)));
  for (size_t at = 0; at < across.size(); ++at) {
    check(across[at]);
    pool.release(across[at].data);
  }
  for (const Held& held : exchange) {
    check(held);
    pool.release(held.data);
  }
  pool.trim();
  const auto figures = pool.figures();
  const auto small = memfit::PoolSmall::figures();
  if (figures.live_blocks != 0 || figures.live_bytes != 0 || figures.allocated_bytes != 0 || !pool.living().empty())
    fail("blocks of the range are left");
  if (small.allocations != small.frees || small.live_bytes != 0) fail("blocks of malloc are left");
  if (figures.touched_bytes > 2 * memfit::PoolRange::kPage) fail("trim left memory behind");
  std::printf("pool_stress: %lld blocks of the range and %lld of malloc, %lld plans, %lld served from one, all accounted for\n",
              static_cast<long long>(figures.allocations), static_cast<long long>(small.allocations),
              static_cast<long long>(figures.plans), static_cast<long long>(figures.planned));
  return 0;
}
