// y = x W' + b with W in 2, 3, 4, 6 or 8 bits per value: what runs a packed linear layer on a CPU.
//
// Layout. W [rows, columns] is cut into tiles of 8 rows x 32 columns; a tile is 8 steps of 4 columns, and a vector of 32
// bytes holds for one step byte (4 * row + column). Planes of fewer bits share vectors: a 4-bit plane of a tile is 4
// vectors (steps 2j in the low, 2j+1 in the high nibbles), a 2-bit plane 2 vectors (steps 4j .. 4j+3), a 1-bit plane one
// vector (bit s = step s). 2 = [2], 3 = [2][1], 4 = [4], 6 = [4][2], 8 = [4][4], low plane first. A tile is 32 * bits bytes.
// Per row and group of columns (a multiple of 32): a bfloat16 scale and a byte zero point, both [group][row].
//
// The activations are rounded to 8 bits per 32 columns of each token (a float32 scale each), so that 4 products are one
// multiply of bytes, and 8 steps of them stay within 16 bits: 8 * 2 * 15 * 127 < 2^15. Sums over groups are float32.
// Cost: O(tokens * rows * columns); scratch `activation_bytes`. Threads split the rows; results do not depend on them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace memfit {

struct LowbitWeight {
  const uint8_t* tiles;
  const uint16_t* scales;
  const uint8_t* zeros;
  int64_t rows;     // of the output; scales and zeros have `rows` rounded up to 8
  int64_t columns;  // of the input; tiles have `columns` rounded up to 32
  int bits;
  int group;
};

// Bytes of scratch that `lowbit_product` needs: values, scales and sums of the rounded activations.
size_t activation_bytes(int64_t tokens, int64_t columns);

// `out` [tokens, rows] = `x` [tokens, columns] times the weight, plus `bias` [rows] where it is not null.
void lowbit_product(const LowbitWeight& weight, const float* x, int64_t tokens, const float* bias, float* out,
                    uint8_t* scratch, int threads);

// Whether the AVX2 kernel is used here; `portable` forces the plain one, which sums in the same order of integers.
bool lowbit_vectorised();
void lowbit_force_portable(bool portable);

}  // namespace memfit
