// The free blocks of one queue, in order of size, then address: an ordered list cut into chunks.
//
// A chunk holds up to 64 sizes (in units of 512 bytes, so that a 32-bit number is enough for 1 TiB) and the slots of the
// blocks beside them. The chunk is found by bisection over the chunks' last sizes, the place in it by counting smaller
// sizes, which the compiler turns into vector instructions. Addresses are looked at among equal sizes only.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace memfit {

constexpr int kUnitShift = 9;

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
    int32_t chunk;
    int32_t at;
  };

  explicit FreeBlocks(const std::vector<CachedBlock>* blocks) : blocks_(blocks) { add_chunk(0); }

  // The first block of at least `units`.
  Place lower_bound(int32_t units) const {
    Place place{0, 0};
    const auto count = static_cast<int32_t>(chunks_.size());
    if (count > 1) {
      place.chunk = static_cast<int32_t>(std::lower_bound(last_.begin(), last_.end(), units) - last_.begin());
      if (place.chunk == count) return place;
    }
    place.at = smaller(*chunks_[place.chunk], units);
    if (place.at == chunks_[place.chunk]->count) {
      ++place.chunk;
      place.at = 0;
    }
    return place;
  }
  bool at_end(Place place) const { return place.chunk >= static_cast<int32_t>(chunks_.size()); }
  int32_t slot(Place place) const { return chunks_[place.chunk]->slots[place.at]; }
  int32_t units(Place place) const { return chunks_[place.chunk]->sizes[place.at]; }
  Place next(Place place) const {
    if (++place.at < chunks_[place.chunk]->count) return place;
    return {place.chunk + 1, 0};
  }
  bool empty() const { return chunks_.size() == 1 && chunks_[0]->count == 0; }
  Place last() const {
    const auto chunk = static_cast<int32_t>(chunks_.size()) - 1;
    return {chunk, chunks_[chunk]->count - 1};
  }

  void insert(int32_t slot) {
    const CachedBlock& block = (*blocks_)[slot];
    const auto units = static_cast<int32_t>(block.size >> kUnitShift);
    Place place = among_equals(lower_bound(units), units, block.address);
    if (at_end(place)) place = {place.chunk - 1, chunks_[place.chunk - 1]->count};
    Chunk* chunk = chunks_[place.chunk].get();
    if (chunk->count == kMost) {
      split(place.chunk);
      chunk = chunks_[place.chunk].get();
      if (place.at > chunk->count) {
        place.at -= chunk->count;
        chunk = chunks_[++place.chunk].get();
      }
    }
    const auto behind = static_cast<size_t>(chunk->count - place.at) * sizeof(int32_t);
    std::memmove(chunk->sizes + place.at + 1, chunk->sizes + place.at, behind);
    std::memmove(chunk->slots + place.at + 1, chunk->slots + place.at, behind);
    chunk->sizes[place.at] = units;
    chunk->slots[place.at] = slot;
    last_[place.chunk] = chunk->sizes[chunk->count++];
  }

  void erase(Place place) {
    Chunk* chunk = chunks_[place.chunk].get();
    const auto behind = static_cast<size_t>(--chunk->count - place.at) * sizeof(int32_t);
    std::memmove(chunk->sizes + place.at, chunk->sizes + place.at + 1, behind);
    std::memmove(chunk->slots + place.at, chunk->slots + place.at + 1, behind);
    if (chunk->count) {
      last_[place.chunk] = chunk->sizes[chunk->count - 1];
    } else if (chunks_.size() > 1) {
      chunks_.erase(chunks_.begin() + place.chunk);
      last_.erase(last_.begin() + place.chunk);
    }
  }

  void erase(int32_t slot) {
    const CachedBlock& block = (*blocks_)[slot];
    const auto units = static_cast<int32_t>(block.size >> kUnitShift);
    Place place = lower_bound(units);
    if (this->slot(place) != slot) place = among_equals(place, units, block.address);
    erase(place);
  }

  template <class Each>
  void each(Each&& visit) const {
    for (const auto& chunk : chunks_)
      for (int32_t i = 0; i < chunk->count; ++i) visit(chunk->slots[i]);
  }

 private:
  static constexpr int32_t kMost = 64;
  struct Chunk {
    int32_t count = 0;
    int32_t sizes[kMost];
    int32_t slots[kMost];
  };

  // From the first block of `units`, the first of them that does not lie before `address`; chunks that do are skipped.
  Place among_equals(Place place, int32_t units, int64_t address) const {
    const auto before = [&](int32_t slot) { return (*blocks_)[slot].address < address; };
    while (!at_end(place) && last_[place.chunk] == units && before(chunks_[place.chunk]->slots[chunks_[place.chunk]->count - 1])) {
      place = {place.chunk + 1, 0};
    }
    while (!at_end(place) && this->units(place) == units && before(slot(place))) place = next(place);
    return place;
  }

  static int32_t smaller(const Chunk& chunk, int32_t units) {
    int32_t found = 0;
    for (int32_t i = 0; i < chunk.count; ++i) found += chunk.sizes[i] < units;
    return found;
  }
  void add_chunk(int32_t at) {
    chunks_.insert(chunks_.begin() + at, std::make_unique<Chunk>());
    last_.insert(last_.begin() + at, INT32_MIN);
  }
  void split(int32_t number) {
    add_chunk(number + 1);
    Chunk& from = *chunks_[number];
    Chunk& to = *chunks_[number + 1];
    to.count = kMost / 2;
    from.count = kMost - to.count;
    std::copy(from.sizes + from.count, from.sizes + kMost, to.sizes);
    std::copy(from.slots + from.count, from.slots + kMost, to.slots);
    last_[number] = from.sizes[from.count - 1];
    last_[number + 1] = to.sizes[to.count - 1];
  }

  const std::vector<CachedBlock>* blocks_;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<int32_t> last_;
};

}  // namespace memfit
