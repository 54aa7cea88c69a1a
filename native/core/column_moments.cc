#include "core/column_moments.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace memfit {
namespace {

constexpr int64_t kBlock = 256, kInner = 16, kLanes = 16, kWide = 64;  // sums of sums of 16: few roundings reach a value
constexpr float kInfinity = std::numeric_limits<float>::infinity();

void merge(ColumnMoments& into, const ColumnMoments& other) {
  if (other.count == 0) return;
  if (into.count == 0) {
    into = other;
    return;
  }
  const double total = into.count + other.count, distance = other.mean - into.mean;
  into.mean += distance * (other.count / total);
  into.squares += other.squares + distance * distance * (into.count * other.count / total);
  into.count = total;
  into.least = std::min(into.least, other.least);
  into.greatest = std::max(into.greatest, other.greatest);
}

// One column of a block, value by value: for what is left of a vector, and where a value is no finite number.
ColumnMoments exactly(const float* values, int64_t rows, int64_t stride) {
  ColumnMoments made{0, 0, 0, std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  double sum = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const double x = values[i * stride];
    if (std::isnan(x)) continue;
    made.count += 1;
    sum += x;
    made.least = std::min(made.least, x);
    made.greatest = std::max(made.greatest, x);
  }
  if (made.count == 0) return made;
  made.mean = sum / made.count;
  for (int64_t i = 0; i < rows; ++i) {
    const double x = values[i * stride];
    if (!std::isnan(x)) made.squares += (x - made.mean) * (x - made.mean);
  }
  return made;
}

struct Sums {
  float sum[kLanes], squares[kLanes], least[kLanes], greatest[kLanes];
};

// Sixteen columns of a block as distances from `origin`.
#if defined(__x86_64__) || defined(_M_X64)
__attribute__((target("avx2,fma"))) void sums_v3(const float* values, int64_t rows, int64_t stride, const float* origin, Sums& made) {
  const __m256 o0 = _mm256_loadu_ps(origin), o1 = _mm256_loadu_ps(origin + 8);
  const __m256 none = _mm256_setzero_ps();
  __m256 s0 = none, s1 = none, q0 = none, q1 = none;
  __m256 l0 = _mm256_set1_ps(kInfinity), l1 = l0, g0 = _mm256_set1_ps(-kInfinity), g1 = g0;
  for (int64_t start = 0; start < rows; start += kInner) {
    const int64_t n = std::min(kInner, rows - start);
    __m256 a0 = none, a1 = none, b0 = none, b1 = none;
    for (int64_t i = 0; i < n; ++i, values += stride) {
      _mm_prefetch(reinterpret_cast<const char*>(values + kBlock * stride), _MM_HINT_T0);
      const __m256 x0 = _mm256_loadu_ps(values), x1 = _mm256_loadu_ps(values + 8);
      const __m256 d0 = _mm256_sub_ps(x0, o0), d1 = _mm256_sub_ps(x1, o1);
      a0 = _mm256_add_ps(a0, d0);
      a1 = _mm256_add_ps(a1, d1);
      b0 = _mm256_fmadd_ps(d0, d0, b0);
      b1 = _mm256_fmadd_ps(d1, d1, b1);
      l0 = _mm256_min_ps(l0, x0);
      l1 = _mm256_min_ps(l1, x1);
      g0 = _mm256_max_ps(g0, x0);
      g1 = _mm256_max_ps(g1, x1);
    }
    s0 = _mm256_add_ps(s0, a0);
    s1 = _mm256_add_ps(s1, a1);
    q0 = _mm256_add_ps(q0, b0);
    q1 = _mm256_add_ps(q1, b1);
  }
  _mm256_storeu_ps(made.sum, s0);
  _mm256_storeu_ps(made.sum + 8, s1);
  _mm256_storeu_ps(made.squares, q0);
  _mm256_storeu_ps(made.squares + 8, q1);
  _mm256_storeu_ps(made.least, l0);
  _mm256_storeu_ps(made.least + 8, l1);
  _mm256_storeu_ps(made.greatest, g0);
  _mm256_storeu_ps(made.greatest + 8, g1);
}
bool v3_here() {
  static const bool here = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return here;
}
#else
void sums_v3(const float*, int64_t, int64_t, const float*, Sums&) {}
bool v3_here() { return false; }
#endif

void sums_plain(const float* values, int64_t rows, int64_t stride, const float* origin, Sums& made) {
  for (int64_t k = 0; k < kLanes; ++k) made.sum[k] = made.squares[k] = 0, made.least[k] = kInfinity, made.greatest[k] = -kInfinity;
  for (int64_t start = 0; start < rows; start += kInner) {
    float sum[kLanes] = {}, squares[kLanes] = {};
    const int64_t n = std::min(kInner, rows - start);
    for (int64_t i = 0; i < n; ++i, values += stride)
      for (int64_t k = 0; k < kLanes; ++k) {
        const float x = values[k], d = x - origin[k];
        sum[k] += d;
        squares[k] += d * d;
        made.least[k] = std::min(made.least[k], x);
        made.greatest[k] = std::max(made.greatest[k], x);
      }
    for (int64_t k = 0; k < kLanes; ++k) made.sum[k] += sum[k], made.squares[k] += squares[k];
  }
}

void add_wide(const float* values, int64_t rows, int64_t columns, ColumnMoments* into) {
  std::vector<float> origin(static_cast<size_t>(columns));
  const int64_t first = std::min<int64_t>(rows, 8);
  for (int64_t c = 0; c < columns; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < first; ++i) sum += values[i * columns + c];
    origin[c] = static_cast<float>(sum / static_cast<double>(first));
    if (!std::isfinite(origin[c])) origin[c] = 0;
  }
  for (int64_t start = 0; start < rows; start += kBlock) {
    const int64_t n = std::min(kBlock, rows - start);
    const float* block = values + start * columns;
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      Sums made;
      v3_here() ? sums_v3(block + c, n, columns, &origin[c], made) : sums_plain(block + c, n, columns, &origin[c], made);
      for (int64_t k = 0; k < kLanes; ++k) {
        const double sum = made.sum[k], squares = made.squares[k], count = static_cast<double>(n);
        if (!std::isfinite(sum) || !std::isfinite(squares)) {
          merge(into[c + k], exactly(block + c + k, n, columns));
          continue;
        }
        const double mean = sum / count, left = squares - sum * mean;
        if (left < squares * 0.125) {  // the origin lay far away for this block's spread: cancellation would cost digits
          merge(into[c + k], exactly(block + c + k, n, columns));
        } else {
          merge(into[c + k], {count, origin[c + k] + mean, left, made.least[k], made.greatest[k]});
        }
        origin[c + k] = static_cast<float>(origin[c + k] + mean);
      }
    }
    for (; c < columns; ++c) merge(into[c], exactly(block + c, n, columns));
  }
}

