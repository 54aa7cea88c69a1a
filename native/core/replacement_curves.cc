// Misses at every capacity from one pass: both policies are stack algorithms (a larger memory holds what a smaller one
// holds), so an access hits exactly from its stack distance on, and a histogram of distances is the whole curve.
#include <algorithm>

#include "replacement.h"

namespace memfit {

namespace {

std::vector<int64_t> misses_of(const std::vector<int64_t>& distances, int64_t count) {
  std::vector<int64_t> misses(distances.size());
  for (size_t capacity = 0; capacity < distances.size(); ++capacity) misses[capacity] = count -= distances[capacity];
  return misses;
}

// Counts of marked slots, as a Fenwick tree.
class Marks {
 public:
  explicit Marks(int32_t slots) : tree_(slots + 1, 0) {}

  void add(int32_t slot, int32_t change) {
    for (++slot; slot < static_cast<int32_t>(tree_.size()); slot += slot & -slot) tree_[slot] += change;
  }
  int32_t before(int32_t slot) const {  // marks in [0, slot)
    int32_t sum = 0;
    for (; slot > 0; slot -= slot & -slot) sum += tree_[slot];
    return sum;
  }
  void fill(int32_t marks) {  // the first slots marked, the others not
    const int32_t size = static_cast<int32_t>(tree_.size());
    std::fill(tree_.begin(), tree_.end(), 0);
    for (int32_t slot = 1; slot < size; ++slot) {
      tree_[slot] += slot <= marks;
      const int32_t above = slot + (slot & -slot);
      if (above < size) tree_[above] += tree_[slot];
    }
  }

 private:
  std::vector<int32_t> tree_;
};

}  // namespace

// Stack distance of LRU: pages used since the last use, itself included. Uses get slots in order of time; when they run
// out, the last use of each page is numbered anew.
std::vector<int64_t> curve_lru(const Accesses& accesses, const PagingStop& stop) {
  std::vector<int64_t> distances(accesses.pages + 1, 0);
  const int32_t slots = static_cast<int32_t>(std::min<int64_t>(4 * (static_cast<int64_t>(accesses.pages) + 16), 2000000000));
  std::vector<int32_t> slot(accesses.pages, -1), owner(slots, -1);
  Marks marks(slots);
  int32_t next = 0, marked = 0;
  const auto step = [&](int32_t t) {
    if (next == slots) {
      int32_t kept = 0;
      for (int32_t old = 0; old < slots; ++old) {
        const int32_t page = owner[old];
        if (page < 0 || slot[page] != old) continue;
        owner[kept] = page;
        slot[page] = kept++;
      }
      std::fill(owner.begin() + kept, owner.end(), -1);
      marks.fill(kept);
      next = kept;
    }
    const int32_t page = accesses.page[t];
    if (slot[page] >= 0) {
      ++distances[marked - marks.before(slot[page])];
      marks.add(slot[page], -1);
    } else {
      ++marked;
    }
    marks.add(next, 1);
    owner[next] = page;
    slot[page] = next++;
  };
  each_access(accesses.count, stop, step, 1 << 19);
  return misses_of(distances, accesses.count);
}

// Priority stack of OPT: the page asked for goes on top; the page it displaces sinks, at each level the one that is used
// later sinks on, until the level that the page came from.
std::vector<int64_t> curve_optimal(const Accesses& accesses, const PagingStop& stop) {
  const std::vector<int32_t> next = next_uses(accesses);
  std::vector<int64_t> distances(accesses.pages + 1, 0);
  std::vector<int32_t> stack;  // of each level the instant of the next use; those never used again have `count`
  stack.reserve(accesses.pages);
  std::vector<uint8_t> seen(accesses.pages, 0);
  int64_t work = 0;
  bool stopped = false;
  const auto step = [&](int32_t t) {
    if (stopped) return;
    const int32_t page = accesses.page[t];
    const bool known = seen[page] != 0;
    seen[page] = 1;
    int32_t sinking = next[t];
    size_t level = 0;
    const size_t height = stack.size();
    // The page's own entry is the only one whose next use is t; it is the smallest, so the walk meets it unmoved.
    if (height > 0 && stack[0] != t) {
      std::swap(stack[0], sinking);
      for (level = 1; level < height && stack[level] != t; ++level) {
        const int32_t here = stack[level];
        stack[level] = std::min(here, sinking);
        sinking = std::max(here, sinking);
      }
    }
    if (known) {
      stack[level] = sinking;
      ++distances[level + 1];
    } else {
      stack.push_back(sinking);
    }
    work += static_cast<int64_t>(level) + 1;
    if (work > (1 << 25)) {
      work = 0;
      stopped = stop();
    }
  };
  each_access(accesses.count, stop, step);
  return misses_of(distances, accesses.count);
}

}  // namespace memfit
