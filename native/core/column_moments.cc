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

constexpr int64_t kBlock = 512, kLanes = 16, kWide = 64, kAhead = 4096;
constexpr int kInner = 4, kFetched = 16;
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

// Of all columns of a block: sums and squares of distances from `origin`, least and greatest.
struct Sums {
  std::vector<float> origin, sum, squares, least, greatest;
  explicit Sums(int64_t columns)
      : origin(static_cast<size_t>(columns)), sum(origin.size()), squares(origin.size()), least(origin.size()), greatest(origin.size()) {}
  void clear() {
    std::fill(sum.begin(), sum.end(), 0.0f);
    std::fill(squares.begin(), squares.end(), 0.0f);
    std::fill(least.begin(), least.end(), kInfinity);
    std::fill(greatest.begin(), greatest.end(), -kInfinity);
  }
};

// A block of rows, added to the sums of the first `whole` columns, a multiple of 16. Four rows at a time, all columns of
// them, and fetched 16 rows at a time in memory's own order: fetches that jump from row to row cost a quarter of the speed.
#if defined(__x86_64__) || defined(_M_X64)
template <int rows>
__attribute__((target("avx2,fma"))) inline void rows_v3(const float* values, int64_t stride, size_t whole, Sums& all) {
  float *sum = all.sum.data(), *squares = all.squares.data(), *least = all.least.data(), *greatest = all.greatest.data();
  const float* origin = all.origin.data();
  for (size_t c = 0; c < whole; c += 8) {
    const __m256 o = _mm256_loadu_ps(origin + c);
    __m256 s = _mm256_setzero_ps(), q = s, l = _mm256_loadu_ps(least + c), g = _mm256_loadu_ps(greatest + c);
    for (int i = 0; i < rows; ++i) {
      const float* at = values + i * stride + c;
      const __m256 x = _mm256_loadu_ps(at), d = _mm256_sub_ps(x, o);
      s = _mm256_add_ps(s, d);
      q = _mm256_fmadd_ps(d, d, q);
      l = _mm256_min_ps(l, x);
      g = _mm256_max_ps(g, x);
    }
    _mm256_storeu_ps(sum + c, _mm256_add_ps(_mm256_loadu_ps(sum + c), s));
    _mm256_storeu_ps(squares + c, _mm256_add_ps(_mm256_loadu_ps(squares + c), q));
    _mm256_storeu_ps(least + c, l);
    _mm256_storeu_ps(greatest + c, g);
  }
}
__attribute__((target("avx2,fma"))) void sums_v3(const float* values, int64_t rows, int64_t stride, size_t whole, Sums& all) {
  int64_t i = 0;
  for (; i + kInner <= rows; i += kInner) {
    if (i % kFetched == 0) {
      const char* next = reinterpret_cast<const char*>(values + i * stride) + kAhead;
      for (int64_t b = 0; b < kFetched * stride * 4; b += 64) _mm_prefetch(next + b, _MM_HINT_T0);
    }
    rows_v3<kInner>(values + i * stride, stride, whole, all);
  }
  for (; i < rows; ++i) rows_v3<1>(values + i * stride, stride, whole, all);
}
bool v3_here() {
  static const bool here = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return here;
}
#else
void sums_v3(const float*, int64_t, int64_t, size_t, Sums&) {}
bool v3_here() { return false; }
#endif

void sums_plain(const float* values, int64_t rows, int64_t stride, size_t whole, Sums& all) {
  for (int64_t i = 0; i < rows; ++i, values += stride)
    for (size_t c = 0; c < whole; ++c) {
      const float x = values[c], d = x - all.origin[c];
      all.sum[c] += d;
      all.squares[c] += d * d;
      all.least[c] = std::min(all.least[c], x);
      all.greatest[c] = std::max(all.greatest[c], x);
    }
}

void add_wide(const float* values, int64_t rows, int64_t columns, ColumnMoments* into) {
  Sums all(columns);
  const int64_t first = std::min<int64_t>(rows, 8), whole = columns / kLanes * kLanes;
  for (int64_t c = 0; c < whole; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < first; ++i) sum += values[i * columns + c];
    const auto mean = static_cast<float>(sum / static_cast<double>(first));
    all.origin[static_cast<size_t>(c)] = std::isfinite(mean) ? mean : 0;
  }
  for (int64_t start = 0; start < rows; start += kBlock) {
    const int64_t n = std::min(kBlock, rows - start);
    const float* block = values + start * columns;
    all.clear();
    v3_here() ? sums_v3(block, n, columns, static_cast<size_t>(whole), all) : sums_plain(block, n, columns, static_cast<size_t>(whole), all);
    for (int64_t c = 0; c < whole; ++c) {
      const auto k = static_cast<size_t>(c);
      const double sum = all.sum[k], squares = all.squares[k], count = static_cast<double>(n), mean = sum / count;
      const double left = squares - sum * mean;
      if (!std::isfinite(sum) || !std::isfinite(squares) || left < squares * 0.125) {
        // No finite numbers, or an origin far away for this block's spread: cancellation would cost digits.
        merge(into[c], exactly(block + c, n, columns));
      } else {
        merge(into[c], {count, all.origin[k] + mean, left, all.least[k], all.greatest[k]});
      }
      const double moved = all.origin[k] + mean;
      if (std::isfinite(moved)) all.origin[k] = static_cast<float>(moved);
    }
    for (int64_t c = whole; c < columns; ++c) merge(into[c], exactly(block + c, n, columns));
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