// A float's bits as a number of the same order; the greatest code stands for "no number".
uint32_t code_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0xFFFFFFFF;
  return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}

}  // namespace

void add_moments(const float* values, int64_t rows, int64_t columns, ColumnMoments* into) {
  int64_t times = columns >= kWide ? 1 : (kWide + columns - 1) / columns;
  while (times > 1 && (columns * times) % kLanes) ++times;  // no column is left of a vector
  if (columns >= kWide || rows < 2 * times) {
    add_wide(values, rows, columns, into);
    return;
  }
  const int64_t folded = rows / times, width = columns * times;
  std::vector<ColumnMoments> wide(static_cast<size_t>(width), ColumnMoments{0, 0, 0, 0, 0});
  add_wide(values, folded, width, wide.data());
  for (int64_t i = 0; i < width; ++i) merge(into[i % columns], wide[static_cast<size_t>(i)]);
  const int64_t rest = rows - folded * times;
  for (int64_t c = 0; rest && c < columns; ++c) merge(into[c], exactly(values + folded * width + c, rest, columns));
}

void add_byte_counts(const uint8_t* values, int64_t rows, int64_t channels, int64_t inner, int64_t* counts) {
  // Four tables in turn: a byte that repeats does not wait for its own count.
  std::vector<uint32_t> tables(static_cast<size_t>(channels) * 4 * 256);
  const auto flush = [&] {
    for (int64_t c = 0; c < channels; ++c)
      for (int t = 0; t < 4; ++t)
        for (int v = 0; v < 256; ++v) counts[c * 256 + v] += tables[static_cast<size_t>((c * 4 + t) * 256 + v)];
    std::fill(tables.begin(), tables.end(), 0u);
  };
  int64_t since = 0;
  if (inner == 1) {
    for (int64_t i = 0; i < rows; ++i) {
      const uint8_t* row = values + i * channels;
      for (int64_t c = 0; c < channels; ++c) ++tables[static_cast<size_t>((c * 4 + (i & 3)) * 256 + row[c])];
      if (++since == 1 << 30) flush(), since = 0;
    }
  } else {
    for (int64_t run = 0; run < rows * channels; ++run) {
      uint32_t* table = &tables[static_cast<size_t>(run % channels * 4 * 256)];
      const uint8_t* from = values + run * inner;
      int64_t i = 0;
      for (; i + 4 <= inner; i += 4) {
        ++table[from[i]];
        ++table[256 + from[i + 1]];
        ++table[512 + from[i + 2]];
        ++table[768 + from[i + 3]];
      }
      for (; i < inner; ++i) ++table[from[i]];
      since += inner;
      if (since >= 1 << 30) flush(), since = 0;
    }
  }
  flush();
}

void add_float_counts(const float* values, int64_t rows, int64_t columns, int64_t* counts) {
  // Some columns at a time, so that their counts stay in a cache while a block of rows passes.
  constexpr int64_t kTogether = 4, kRows = 8192;
  for (int64_t start = 0; start < rows; start += kRows) {
    const int64_t end = std::min(rows, start + kRows);
    for (int64_t first = 0; first < columns; first += kTogether) {
      const int64_t last = std::min(columns, first + kTogether);
      for (int64_t i = start; i < end; ++i)
        for (int64_t c = first; c < last; ++c) {
          const uint32_t code = code_of(values[i * columns + c]);
          counts[c << 16 | code >> 16] += code != 0xFFFFFFFF;
        }
    }
  }
}

void add_tail_counts(const float* values, int64_t rows, int64_t columns, const int32_t* prefixes, int64_t each, int64_t* counts) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < columns; ++c) {
      const uint32_t code = code_of(values[i * columns + c]);
      if (code == 0xFFFFFFFF) continue;
      for (int64_t k = 0; k < each; ++k)
        if (prefixes[c * each + k] == static_cast<int32_t>(code >> 16)) ++counts[(c * each + k) << 16 | (code & 0xFFFF)];
    }
}

}  // namespace memfit
