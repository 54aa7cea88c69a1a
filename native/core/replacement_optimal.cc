// Belady's OPT over a set of instants. A page in memory is the instant of its next use, and instants are distinct, so
// the memory is a set of positions of the trace: access t hits when t is in it, and the victim is its largest member.
// The set is a bitmap with a bit for each word of the level below: insert, erase and largest cost one word a level,
// and a level is 64 times smaller than the one below. Pages never used again are only counted; they leave first.
#include "replacement.h"

namespace memfit {

namespace {

class Instants {
 public:
  explicit Instants(int32_t count) {
    int64_t words = (static_cast<int64_t>(count) + 64) / 64;
    levels_.emplace_back(words, 0);
    while (words > 1) {
      words = (words + 63) / 64;
      levels_.emplace_back(words, 0);
    }
    height_ = static_cast<int>(levels_.size());
    for (auto& level : levels_) words_.push_back(level.data());
  }

  bool has(int32_t t) const { return words_[0][t >> 6] >> (t & 63) & 1; }

  void insert(int32_t t) {
    for (int level = 0; level < height_; ++level, t >>= 6) {
      uint64_t& word = words_[level][t >> 6];
      const uint64_t before = word;
      word |= uint64_t{1} << (t & 63);
      if (before) return;
    }
  }

  void erase(int32_t t) {
    for (int level = 0; level < height_; ++level, t >>= 6) {
      uint64_t& word = words_[level][t >> 6];
      word &= ~(uint64_t{1} << (t & 63));
      if (word) return;
    }
  }

  int32_t largest() const {
    int32_t at = 0;
    for (int level = height_ - 1; level >= 0; --level) at = (at << 6) | (63 - __builtin_clzll(words_[level][at]));
    return at;
  }

 private:
  std::vector<std::vector<uint64_t>> levels_;
  std::vector<uint64_t*> words_;
  int height_ = 0;
};

}  // namespace

std::vector<int32_t> next_uses(const Accesses& accesses) {
  std::vector<int32_t> later(accesses.pages, accesses.count), next(accesses.count);
  for (int32_t t = accesses.count - 1; t >= 0; --t) {
    int32_t& seen = later[accesses.page[t]];
    next[t] = seen;
    seen = t;
  }
  return next;
}

PagingOutcome replace_optimal(const Accesses& accesses, int32_t capacity, const PagingStop& stop) {
  const std::vector<int32_t> next = next_uses(accesses);
  Instants inside(accesses.count);
  int32_t misses = 0, evictions = 0, done = 0;  // done: pages in memory that are never used again
  const auto step = [&](int32_t t) {
    const bool hit = inside.has(t);
    if (hit) {
      inside.erase(t);
    } else {
      if (misses - evictions == capacity) {
        if (done > 0) {
          --done;
        } else {
          inside.erase(inside.largest());
        }
        ++evictions;
      }
      ++misses;
    }
    if (next[t] < accesses.count) {
      inside.insert(next[t]);
    } else {
      ++done;
    }
    if (accesses.hit) accesses.hit[t] = hit;
  };
  each_access(accesses.count, stop, step);
  return {misses, evictions};
}

}  // namespace memfit
