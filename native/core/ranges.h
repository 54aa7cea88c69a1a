// Ranges of memory, free or taken, chained by address inside their segment, the free ones also in bins by size.
//
//   chain    [taken 512] <-> [free 4096] <-> [taken 1024]        neighbours of a segment; joins cost O(1)
//   bins     8 a doubling, a bitmap of those in use; inside a bin sorted by (size, address)
//
// The smallest free range of at least n bytes (lowest address among equals) is found by one look into n's bin and the
// lowest set bit above it; a bin rarely holds more than a few. This is best fit exactly, not approximately.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace memfit {

inline int lowest_bit(uint64_t word) { return __builtin_ctzll(word); }
inline int highest_bit(uint64_t word) { return 63 - __builtin_clzll(word); }

class Ranges {
 public:
  using Index = int32_t;
  static constexpr Index kNone = -1;
  struct Range {
    int64_t address;
    int64_t bytes;
    Index before;
    Index after;
    bool free;
  };

  Ranges() : bins_(kBins) {}

  Range& operator[](Index i) { return ranges_[static_cast<size_t>(i)]; }

  // A new free range behind `before` in its chain (or alone in a new one); not joined with it, not in a bin yet.
  Index add(int64_t address, int64_t bytes, Index before) {
    const Index made = spare_.empty() ? static_cast<Index>(ranges_.size()) : spare_.back();
    if (spare_.empty()) {
      ranges_.emplace_back();
    } else {
      spare_.pop_back();
    }
    Index after = kNone;
    if (before != kNone) {
      after = ranges_[before].after;
      ranges_[before].after = made;
      if (after != kNone) ranges_[after].before = made;
    }
    ranges_[made] = Range{address, bytes, before, after, true};
    return made;
  }

  // Drop a range out of its chain; it must not be in a bin.
  void remove(Index i) {
    const Range& gone = ranges_[i];
    if (gone.before != kNone) ranges_[gone.before].after = gone.after;
    if (gone.after != kNone) ranges_[gone.after].before = gone.before;
    spare_.push_back(i);
  }

  // Mark free, join with free neighbours, put into its bin; the index that stands for the whole afterwards.
  Index release(Index i) {
    ranges_[i].free = true;
    const Index after = ranges_[i].after;
    if (after != kNone && ranges_[after].free) {
      unbin(after);
      ranges_[i].bytes += ranges_[after].bytes;
      remove(after);
    }
    const Index before = ranges_[i].before;
    if (before != kNone && ranges_[before].free) {
      unbin(before);
      ranges_[before].bytes += ranges_[i].bytes;
      remove(i);
      i = before;
    }
    bin(i);
    return i;
  }

  // Take the front `bytes` of a binned free range and leave the rest free; `split` false takes all of it.
  void take(Index i, int64_t bytes, bool split) {
    unbin(i);
    ranges_[i].free = false;
    if (split && ranges_[i].bytes > bytes) {
      const Index rest = add(ranges_[i].address + bytes, ranges_[i].bytes - bytes, i);
      ranges_[i].bytes = bytes;
      bin(rest);
    }
  }

  // Take the front `bytes` of a binned free range as a range of its own; what is left keeps its index and stays free.
  Index carve(Index i, int64_t bytes) {
    if (ranges_[i].bytes == bytes) {
      unbin(i);
      ranges_[i].free = false;
      return i;
    }
    const Index front = spare_.empty() ? static_cast<Index>(ranges_.size()) : spare_.back();
    if (spare_.empty()) {
      ranges_.emplace_back();
    } else {
      spare_.pop_back();
    }
    Range& rest = ranges_[i];
    ranges_[front] = Range{rest.address, bytes, rest.before, i, false};
    if (rest.before != kNone) ranges_[rest.before].after = front;
    rest.before = front;
    const int b = bin_of(rest.bytes);
    auto& own = bins_[static_cast<size_t>(b)];
    if (own.back().index == i && bin_of(rest.bytes - bytes) == b) {  // the largest of its bin, and it stays there
      rest.address += bytes;
      rest.bytes -= bytes;
      const Entry entry{rest.bytes, rest.address, i};
      size_t at = own.size() - 1;
      for (; at > 0 && entry < own[at - 1]; --at) own[at] = own[at - 1];
      own[at] = entry;
    } else {
      unbin(i);
      rest.address += bytes;
      rest.bytes -= bytes;
      bin(i);
    }
    return front;
  }

