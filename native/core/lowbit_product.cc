#include "core/lowbit_product.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define MEMFIT_AVX2 __attribute__((target("avx2,fma")))
#endif

namespace memfit {
namespace {

constexpr int kRows = 8, kColumns = 32, kSteps = 8;
constexpr int64_t kTokens = 64;                 // whose sums stay in the first cache while a row block runs
constexpr int64_t kWorthAThread = 2'000'000;    // multiply-adds: below, starting a thread costs more than it saves
std::atomic<bool> force_portable{false};

// The rounded activations, block of columns first: what one tile reads lies together for all tokens.
struct Activations {
  const int8_t* values;  // [blocks][tokens][32]
  const float* scales;   // [blocks][tokens]
  const float* sums;     // [blocks][tokens]: of the rounded values
  int64_t tokens;
};

int64_t blocks_of(int64_t columns) { return (columns + kColumns - 1) / kColumns; }

float from_bfloat16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// The values of a tile as bytes: a low part (below 16) and, for 6 and 8 bits, a high part that counts 16 fold.
void plane_of(const uint8_t* from, int bits, uint8_t* to) {
  const int per_byte = 8 / bits, mask = (1 << bits) - 1;
  for (int step = 0; step < kSteps; ++step)
    for (int i = 0; i < 32; ++i)
      to[step * 32 + i] = (from[(step / per_byte) * 32 + i] >> (bits * (step % per_byte))) & mask;
}

int planes(const uint8_t* tile, int bits, uint8_t* low, uint8_t* high) {
  if (bits == 3) {
    uint8_t top[256];
    plane_of(tile, 2, low);
    plane_of(tile + 64, 1, top);
    for (int i = 0; i < 256; ++i) low[i] |= top[i] << 2;
    return 1;
  }
  plane_of(tile, std::min(bits, 4), low);
  if (bits <= 4) return 1;
  plane_of(tile + 128, bits - 4, high);
  return 2;
}

void rows_portable(const LowbitWeight& w, const Activations& a, int64_t block_row, int64_t first, int64_t count, float* sums) {
  alignas(32) uint8_t low[256], high[256];
  const int64_t blocks = blocks_of(w.columns), padded = (w.rows + kRows - 1) / kRows * kRows;
  for (int64_t b = 0; b < blocks; ++b) {
    const int parts = planes(w.tiles + (block_row * blocks + b) * 32 * w.bits, w.bits, low, high);
    const int64_t at = b * kColumns / w.group * padded + block_row * kRows;
    for (int64_t t = 0; t < count; ++t) {
      const int8_t* values = a.values + (b * a.tokens + first + t) * kColumns;
      const float scale = a.scales[b * a.tokens + first + t], sum = a.sums[b * a.tokens + first + t];
      for (int r = 0; r < kRows; ++r) {
        int32_t dot = 0;
        for (int step = 0; step < kSteps; ++step)
          for (int c = 0; c < 4; ++c) {
            const int i = step * 32 + r * 4 + c;
            dot += (parts == 2 ? low[i] + 16 * high[i] : low[i]) * values[step * 4 + c];
          }
        sums[t * kRows + r] += from_bfloat16(w.scales[at + r]) * scale * (static_cast<float>(dot) - w.zeros[at + r] * sum);
      }
    }
  }
}

void round_portable(const float* x, int64_t columns, int64_t tokens, int8_t* values, float* scales, float* sums) {
  const int64_t blocks = blocks_of(columns);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t b = 0; b < blocks; ++b) {
      const float* from = x + t * columns + b * kColumns;
      const int64_t count = std::min<int64_t>(kColumns, columns - b * kColumns);
      int8_t* to = values + (b * tokens + t) * kColumns;
      float largest = 0;
      for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(from[i]));
      const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
      int sum = 0;
      for (int64_t i = 0; i < count; ++i) {
        to[i] = static_cast<int8_t>(std::nearbyint(from[i] * inverse));
        sum += to[i];
      }
      for (int64_t i = count; i < kColumns; ++i) to[i] = 0;
      // A value that is no number must not vanish: the scale carries it into every sum.
      bool bad = false;
      for (int64_t i = 0; i < count; ++i) bad |= !std::isfinite(from[i]);
      scales[b * tokens + t] = bad ? NAN : largest / 127.0f;
      sums[b * tokens + t] = static_cast<float>(sum);
    }
}

