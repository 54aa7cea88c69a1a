#include "core/shuffled_order.h"

#include <algorithm>

namespace memfit {
namespace {

uint64_t mixed(uint64_t value, uint64_t key) {
  uint64_t z = value * 0x9E3779B97F4A7C15ull + key;
  z ^= z >> 32;
  z *= 0xD6E8FEB86659FD93ull;
  return z ^ (z >> 32);
}

uint64_t split(uint64_t z) {  // SplitMix64 (Steele, Lea, Flood 2014)
  z += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

}  // namespace

uint64_t permuted(uint64_t value, uint64_t n, const uint64_t* keys) {
  if (n < 2) return 0;
  int bits = 0;
  while (bits < 64 && (n - 1) >> bits) ++bits;
  const int low_bits = bits / 2;
  const uint64_t low_mask = (1ull << low_bits) - 1, high_mask = (1ull << (bits - low_bits)) - 1;
  do {
    uint64_t high = value >> low_bits, low = value & low_mask;
    for (int round = 0; round < kOrderRounds; round += 2) {
      high ^= mixed(low, keys[round]) & high_mask;
      low ^= mixed(high, keys[round + 1]) & low_mask;
    }
    value = high << low_bits | low;
  } while (value >= n);
  return value;
}

void rows_at(const BlockOrder& order, int64_t start, int64_t count, int64_t* out) {
  const int64_t chunks = order.rows / order.chunk, pools = std::max<int64_t>(1, (chunks + order.open - 1) / order.open);
  const int64_t pool_rows = order.open * order.chunk;
  int64_t current = -1;
  uint64_t keys[kOrderRounds];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = start + i;
    const int64_t pool = pools == 1 ? 0 : std::min(position / pool_rows, pools - 1);
    const int64_t first = pool * order.open, held = std::min(order.open, chunks - first);
    const int64_t size = pool == pools - 1 ? order.rows - first * order.chunk : pool_rows;
    if (pool != current) {
      current = pool;
      for (int k = 0; k < kOrderRounds; ++k) keys[k] = split(order.row_keys[k] + static_cast<uint64_t>(pool));
    }
    const int64_t inside = static_cast<int64_t>(permuted(position - first * order.chunk, size, keys));
    int64_t row;
    if (inside < held * order.chunk) {
      const int64_t slot = inside / order.chunk;
      row = static_cast<int64_t>(permuted(first + slot, chunks, order.chunk_keys)) * order.chunk + inside % order.chunk;
    } else {
      row = chunks * order.chunk + (inside - held * order.chunk);
    }
    row += order.rotation;
    out[i] = row >= order.rows ? row - order.rows : row;
  }
}

}  // namespace memfit
