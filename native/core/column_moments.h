// Count, mean, sum of squared distances, least and greatest of every column of a float32 matrix, in one pass.
//
// Blocks of 512 rows are summed in float32 as distances from the column's mean in the block before, then merged in double
// (Chan, Golub, LeVeque 1983). The distances are small where neighbouring rows are alike, so that the error stays near
// 1e-7 of a standard deviation however far the mean lies from zero. A matrix of few columns is read as one of at least 64,
// whose sums are merged at the end. Values that are no numbers are left out and not counted. Twin: data/moments.py.
//
// Cost: one read of the matrix, about the speed of the memory bus.
#pragma once
#include <cstdint>

namespace memfit {

struct ColumnMoments {
  double count, mean, squares, least, greatest;
};

// `into`: one per column, merged with what is there (count 0: nothing yet).
void add_moments(const float* values, int64_t rows, int64_t columns, ColumnMoments* into);

// How often each of the 256 byte values occurs in each channel, added to `counts` [channels][256].
// `inner`: values of a channel that lie together; 1: channels alternate.
void add_byte_counts(const uint8_t* values, int64_t rows, int64_t channels, int64_t inner, int64_t* counts);

// How often each of the 65536 leading halves of an order-preserving code occurs, added to `counts` [columns][65536]; and how
// often each trailing half does among the values whose leading half is one of `prefixes` [columns][each] (-1: none), added to
// `counts` [columns][each][65536]. Values that are no numbers are left out.
void add_float_counts(const float* values, int64_t rows, int64_t columns, int64_t* counts);
void add_tail_counts(const float* values, int64_t rows, int64_t columns, const int32_t* prefixes, int64_t each, int64_t* counts);

}  // namespace memfit
