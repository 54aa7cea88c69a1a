#include "block_table.h"

#include <algorithm>
#include <new>
#include <stdexcept>

namespace memfit {

static uint64_t mix(uint64_t value) {  // the finisher of splitmix64
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

static uint64_t key_of(uint64_t parent, const int32_t* tokens, int64_t count) {
  uint64_t key = mix(parent + 0x9e3779b97f4a7c15ULL);
  for (int64_t i = 0; i < count; ++i) key = mix(key ^ (static_cast<uint64_t>(static_cast<uint32_t>(tokens[i])) + 0x9e3779b97f4a7c15ULL));
  return key;
}

BlockTable::BlockTable(int64_t capacity, int64_t lane_blocks) : capacity_(capacity), lane_blocks_(lane_blocks) {
  if (capacity < 0 || lane_blocks <= 0) throw std::invalid_argument("capacity and lane size must be positive");
}

BlockTable::Block& BlockTable::at(int64_t block) {
  if (block < 0 || block / lane_blocks_ >= static_cast<int64_t>(lanes_.size())) throw std::out_of_range("no such block");
  return lanes_[block / lane_blocks_].blocks.get()[block % lane_blocks_];
}

const BlockTable::Block& BlockTable::at(int64_t block) const { return const_cast<BlockTable*>(this)->at(block); }

int64_t BlockTable::open_lane() {
  const auto count = static_cast<int64_t>(lanes_.size());
  for (; lowest_free_ < count; ++lowest_free_)
    if (!lanes_[lowest_free_].open && lanes_[lowest_free_].existing == 0) break;
  if (lowest_free_ == count) {
    Lane lane;
    lane.blocks.reset(static_cast<Block*>(std::calloc(static_cast<size_t>(lane_blocks_), sizeof(Block))));
    if (!lane.blocks) throw std::bad_alloc();
    lanes_.push_back(std::move(lane));
  }
  lanes_[lowest_free_].open = true;
  return lowest_free_++;
}

void BlockTable::close_lane(int64_t lane) {
  if (lane < 0 || lane >= static_cast<int64_t>(lanes_.size()) || !lanes_[lane].open) throw std::invalid_argument("no such open lane");
  lanes_[lane].open = false;
  if (lanes_[lane].existing == 0) lowest_free_ = std::min(lowest_free_, lane);
}

void BlockTable::push(int64_t number, Place place) {
  Block& block = at(number);
  Queue& line = queue(place);
  block.place = place;
  block.before = line.last;
  block.after = 0;
  if (line.last != 0) at(line.last - 1).after = number + 1;
  else line.first = number + 1;
  line.last = number + 1;
  ++line.size;
}

void BlockTable::remove(int64_t number) {
  Block& block = at(number);
  Queue& line = queue(block.place);
  if (block.before != 0) at(block.before - 1).after = block.after;
  else line.first = block.after;
  if (block.after != 0) at(block.after - 1).before = block.before;
  else line.last = block.before;
  --line.size;
  block.place = none;
  block.before = block.after = 0;
}

void BlockTable::destroy(int64_t number) {
  Block& block = at(number);
  if (block.parent != 0) {
    auto entry = known_.find(block.key);
    if (entry != known_.end() && entry->second == number) known_.erase(entry);
    tokens_.erase(number);
  }
  const int64_t lane = number / lane_blocks_;
  block = Block{};
  if (--lanes_[lane].existing == 0 && !lanes_[lane].open) lowest_free_ = std::min(lowest_free_, lane);
}

int64_t BlockTable::evict() {
  for (;;) {
    const bool from_small = small_.size > 0 && (main_.size == 0 || small_.size * 10 >= unused_);
    const int64_t number = (from_small ? small_.first : main_.first) - 1;
    Block& block = at(number);
    remove(number);
    if (!from_small && block.hits > 0) {
      --block.hits;
      push(number, in_main);
      continue;
    }
    if (from_small && ghosts_.insert(block.key).second) {
      ghost_order_.push_back(block.key);
      while (static_cast<int64_t>(ghost_order_.size()) > capacity_) {
        ghosts_.erase(ghost_order_.front());
        ghost_order_.pop_front();
      }
    }
    --unused_;
    destroy(number);
    return number;
  }
}

bool BlockTable::allocate(int64_t lane, int64_t first, int64_t count, std::vector<int64_t>& evicted) {
  if (lane < 0 || lane >= static_cast<int64_t>(lanes_.size()) || !lanes_[lane].open || first < 0 || count < 0 ||
      count > lane_blocks_ - first)
    throw std::out_of_range("outside of the lane");
  if (held_ + count > capacity_) return false;
  Block* blocks = lanes_[lane].blocks.get() + first;
  for (int64_t i = 0; i < count; ++i)
    if (blocks[i].exists) throw std::invalid_argument("the block exists");
  lanes_[lane].existing += count;
  while (held_ + unused_ + count > capacity_) evicted.push_back(evict());
  for (int64_t i = 0; i < count; ++i) {
    blocks[i].exists = 1;
    blocks[i].references = 1;
    blocks[i].birth = ++births_;
  }
  held_ += count;
  return true;
}

void BlockTable::retain(const int64_t* blocks, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (!at(blocks[i]).exists) throw std::invalid_argument("the block does not exist");
  for (int64_t i = 0; i < count; ++i) {
    Block& block = at(blocks[i]);
    if (block.references++ == 0) {
      remove(blocks[i]);
      --unused_;
      ++held_;
      block.wanted = 1;
    }
    if (block.hits < 3) ++block.hits;
  }
}

bool BlockTable::reachable(const Block& block) const {
  if (block.parent < 2) return true;
  const Block& parent = at(block.parent - 2);
  return parent.exists && parent.birth == block.parent_birth && parent.parent != 0;
}

void BlockTable::release(const int64_t* blocks, int64_t count, std::vector<int64_t>& freed) {
  for (int64_t i = 0; i < count; ++i)
    if (at(blocks[i]).references <= 0) throw std::invalid_argument("nobody holds the block");
  for (int64_t i = count - 1; i >= 0; --i) {
    Block& block = at(blocks[i]);
    if (block.references <= 0) throw std::invalid_argument("nobody holds the block");
    if (--block.references > 0) continue;
    --held_;
    if (block.parent != 0 && reachable(block)) {
      ++unused_;
      push(blocks[i], block.wanted ? in_main : in_small);
    } else {
      destroy(blocks[i]);
      freed.push_back(blocks[i]);
    }
  }
}

int64_t BlockTable::publish(int64_t number, int64_t parent, const int32_t* tokens, int64_t count) {
  Block& block = at(number);
  if (block.references <= 0 || block.parent != 0) throw std::invalid_argument("only a held block that is not published");
  if (parent >= 0 && at(parent).parent == 0) throw std::invalid_argument("the block before it is not published");
  const uint64_t key = key_of(parent < 0 ? 0 : at(parent).key, tokens, count);
  const auto entry = known_.find(key);
  if (entry != known_.end()) {
    const Block& other = at(entry->second);
    const auto& same = tokens_.at(entry->second);
    if (other.parent == parent + 2 && reachable(other) &&
        std::equal(same.begin(), same.end(), tokens, tokens + count))
      return entry->second;
  }
  block.parent = parent + 2;
  block.parent_birth = parent < 0 ? 0 : at(parent).birth;
  block.key = key;
  block.wanted = ghosts_.erase(key) > 0;
  known_[key] = number;
  tokens_[number].assign(tokens, tokens + count);
  return number;
}

void BlockTable::match(const int32_t* tokens, int64_t count, int64_t block_tokens, std::vector<int64_t>& found) const {
  if (block_tokens <= 0) throw std::invalid_argument("a block holds tokens");
  int64_t parent = -1;
  uint64_t key = 0;
  for (; count >= block_tokens; count -= block_tokens, tokens += block_tokens) {
    key = key_of(key, tokens, block_tokens);
    const auto entry = known_.find(key);
    if (entry == known_.end()) return;
    const Block& block = at(entry->second);
    const auto& same = tokens_.at(entry->second);
    if (block.parent != parent + 2 || !reachable(block) || !std::equal(same.begin(), same.end(), tokens, tokens + block_tokens))
      return;
    parent = entry->second;
    found.push_back(parent);
  }
}

bool BlockTable::resize(int64_t capacity, std::vector<int64_t>& evicted) {
  if (held_ > capacity) return false;
  capacity_ = capacity;
  while (held_ + unused_ > capacity_) evicted.push_back(evict());
  return true;
}

void BlockTable::drop_unused(std::vector<int64_t>& freed) {
  while (unused_ > 0) {
    const int64_t number = (small_.size > 0 ? small_.first : main_.first) - 1;
    remove(number);
    --unused_;
    destroy(number);
    freed.push_back(number);
  }
}

}  // namespace memfit
