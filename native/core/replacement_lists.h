// Doubly linked lists of pages in two flat arrays: each page is in at most one list, and each list has a sentinel.
#pragma once
#include <cstdint>
#include <vector>

namespace memfit {

class PageLists {
 public:
  static constexpr uint8_t nowhere = 255;

  PageLists(int32_t pages, int lists) : pages_(pages), node_(pages + lists), size_(lists, 0), home_(pages, nowhere) {
    for (int32_t i = pages; i < pages + lists; ++i) node_[i] = {i, i};
  }

  uint8_t home(int32_t page) const { return home_[page]; }
  int32_t size(int list) const { return size_[list]; }
  int32_t last(int list) const { return node_[pages_ + list].previous; }  // the sentinel when empty

  void push(int list, int32_t page) {
    const int32_t sentinel = pages_ + list;
    const int32_t first = node_[sentinel].next;
    node_[page] = {sentinel, first};
    node_[first].previous = page;
    node_[sentinel].next = page;
    home_[page] = static_cast<uint8_t>(list);
    ++size_[list];
  }

  void remove(int32_t page) {
    const auto [previous, next] = node_[page];
    node_[previous].next = next;
    node_[next].previous = previous;
    --size_[home_[page]];
    home_[page] = nowhere;
  }

  int32_t pop(int list) {
    const int32_t page = last(list);
    remove(page);
    return page;
  }

  void move(int32_t page, int list) {
    remove(page);
    push(list, page);
  }

  // The neighbour towards the front; the sentinel at the front.
  int32_t ahead(int32_t page) const { return node_[page].previous; }
  bool is_sentinel(int32_t node) const { return node >= pages_; }

 private:
  struct Node {
    int32_t previous = 0, next = 0;
  };
  int32_t pages_;
  std::vector<Node> node_;
  std::vector<int32_t> size_;
  std::vector<uint8_t> home_;
};

}  // namespace memfit
