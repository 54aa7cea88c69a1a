// The order of rows as a function of the position: nothing is stored, whatever the number of rows.
//
// A permutation of [0, n) is a Feistel network of 6 rounds over the next power of two, walked until the value lies below n
// (Black and Rogaway 2002: cycle walking); under 2 walks on average. A block order permutes chunks of rows, opens a fixed
// number of them at a time, and permutes the rows within those: what a bounded memory allows. Twin: data/order.py.
#pragma once
#include <cstdint>

namespace memfit {

constexpr int kOrderRounds = 6;

struct BlockOrder {
  int64_t rows;
  int64_t chunk;     // rows that lie together; 1 chunk of all rows, or `open` of all chunks, is a full shuffle
  int64_t open;      // chunks that are mixed with one another
  int64_t rotation;  // rows by which the chunks' borders are moved
  uint64_t chunk_keys[kOrderRounds];
  uint64_t row_keys[kOrderRounds];
};

uint64_t permuted(uint64_t value, uint64_t n, const uint64_t* keys);

// The rows at positions [start, start + count), in `out`.
void rows_at(const BlockOrder& order, int64_t start, int64_t count, int64_t* out);

}  // namespace memfit
