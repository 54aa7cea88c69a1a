// Who holds which block of a key/value cache: lanes, reference counts, a chain of full blocks that can be found again by
// their tokens, and which unused block goes when there is no room.
//
// A lane is a row's own stretch of block numbers: block i of a row that shares nothing is lane * lane_blocks + i, so that a
// row is one stretch of the memory file. Numbers are plenty (the file is sparse); `capacity` limits the blocks that exist.
//
// A full block can be published under its tokens and its predecessor; `match` walks the chain and compares tokens and
// predecessors, so a hash collision can never give a wrong block. A published block that nobody holds stays, and waits in
// a queue: S3-FIFO (Yang et al. 2023), changed so that only unused blocks are queued: a block used again goes to the main
// queue, a block used once passes the small one only, so a scan cannot wash out what is shared. O(1) an operation.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace memfit {

class BlockTable {
 public:
  BlockTable(int64_t capacity, int64_t lane_blocks);
  BlockTable(BlockTable&&) = default;

  int64_t open_lane();
  void close_lane(int64_t lane);
  // Blocks first .. first + count of a lane, each held once. False, and nothing changed, when there is no room.
  bool allocate(int64_t lane, int64_t first, int64_t count, std::vector<int64_t>& evicted);
  void retain(const int64_t* blocks, int64_t count);
  void release(const int64_t* blocks, int64_t count, std::vector<int64_t>& freed);  // the last one first
  // The block that stands for these tokens after `parent` (-1: at the start): `block` itself, or one published before.
  int64_t publish(int64_t block, int64_t parent, const int32_t* tokens, int64_t count);
  void match(const int32_t* tokens, int64_t count, int64_t block_tokens, std::vector<int64_t>& found) const;
  bool resize(int64_t capacity, std::vector<int64_t>& evicted);  // false when more is held; grows as well
  void drop_unused(std::vector<int64_t>& freed);

  int64_t held() const { return held_; }
  int64_t unused() const { return unused_; }
  int64_t capacity() const { return capacity_; }
  int64_t references(int64_t block) const { return at(block).references; }

 private:
  enum Place : uint8_t { none = 0, in_small = 1, in_main = 2 };
  struct Block {  // all zero: a block that does not exist
    int64_t before, after;  // neighbours in a queue, plus one; 0: none
    int64_t parent;         // plus two; 0: not published, 1: at the start
    uint64_t key;
    int32_t references;
    uint32_t birth, parent_birth;
    uint8_t exists, place, hits, wanted;
  };
  struct Free {
    void operator()(Block* blocks) const { std::free(blocks); }
  };
  struct Lane {
    std::unique_ptr<Block, Free> blocks;  // untouched pages of it are not there
    int64_t existing = 0;
    bool open = false;
  };
  struct Queue {
    int64_t first = 0, last = 0, size = 0;  // block numbers plus one; the first goes first
  };
  Block& at(int64_t block);
  const Block& at(int64_t block) const;
  Queue& queue(uint8_t place) { return place == in_small ? small_ : main_; }
  void push(int64_t block, Place place);
  void remove(int64_t block);
  int64_t evict();
  void destroy(int64_t block);
  bool reachable(const Block& block) const;

  int64_t capacity_, lane_blocks_, held_ = 0, unused_ = 0, lowest_free_ = 0;
  uint32_t births_ = 0;
  std::vector<Lane> lanes_;
  Queue small_, main_;
  std::unordered_map<uint64_t, int64_t> known_;
  std::unordered_map<int64_t, std::vector<int32_t>> tokens_;
  std::deque<uint64_t> ghost_order_;
  std::unordered_set<uint64_t> ghosts_;
};

}  // namespace memfit
