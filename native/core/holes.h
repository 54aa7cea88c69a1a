// Free ranges in address order, none touching another: what first fit and next fit search.
//
//   chunks   [ 3 holes, largest <= 64 ] [ 5 holes, largest <= 4096 ] ...     at most 64 holes each
//
// `largest` is an upper bound of a chunk, made exact whenever a search looks through the chunk in vain; so a search skips
// all chunks that cannot fit, and costs O(holes / 64 + 64) at worst, a few steps as a rule. Taking the front of a hole
// moves its start in place; giving back finds the place by two binary searches and joins the neighbours.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace memfit {

class Holes {
 public:
  struct Place {
    size_t chunk;
    int at;  // -1: no such hole
  };

  bool empty() const { return chunks_.empty(); }
  int64_t start(Place p) const { return chunks_[p.chunk]->start[p.at]; }
  int64_t end(Place p) const { return chunks_[p.chunk]->end[p.at]; }

  // The lowest hole of at least `size` bytes in the chunks from `first` on.
  Place find(int64_t size, size_t first = 0) {
    for (size_t c = first; c < chunks_.size(); ++c) {
      if (largest_[c] < size) continue;
      const Chunk& chunk = *chunks_[c];
      int64_t seen = 0;
      for (int i = 0; i < chunk.count; ++i) {
        const int64_t bytes = chunk.end[i] - chunk.start[i];
        if (bytes >= size) return {c, i};
        seen = std::max(seen, bytes);
      }
      largest_[c] = seen;
    }
    return {0, -1};
  }

  // The same among those that end after `from`; without one, the lowest of all.
  Place find_from(int64_t size, int64_t from) {
    if (chunks_.empty()) return {0, -1};
    const size_t c = chunk_of(from);
    if (largest_[c] >= size) {
      const Chunk& chunk = *chunks_[c];
      int i = position(chunk, from);
      if (i > 0 && chunk.end[i - 1] > from) --i;
      for (; i < chunk.count; ++i)
        if (chunk.end[i] - chunk.start[i] >= size) return {c, i};
    }
    const Place found = find(size, c + 1);
    return found.at >= 0 ? found : find(size);
  }

  // The highest hole; only where there is one.
  Place last() const { return {chunks_.size() - 1, chunks_.back()->count - 1}; }

  void take_front(Place p, int64_t size) {
    Chunk& chunk = *chunks_[p.chunk];
    chunk.start[p.at] += size;
    if (chunk.start[p.at] == chunk.end[p.at]) {
      erase(p);
    } else if (p.at == 0) {
      first_[p.chunk] = chunk.start[0];
    }
  }

  void set_end(Place p, int64_t end) {
    Chunk& chunk = *chunks_[p.chunk];
    chunk.end[p.at] = end;
    if (chunk.start[p.at] == end) {
      erase(p);
    } else {
      largest_[p.chunk] = std::max(largest_[p.chunk], end - chunk.start[p.at]);
    }
  }

  // Take exactly [start, end); false, and nothing taken, where it is not all inside one hole.
  bool take_range(int64_t start, int64_t end) {
    if (chunks_.empty()) return false;
    const size_t c = chunk_of(start);
    const Place place{c, position(*chunks_[c], start) - 1};
    if (place.at < 0 || this->end(place) < end) return false;
    const int64_t hole_start = this->start(place), hole_end = this->end(place);
    if (hole_start == start) {
      take_front(place, end - start);
      return true;
    }
    set_end(place, start);
    if (end < hole_end) release(end, hole_end);
    return true;
  }

  template <class Each>
  void each(Each&& visit) const {
    for (const auto& chunk : chunks_)
      for (int i = 0; i < chunk->count; ++i) visit(chunk->start[i], chunk->end[i]);
  }

  // Give [start, end) back.
  void release(int64_t start, int64_t end) {
    if (chunks_.empty()) {
      chunks_.push_back(std::make_unique<Chunk>());
      first_.push_back(start);
      largest_.push_back(0);
    }
    const size_t c = chunk_of(start);
    Chunk& chunk = *chunks_[c];
    const int at = position(chunk, start);  // the first hole that starts after `start`
    const bool joins_before = at > 0 && chunk.end[at - 1] == start;
    if (at < chunk.count) {
      if (chunk.start[at] == end) {
        if (joins_before) {
          chunk.end[at - 1] = chunk.end[at];
          grow(c, at - 1);
          erase({c, at});
        } else {
          chunk.start[at] = start;
          if (at == 0) first_[c] = start;
          grow(c, at);
        }
        return;
      }
    } else if (c + 1 < chunks_.size() && first_[c + 1] == end) {
      Chunk& next = *chunks_[c + 1];
      if (joins_before) {
        chunk.end[at - 1] = next.end[0];
        grow(c, at - 1);
        erase({c + 1, 0});
      } else {
        next.start[0] = first_[c + 1] = start;
        grow(c + 1, 0);
      }
      return;
    }
    if (joins_before) {
      chunk.end[at - 1] = end;
      grow(c, at - 1);
      return;
    }
    insert(c, at, start, end);
  }