  // The smallest free range of at least `bytes`, the lowest among equals; kNone without one.
  Index best(int64_t bytes) const {
    const int b = bin_of(bytes);
    const auto& own = bins_[static_cast<size_t>(b)];
    if (!own.empty() && own.back().bytes >= bytes) {
      if (own.size() <= kFew) {
        for (const Entry& entry : own)
          if (entry.bytes >= bytes) return entry.index;
      }
      return std::lower_bound(own.begin(), own.end(), bytes, [](const Entry& e, int64_t n) { return e.bytes < n; })->index;
    }
    const int found = next_bin(b + 1);
    return found < 0 ? kNone : bins_[static_cast<size_t>(found)].front().index;
  }

  // The largest free range, the lowest among equals; kNone without one.
  Index largest() const {
    if (!words_) return kNone;
    const int word = highest_bit(words_);
    const auto& top = bins_[static_cast<size_t>(word * 64 + highest_bit(used_[word]))];
    size_t at = top.size() - 1;
    if (at > kFew) {
      const int64_t bytes = top.back().bytes;
      return std::lower_bound(top.begin(), top.end(), bytes, [](const Entry& e, int64_t n) { return e.bytes < n; })->index;
    }
    while (at > 0 && top[at - 1].bytes == top[at].bytes) --at;
    return top[at].index;
  }

  void bin(Index i) {
    const Range& range = ranges_[i];
    const int b = bin_of(range.bytes);
    auto& own = bins_[static_cast<size_t>(b)];
    const Entry entry{range.bytes, range.address, i};
    if (own.size() > kFew) {
      own.insert(std::lower_bound(own.begin(), own.end(), entry), entry);
      return;
    }
    own.push_back(entry);
    for (size_t at = own.size() - 1; at > 0 && entry < own[at - 1]; --at) {
      own[at] = own[at - 1];
      own[at - 1] = entry;
    }
    used_[b / 64] |= uint64_t{1} << (b % 64);
    words_ |= uint64_t{1} << (b / 64);
  }

  void unbin(Index i) {
    const Range& range = ranges_[i];
    const int b = bin_of(range.bytes);
    auto& own = bins_[static_cast<size_t>(b)];
    auto at = own.begin();
    if (own.size() > kFew) {
      at = std::lower_bound(own.begin(), own.end(), Entry{range.bytes, range.address, i});
    } else {
      while (at->index != i) ++at;
    }
    own.erase(at);
    if (own.empty()) {
      used_[b / 64] &= ~(uint64_t{1} << (b % 64));
      if (!used_[b / 64]) words_ &= ~(uint64_t{1} << (b / 64));
    }
  }

 private:
  struct Entry {
    int64_t bytes;
    int64_t address;
    Index index;
    bool operator<(const Entry& other) const {
      return bytes != other.bytes ? bytes < other.bytes : address < other.address;
    }
  };
  static constexpr int kBins = 512;
  static constexpr size_t kFew = 24;

  // 0..7 exact, then 8 bins a doubling.
  static int bin_of(int64_t bytes) {
    const auto value = static_cast<uint64_t>(bytes);
    if (value < 8) return static_cast<int>(value);
    const int high = highest_bit(value);
    return (high - 2) * 8 + static_cast<int>((value >> (high - 3)) & 7);
  }

  int next_bin(int from) const {
    if (from >= kBins) return -1;
    int word = from / 64;
    const uint64_t here = used_[word] & (~uint64_t{0} << (from % 64));
    if (here) return word * 64 + lowest_bit(here);
    const uint64_t later = word == 63 ? 0 : words_ & (~uint64_t{0} << (word + 1));
    if (!later) return -1;
    word = lowest_bit(later);
    return word * 64 + lowest_bit(used_[word]);
  }

  std::vector<Range> ranges_;
  std::vector<Index> spare_;
  std::vector<std::vector<Entry>> bins_;
  uint64_t used_[kBins / 64] = {};
  uint64_t words_ = 0;
};

}  // namespace memfit
