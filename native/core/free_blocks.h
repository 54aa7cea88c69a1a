// The free blocks of one queue, in order of size, then address.
//
// Bins by size: below 2 MiB one for each multiple of 512 bytes, above 256 for each doubling. A bin holds its slots in order
// of (size, address), nearly always fewer than seven, inside itself; a bitmap with a summary says which bins hold any. The
// best fit is in the bin of the size or else first in the next bin: a few instructions, whatever is free. A bin with n
// blocks costs O(log n) comparisons and O(n) moved numbers.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace memfit {

struct CachedBlock {
  int64_t address;
  int64_t size;
  int32_t before;
  int32_t after;
  int32_t queue;
  uint8_t state;
};

class FreeBlocks {
 public:
  struct Place {
    int32_t bin;
    int32_t at;
  };
  static constexpr int32_t kEnd = INT32_MAX;

  // The bins are asked for as zeroed pages, most of which are never touched.
  explicit FreeBlocks(const std::vector<CachedBlock>* blocks)
      : blocks_(blocks), bins_(static_cast<Bin*>(std::calloc(kBins, sizeof(Bin)))), words_(kWords, 0) {
    if (!bins_) throw std::bad_alloc();
  }
  FreeBlocks(FreeBlocks&&) = default;
  ~FreeBlocks() {
    for (const int32_t number : widened_) delete[] bins_[number].numbers;
  }

  // The first block of at least `size` bytes.
  Place lower_bound(int64_t size) const {
    const int32_t number = bin_of(size);
    const Bin& bin = bins_[number];
    if (bin.count) {
      const int32_t* slots = bin.slots();
      if (number < kExact) return {number, 0};
      for (int32_t at = 0; at < bin.count; ++at)
        if ((*blocks_)[slots[at]].size >= size) return {number, at};
    }
    return {next_bin(number + 1), 0};
  }
  bool at_end(Place place) const { return place.bin == kEnd; }
  int32_t slot(Place place) const { return bins_[place.bin].slots()[place.at]; }
  Place next(Place place) const {
    if (place.at + 1 < bins_[place.bin].count) return {place.bin, place.at + 1};
    return {next_bin(place.bin + 1), 0};
  }
  // The last block; at_end where there is none.
  Place last() const {
    for (int32_t top = kTops - 1; top >= 0; --top) {
      if (!tops_[top]) continue;
      const int32_t word = top * 64 + 63 - __builtin_clzll(tops_[top]);
      const int32_t bin = word * 64 + 63 - __builtin_clzll(words_[word]);
      return {bin, bins_[bin].count - 1};
    }
    return {kEnd, 0};
  }

  void insert(int32_t slot) {
    const CachedBlock& block = (*blocks_)[slot];
    const int32_t number = bin_of(block.size);
    Bin& bin = bins_[number];
    int32_t at = 0;
    if (bin.count) {
      at = position(bin, block);
    } else {
      words_[number >> 6] |= uint64_t{1} << (number & 63);
      tops_[number >> 12] |= uint64_t{1} << (number >> 6 & 63);
    }
    if (bin.count == bin.room()) {
      if (!bin.outside) widened_.push_back(number);
      bin.widen();
    }
    int32_t* slots = bin.slots();
    for (int32_t i = bin.count; i > at; --i) slots[i] = slots[i - 1];
    slots[at] = slot;
    ++bin.count;
  }
  void erase(Place place) {
    Bin& bin = bins_[place.bin];
    int32_t* slots = bin.slots();
    --bin.count;
    for (int32_t i = place.at; i < bin.count; ++i) slots[i] = slots[i + 1];
    if (bin.count == 0) {
      uint64_t& word = words_[place.bin >> 6];
      word &= ~(uint64_t{1} << (place.bin & 63));
      if (!word) tops_[place.bin >> 12] &= ~(uint64_t{1} << (place.bin >> 6 & 63));
    }
  }
  void erase(int32_t slot) {
    const CachedBlock& block = (*blocks_)[slot];
    const int32_t number = bin_of(block.size);
    erase(Place{number, bins_[number].count == 1 ? 0 : position(bins_[number], block)});
  }

  template <class Each>
  void each(Each&& visit) const {
    for (int32_t bin = next_bin(0); bin != kEnd; bin = next_bin(bin + 1))
      for (int32_t at = 0; at < bins_[bin].count; ++at) visit(bins_[bin].slots()[at]);
  }

 private:
  static constexpr int kUnit = 9, kFirst = 12, kSteps = 8;
  static constexpr int32_t kExact = 1 << kFirst;
  static constexpr int32_t kBins = kExact + ((63 - kUnit - kFirst) << kSteps);
  static constexpr int32_t kWords = (kBins + 63) / 64;
  static constexpr int32_t kTops = (kWords + 63) / 64;

  struct Bin {
    static constexpr int32_t kInside = 6;
    int32_t count;
    int32_t outside;  // room of the allocated numbers, 0 while they lie inside
    union {
      int32_t inside[kInside];
      int32_t* numbers;
    };
    int32_t* slots() { return outside ? numbers : inside; }
    const int32_t* slots() const { return outside ? numbers : inside; }
    int32_t room() const { return outside ? outside : kInside; }
    void widen() {
      const int32_t more = 4 * room();
      auto* wide = new int32_t[more];
      std::copy(slots(), slots() + count, wide);
      if (outside) delete[] numbers;
      numbers = wide;
      outside = more;
    }
  };

  static int32_t bin_of(int64_t size) {
    const auto units = static_cast<uint64_t>(size) >> kUnit;
    if (units < kExact) return static_cast<int32_t>(units);
    const int power = 63 - __builtin_clzll(units);
    return kExact + ((power - kFirst) << kSteps) + static_cast<int32_t>(units >> (power - kSteps) & ((1 << kSteps) - 1));
  }
  // Where a block is, or goes, among those of its bin.
  int32_t position(const Bin& bin, const CachedBlock& block) const {
    const int32_t* slots = bin.slots();
    const auto before = [&](int32_t slot) {
      const CachedBlock& other = (*blocks_)[slot];
      return other.size != block.size ? other.size < block.size : other.address < block.address;
    };
    if (bin.count > 16) return static_cast<int32_t>(std::partition_point(slots, slots + bin.count, before) - slots);
    int32_t at = 0;
    while (at < bin.count && before(slots[at])) ++at;
    return at;
  }
  int32_t next_bin(int32_t from) const {
    if (from >= kBins) return kEnd;
    int32_t word = from >> 6;
    const uint64_t rest = words_[word] >> (from & 63);
    if (rest) return from + __builtin_ctzll(rest);
    if (++word >= kWords) return kEnd;
    int32_t top = word >> 6;
    uint64_t above = tops_[top] >> (word & 63) << (word & 63);
    while (!above) {
      if (++top >= kTops) return kEnd;
      above = tops_[top];
    }
    word = top * 64 + __builtin_ctzll(above);
    return word * 64 + __builtin_ctzll(words_[word]);
  }

  const std::vector<CachedBlock>* blocks_;
  struct Free {
    void operator()(Bin* bins) const { std::free(bins); }
  };
  std::unique_ptr<Bin[], Free> bins_;
  std::vector<int32_t> widened_;  // bins whose numbers lie outside
  std::vector<uint64_t> words_;
  uint64_t tops_[kTops] = {};
};

}  // namespace memfit