 private:
  static constexpr int kMost = 64;
  struct Chunk {
    int count = 0;
    int64_t start[kMost];
    int64_t end[kMost];
  };

  // The chunk that an address belongs to: the last one that starts at or before it, else the first.
  size_t chunk_of(int64_t address) const {
    if (first_.size() == 1) return 0;
    const auto after = std::upper_bound(first_.begin() + 1, first_.end(), address);
    return static_cast<size_t>(after - first_.begin()) - 1;
  }

  static int position(const Chunk& chunk, int64_t address) {
    const int64_t* base = chunk.start;
    int count = chunk.count;
    while (count > 1) {  // without branches: the compiler makes it a conditional move
      const int half = count / 2;
      base += (base[half - 1] <= address) ? half : 0;
      count -= half;
    }
    return static_cast<int>(base - chunk.start) + (count == 1 && *base <= address);
  }

  void grow(size_t c, int at) { largest_[c] = std::max(largest_[c], chunks_[c]->end[at] - chunks_[c]->start[at]); }

  void insert(size_t c, int at, int64_t start, int64_t end) {
    if (chunks_[c]->count == kMost) {
      auto upper = std::make_unique<Chunk>();
      Chunk& full = *chunks_[c];
      upper->count = kMost / 2;
      std::memcpy(upper->start, full.start + kMost / 2, sizeof(int64_t) * kMost / 2);
      std::memcpy(upper->end, full.end + kMost / 2, sizeof(int64_t) * kMost / 2);
      full.count = kMost / 2;
      const auto next = static_cast<std::ptrdiff_t>(c) + 1;
      first_.insert(first_.begin() + next, upper->start[0]);
      largest_.insert(largest_.begin() + next, largest_[c]);
      chunks_.insert(chunks_.begin() + next, std::move(upper));
      if (at > kMost / 2) {
        ++c;
        at -= kMost / 2;
      }
    }
    Chunk& chunk = *chunks_[c];
    const size_t behind = sizeof(int64_t) * static_cast<size_t>(chunk.count - at);
    std::memmove(chunk.start + at + 1, chunk.start + at, behind);
    std::memmove(chunk.end + at + 1, chunk.end + at, behind);
    chunk.start[at] = start;
    chunk.end[at] = end;
    ++chunk.count;
    if (at == 0) first_[c] = start;
    grow(c, at);
  }

  void erase(Place p) {
    Chunk& chunk = *chunks_[p.chunk];
    const size_t behind = sizeof(int64_t) * static_cast<size_t>(chunk.count - p.at - 1);
    std::memmove(chunk.start + p.at, chunk.start + p.at + 1, behind);
    std::memmove(chunk.end + p.at, chunk.end + p.at + 1, behind);
    --chunk.count;
    if (p.at == 0 && chunk.count > 0) first_[p.chunk] = chunk.start[0];
    if (chunk.count == 0) {
      drop(p.chunk);
    } else if (p.chunk + 1 < chunks_.size() && chunk.count + chunks_[p.chunk + 1]->count <= kMost / 2) {
      const Chunk& next = *chunks_[p.chunk + 1];
      std::memcpy(chunk.start + chunk.count, next.start, sizeof(int64_t) * static_cast<size_t>(next.count));
      std::memcpy(chunk.end + chunk.count, next.end, sizeof(int64_t) * static_cast<size_t>(next.count));
      chunk.count += next.count;
      largest_[p.chunk] = std::max(largest_[p.chunk], largest_[p.chunk + 1]);
      drop(p.chunk + 1);
    }
  }

  void drop(size_t c) {
    const auto at = static_cast<std::ptrdiff_t>(c);
    chunks_.erase(chunks_.begin() + at);
    first_.erase(first_.begin() + at);
    largest_.erase(largest_.begin() + at);
  }

  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<int64_t> first_, largest_;
};

}  // namespace memfit
