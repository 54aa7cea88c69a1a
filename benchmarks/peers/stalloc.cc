// STAlloc's C++ port of torch's caching allocator on a recorded trace, timed: built by benchmarks/replay.py against the
// peer's own files. Input: blocks and bytes (0 or less: a free) as two arrays of int64 in a file; prints the CPU
// seconds of one replay and the reserved peak.
#include "CUDACachingAllocator.h"
#include "util.h"

#include <ctime>
#include <cstdio>
#include <fstream>
#include <vector>

LogLevel LOG_LEVEL = ERROR;

static double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

int main(int, char** arguments) {
  std::ifstream file(arguments[1], std::ios::binary | std::ios::ate);
  const auto events = static_cast<size_t>(file.tellg()) / 16;
  std::vector<int64_t> block(events), bytes(events);
  file.seekg(0);
  file.read(reinterpret_cast<char*>(block.data()), static_cast<std::streamsize>(8 * events));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(8 * events));
  int64_t most = 0;
  for (const int64_t b : block) most = std::max(most, b);
  const auto allocator = DeviceCachingAllocator::getInstance();  // the only one there can be: one replay a process
  allocator->init_empty_config();
  std::vector<Block*> held(static_cast<size_t>(most) + 1, nullptr);
  const double begun = cpu_seconds();
  for (size_t event = 0; event < events; ++event) {
    if (bytes[event] > 0) {
      held[static_cast<size_t>(block[event])] = allocator->malloc(0, static_cast<size_t>(bytes[event]), nullptr);
    } else {
      allocator->free(held[static_cast<size_t>(block[event])]);
    }
  }
  const double seconds = cpu_seconds() - begun;
  std::printf("\nresult %.9f %lld\n", seconds, static_cast<long long>(allocator->stats.reserved_bytes[0].peak));
  std::fflush(stdout);
  std::_Exit(0);
}
