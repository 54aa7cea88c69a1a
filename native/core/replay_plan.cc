#include "replay_plan.h"

namespace memfit {
namespace {

struct PlanHeap {
  struct Handle {};
  int64_t capacity;
  const int64_t* next;  // offset of the block that comes next
  int64_t bytes;
  int64_t reserved = 0, driver_allocations = 0, driver_frees = 0;

  Grant<Handle> allocate(int64_t nbytes) {
    if (reserved == 0) {
      if (capacity >= 0 && bytes > capacity) return {0, -1, {}};
      reserved = bytes;
      ++driver_allocations;
    }
    return {*next++, nbytes, {}};
  }
  void free(int64_t, int64_t, Handle) {}
  void empty_cache() {}
  void segments(std::vector<int64_t>& address, std::vector<int64_t>& sizes) const {
    address.assign(1, 0);
    sizes.assign(1, reserved);
  }
};

}  // namespace

ReplayOutcome replay_plan(const RequestColumns& in, int64_t capacity, bool series, const int64_t* offset, int64_t bytes,
                          const Stop& stop) {
  return serve(PlanHeap{capacity, offset, bytes}, in, series, stop);
}

}  // namespace memfit
