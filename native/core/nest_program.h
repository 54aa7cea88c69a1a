// A nest of loops over arrays, as the walker runs it: nodes in the order of the source, subscripts as sums over counters.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace memfit {

using std::size_t;

// constant + sum of coefficient[v] * counter[v]; counters start at 0 and step by 1.
struct Affine {
  int64_t constant = 0;
  std::vector<int64_t> coefficient;

  int64_t at(const std::vector<int64_t>& counter) const {
    int64_t value = constant;
    for (size_t v = 0; v < coefficient.size(); ++v) value += coefficient[v] * counter[v];
    return value;
  }
};

struct NestNode {
  bool loop = false;
  int32_t end = 0;       // one past the last node inside (a loop); its own number + 1 (an access)
  int32_t variable = 0;  // of a loop: which counter
  std::vector<Affine> trips;  // of a loop: the smallest of these, 0 where it is negative
  int32_t array = 0;     // of an access
  bool write = false;
  Affine address;        // of an access: in bytes
};

struct NestArray {
  int64_t first_line = 0, last_line = 0;
};

struct Nest {
  int32_t variables = 0;
  int32_t line_shift = 6;
  std::vector<NestNode> nodes;
  std::vector<NestArray> arrays;
};

struct NestCounts {
  std::vector<int64_t> served;      // [array][depth]: accesses that a depth served
  std::vector<int64_t> write_backs, prefetches;  // [level]
  int64_t simulated = 0, jumps = 0, jumped_periods = 0;
};

// Whether a loop's body repeats: after how many trips, and how each array's lines have moved by then; trips 0: never.
struct NestPeriod {
  int64_t trips = 0;
  std::vector<int64_t> lines;
};
NestPeriod period_of(const Nest& nest, int32_t loop, const std::vector<uint32_t>& sets);

// The trips (from 0) up to which all loops inside have as many trips as now; counters outside are given.
int64_t steady_trips(const Nest& nest, int32_t loop, int64_t trips, const std::vector<int64_t>& counter);

// Whether no two arrays share a line.
bool separate(const Nest& nest);

// Different lines that each array's accesses touch. Cost: the accesses less the loops that a subscript does not name.
std::vector<int64_t> footprint(const Nest& nest);

}  // namespace memfit