#ifdef MEMFIT_AVX2

template <int bits>
MEMFIT_AVX2 inline void plane_vectors(const uint8_t* from, __m256i* to) {
  constexpr int per_byte = 8 / bits;
  const __m256i mask = _mm256_set1_epi8((1 << bits) - 1);
  for (int step = 0; step < kSteps; ++step) {
    const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + step / per_byte * 32));
    to[step] = _mm256_and_si256(_mm256_srli_epi16(packed, bits * (step % per_byte)), mask);
  }
}

template <int bits>
MEMFIT_AVX2 void rows_avx2(const LowbitWeight& w, const Activations& a, int64_t block_row, int64_t first, int64_t count,
                           float* sums) {
  const int64_t blocks = blocks_of(w.columns), padded = (w.rows + kRows - 1) / kRows * kRows;
  const __m256i ones = _mm256_set1_epi16(1), sixteens = _mm256_set1_epi16(16);
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* tile = w.tiles + (block_row * blocks + b) * 32 * bits;
    __m256i low[kSteps], high[kSteps];
    if constexpr (bits == 3) {
      plane_vectors<2>(tile, low);
      plane_vectors<1>(tile + 64, high);
      for (int step = 0; step < kSteps; ++step) low[step] = _mm256_or_si256(low[step], _mm256_slli_epi16(high[step], 2));
    } else {
      plane_vectors<(bits < 4 ? bits : 4)>(tile, low);
      if constexpr (bits > 4) plane_vectors<bits - 4>(tile + 128, high);
    }
    const int64_t at = b * kColumns / w.group * padded + block_row * kRows;
    const __m256 scale = _mm256_castsi256_ps(_mm256_slli_epi32(
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w.scales + at))), 16));
    const __m256 zero = _mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(w.zeros + at))));
    const int8_t* values = a.values + (b * a.tokens + first) * kColumns;
    const float* scales = a.scales + b * a.tokens + first;
    const float* value_sums = a.sums + b * a.tokens + first;
    for (int64_t t = 0; t < count; ++t, values += kColumns) {
      __m256i dot, upper = _mm256_setzero_si256();
      for (int step = 0; step < kSteps; ++step) {
        int32_t four;
        std::memcpy(&four, values + 4 * step, 4);
        const __m256i x = _mm256_set1_epi32(four);
        const __m256i product = _mm256_maddubs_epi16(low[step], x);
        dot = step ? _mm256_add_epi16(dot, product) : product;
        if constexpr (bits > 4) upper = _mm256_add_epi16(upper, _mm256_maddubs_epi16(high[step], x));
      }
      dot = _mm256_madd_epi16(dot, ones);
      if constexpr (bits > 4) dot = _mm256_add_epi32(dot, _mm256_madd_epi16(upper, sixteens));
      const __m256 centred = _mm256_fnmadd_ps(zero, _mm256_broadcast_ss(value_sums + t), _mm256_cvtepi32_ps(dot));
      const __m256 factor = _mm256_mul_ps(scale, _mm256_broadcast_ss(scales + t));
      _mm256_storeu_ps(sums + t * kRows, _mm256_fmadd_ps(factor, centred, _mm256_loadu_ps(sums + t * kRows)));
    }
  }
}

MEMFIT_AVX2 void round_avx2(const float* x, int64_t columns, int64_t tokens, int8_t* values, float* scales, float* sums) {
  const int64_t blocks = blocks_of(columns), whole = columns / kColumns;
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t b = 0; b < whole; ++b) {
      const float* from = x + t * columns + b * kColumns;
      __m256 v[4], largest = _mm256_setzero_ps(), nothing = _mm256_setzero_ps();
      for (int i = 0; i < 4; ++i) {
        v[i] = _mm256_loadu_ps(from + 8 * i);
        largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, v[i]));
        nothing = _mm256_fmadd_ps(v[i], _mm256_setzero_ps(), nothing);  // not 0 where a value is no number
      }
      float lanes[8], zeros[8], top = 0, trouble = 0;
      _mm256_storeu_ps(lanes, largest);
      _mm256_storeu_ps(zeros, nothing);
      for (int i = 0; i < 8; ++i) {
        top = std::max(top, lanes[i]);
        trouble += zeros[i];
      }
      const __m256 inverse = _mm256_set1_ps(top > 0 ? 127.0f / top : 0.0f);
      __m256i q[4], sum = _mm256_setzero_si256();
      for (int i = 0; i < 4; ++i) {
        q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
        sum = _mm256_add_epi32(sum, q[i]);
      }
      const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + (b * tokens + t) * kColumns),
                          _mm256_permutevar8x32_epi32(bytes, order));
      int32_t counts[8];
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(counts), sum);
      int32_t total = 0;
      for (int i = 0; i < 8; ++i) total += counts[i];
      scales[b * tokens + t] = trouble == 0 ? top / 127.0f : NAN;
      sums[b * tokens + t] = static_cast<float>(total);
    }
    if (whole < blocks) {
      alignas(32) int8_t rest[kColumns];
      float scale, sum;
      round_portable(x + t * columns + whole * kColumns, columns - whole * kColumns, 1, rest, &scale, &sum);
      std::memcpy(values + (whole * tokens + t) * kColumns, rest, kColumns);
      scales[whole * tokens + t] = scale;
      sums[whole * tokens + t] = sum;
    }
  }
}

#endif

using Rows = void (*)(const LowbitWeight&, const Activations&, int64_t, int64_t, int64_t, float*);

Rows rows_for(int bits) {
#ifdef MEMFIT_AVX2
  if (lowbit_vectorised()) {
    switch (bits) {
      case 2: return rows_avx2<2>;
      case 3: return rows_avx2<3>;
      case 4: return rows_avx2<4>;
      case 6: return rows_avx2<6>;
      default: return rows_avx2<8>;
    }
  }
#endif
  (void)bits;
  return rows_portable;
}

}  // namespace

bool lowbit_vectorised() {
#ifdef MEMFIT_AVX2
  static const bool here = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return here && !force_portable.load(std::memory_order_relaxed);
#else
  return false;
#endif
}

void lowbit_force_portable(bool portable) { force_portable.store(portable); }

size_t activation_bytes(int64_t tokens, int64_t columns) {
  return static_cast<size_t>(blocks_of(columns) * tokens) * (kColumns + 2 * sizeof(float));
}

void lowbit_product(const LowbitWeight& weight, const float* x, int64_t tokens, const float* bias, float* out,
                    uint8_t* scratch, int threads) {
  const int64_t blocks = blocks_of(weight.columns), row_blocks = (weight.rows + kRows - 1) / kRows;
  auto* scales = reinterpret_cast<float*>(scratch);
  auto* value_sums = scales + blocks * tokens;
  auto* values = reinterpret_cast<int8_t*>(value_sums + blocks * tokens);
#ifdef MEMFIT_AVX2
  if (lowbit_vectorised())
    round_avx2(x, weight.columns, tokens, values, scales, value_sums);
  else
#endif
    round_portable(x, weight.columns, tokens, values, scales, value_sums);
  const Activations activations{values, scales, value_sums, tokens};
  const Rows run = rows_for(weight.bits);
  const auto part = [&](int64_t begin, int64_t end) {
    alignas(32) float sums[kTokens * kRows];
    for (int64_t first = 0; first < tokens; first += kTokens) {
      const int64_t count = std::min(kTokens, tokens - first);
      for (int64_t row = begin; row < end; ++row) {
        const int64_t width = std::min<int64_t>(kRows, weight.rows - row * kRows);
        std::memset(sums, 0, sizeof(float) * count * kRows);
        run(weight, activations, row, first, count, sums);
        for (int64_t t = 0; t < count; ++t)
          for (int64_t r = 0; r < width; ++r)
            out[(first + t) * weight.rows + row * kRows + r] = sums[t * kRows + r] + (bias ? bias[row * kRows + r] : 0.0f);
      }
    }
  };
  const int64_t work = tokens * weight.rows * weight.columns;
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>({threads, work / kWorthAThread, row_blocks}));
  std::vector<std::thread> others;
  for (int64_t p = 1; p < parts; ++p) others.emplace_back(part, row_blocks * p / parts, row_blocks * (p + 1) / parts);
  part(0, row_blocks / parts);
  for (auto& other : others) other.join();
}

}  // namespace memfit
