#include "core/gather_vectors.h"

#include "core/gather_convert.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
// Without "fma": a compiler may then not contract a product and a sum, whose roundings the twin repeats.
#define MEMFIT_V3 __attribute__((target("avx2,f16c")))

namespace memfit {
namespace {

constexpr int64_t kWorthLooking = 4096;  // values from which on looking for ties costs little
constexpr int64_t kAhead = 4096;  // bytes prefetched: page borders stop the hardware's own prefetch

MEMFIT_V3 inline __m256 eight(const uint8_t* from) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}

MEMFIT_V3 inline __m256 affine(__m256 x, __m256 scale, __m256 shift) {
  return _mm256_add_ps(_mm256_mul_ps(x, scale), shift);
}

MEMFIT_V3 inline __m256i brain_bits(__m256 x) {  // in 32 bits each
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
  const __m256i none = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7FC0), none);
}

template <bool brain>
MEMFIT_V3 inline __m256i sixteen_halves(__m256 low, __m256 high) {
  if (brain) {
    const __m256i packed = _mm256_packus_epi32(brain_bits(low), brain_bits(high));
    return _mm256_permute4x64_epi64(packed, 0xD8);
  }
  return _mm256_set_m128i(_mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT), _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT));
}

template <bool stream>
MEMFIT_V3 inline void put(float* to, __m256 x) {
  if (stream) _mm256_stream_ps(to, x);
  else _mm256_storeu_ps(to, x);
}

template <bool stream>
MEMFIT_V3 inline void put(uint16_t* to, __m256i x) {
  if (stream) _mm256_stream_si256(reinterpret_cast<__m256i*>(to), x);
  else _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x);
}

// Values before the first aligned store.
template <class T>
int64_t before_aligned(const T* to, int64_t n) {
  const int64_t past = reinterpret_cast<uintptr_t>(to) % 32;
  const int64_t head = past ? (32 - past) / static_cast<int64_t>(sizeof(T)) : 0;
  return head < n ? head : n;
}

template <bool stream>
MEMFIT_V3 void u8_f32(const uint8_t* from, int64_t n, float scale, float shift, float* to) {
  int64_t i = stream ? before_aligned(to, n) : 0;
  for (int64_t j = 0; j < i; ++j) to[j] = scaled<uint8_t, float>(from[j], scale, shift);
  const __m256 a = _mm256_set1_ps(scale), b = _mm256_set1_ps(shift);
  for (; i + 64 <= n; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(from + i + kAhead), _MM_HINT_T0);
    for (int k = 0; k < 64; k += 8) put<stream>(to + i + k, affine(eight(from + i + k), a, b));
  }
  for (; i < n; ++i) to[i] = scaled<uint8_t, float>(from[i], scale, shift);
}

// Rounds to the 8 digits of bfloat16 by adding and taking away (Veltkamp's splitting): ties to even, as the bits would be,
// where nothing overflows or is subnormal, which `splits` makes sure of.
MEMFIT_V3 inline __m256i brain_split(__m256 x) {
  const __m256 far = _mm256_mul_ps(x, _mm256_set1_ps(65537.0f));
  return _mm256_castps_si256(_mm256_sub_ps(far, _mm256_sub_ps(far, x)));
}

bool splits(float scale, float shift) {
  const auto usual = [](float x) { return std::fabs(x) > 1e-15f && std::fabs(x) < 1e15f; };
  return usual(scale) && (shift == 0 || usual(shift));
}

// Whether any of the 256 products of a byte lies just between two bfloat16, where rounding has to look at the last digit.
MEMFIT_V3 bool has_ties(float scale, float shift) {
  const __m256 a = _mm256_set1_ps(scale), b = _mm256_set1_ps(shift);
  const __m256i below = _mm256_set1_epi32(0xFFFF), half = _mm256_set1_epi32(0x8000), step = _mm256_set1_epi32(8);
  __m256i byte = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), found = _mm256_setzero_si256();
  for (int i = 0; i < 256; i += 8, byte = _mm256_add_epi32(byte, step)) {
    const __m256i bits = _mm256_castps_si256(affine(_mm256_cvtepi32_ps(byte), a, b));
    found = _mm256_or_si256(found, _mm256_cmpeq_epi32(_mm256_and_si256(bits, below), half));
  }
  return !_mm256_testz_si256(found, found);
}

// Of 16 bytes that lie in both halves of a vector: `first`, first + 2 ... to 32 bits each, the lower eight bytes below.
MEMFIT_V3 inline __m256i spread(int first) {
  alignas(32) int8_t at[32];
  for (int k = 0; k < 8; ++k)
    for (int part = 0; part < 4; ++part) at[4 * k + part] = static_cast<int8_t>(part == 0 ? first + 2 * k : -1);
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(at));
}

// Without ties half a digit is added and the rest cut off: a third of the instructions less.
template <bool stream>
MEMFIT_V3 int64_t u8_brain_untied(const uint8_t* from, int64_t i, int64_t n, float scale, float shift, uint16_t* to) {
  const __m256 a = _mm256_set1_ps(scale), b = _mm256_set1_ps(shift);
  const __m256i half = _mm256_set1_epi32(0x8000);
  const __m256i evens = spread(0), odds = spread(1);
  for (; i + 64 <= n; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(from + i + kAhead), _MM_HINT_T0);
    for (int k = 0; k < 64; k += 16) {
      const __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + k)));
      const __m256 even = affine(_mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, evens)), a, b);
      const __m256 odd = affine(_mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, odds)), a, b);
      const __m256i low = _mm256_srli_epi32(_mm256_add_epi32(_mm256_castps_si256(even), half), 16);
      put<stream>(to + i + k, _mm256_blend_epi16(low, _mm256_add_epi32(_mm256_castps_si256(odd), half), 0xAA));
    }
  }
  return i;
}

template <bool stream>
MEMFIT_V3 int64_t u8_brain(const uint8_t* from, int64_t i, int64_t n, float scale, float shift, uint16_t* to) {
  const __m256 a = _mm256_set1_ps(scale), b = _mm256_set1_ps(shift);
  const __m256i low = _mm256_set1_epi32(0xFFFF);
  for (; i + 64 <= n; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(from + i + kAhead), _MM_HINT_T0);
    for (int k = 0; k < 64; k += 16) {  // values at even places and at odd ones: their halves then lie where they belong
      const __m256i both = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + k)));
      const __m256i even = brain_split(affine(_mm256_cvtepi32_ps(_mm256_and_si256(both, low)), a, b));
      const __m256i odd = brain_split(affine(_mm256_cvtepi32_ps(_mm256_srli_epi32(both, 16)), a, b));
      put<stream>(to + i + k, _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xAA));
    }
  }
  return i;
}

template <bool brain, bool stream>
MEMFIT_V3 void u8_half(const uint8_t* from, int64_t n, float scale, float shift, uint16_t* to) {
  const auto one = [&](int64_t j) {
    const float value = scaled<uint8_t, float>(from[j], scale, shift);
    to[j] = brain ? float_to_brain(value) : float_to_half(value);
  };
  int64_t i = stream ? before_aligned(to, n) : 0;
  for (int64_t j = 0; j < i; ++j) one(j);
  const __m256 a = _mm256_set1_ps(scale), b = _mm256_set1_ps(shift);
  if (brain && splits(scale, shift)) {
    const bool tied = n < kWorthLooking || has_ties(scale, shift);
    i = tied ? u8_brain<stream>(from, i, n, scale, shift, to) : u8_brain_untied<stream>(from, i, n, scale, shift, to);
  }
  for (; i + 64 <= n; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(from + i + kAhead), _MM_HINT_T0);
    for (int k = 0; k < 64; k += 16)
      put<stream>(to + i + k, sixteen_halves<brain>(affine(eight(from + i + k), a, b), affine(eight(from + i + k + 8), a, b)));
  }
  for (; i < n; ++i) one(i);
}

template <bool stream>
MEMFIT_V3 void f32_f32(const float* from, int64_t n, const float* scale, const float* shift, float* to) {
  int64_t i = stream ? before_aligned(to, n) : 0;
  for (int64_t j = 0; j < i; ++j) to[j] = scaled<float, float>(from[j], scale[j], shift[j]);
  for (; i + 8 <= n; i += 8)
    put<stream>(to + i, affine(_mm256_loadu_ps(from + i), _mm256_loadu_ps(scale + i), _mm256_loadu_ps(shift + i)));
  for (; i < n; ++i) to[i] = scaled<float, float>(from[i], scale[i], shift[i]);
}

template <bool brain, bool stream>
MEMFIT_V3 void f32_half(const float* from, int64_t n, const float* scale, const float* shift, uint16_t* to) {
  const auto one = [&](int64_t j) {
    const float value = scaled<float, float>(from[j], scale[j], shift[j]);
    to[j] = brain ? float_to_brain(value) : float_to_half(value);
  };
  int64_t i = stream ? before_aligned(to, n) : 0;
  for (int64_t j = 0; j < i; ++j) one(j);
  for (; i + 16 <= n; i += 16) {
    const __m256 low = affine(_mm256_loadu_ps(from + i), _mm256_loadu_ps(scale + i), _mm256_loadu_ps(shift + i));
    const __m256 high = affine(_mm256_loadu_ps(from + i + 8), _mm256_loadu_ps(scale + i + 8), _mm256_loadu_ps(shift + i + 8));
    put<stream>(to + i, sixteen_halves<brain>(low, high));
  }
  for (; i < n; ++i) one(i);
}

template <bool stream>
MEMFIT_V3 void u8_pattern(const uint8_t* from, int64_t n, const float* scale, const float* shift, float* to) {
  int64_t i = stream ? before_aligned(to, n) : 0;
  for (int64_t j = 0; j < i; ++j) to[j] = scaled<uint8_t, float>(from[j], scale[j], shift[j]);
  for (; i + 8 <= n; i += 8)
    put<stream>(to + i, affine(eight(from + i), _mm256_loadu_ps(scale + i), _mm256_loadu_ps(shift + i)));
  for (; i < n; ++i) to[i] = scaled<uint8_t, float>(from[i], scale[i], shift[i]);
}

MEMFIT_V3 void u16_i64(const uint16_t* from, int64_t n, int64_t* to) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int k = 0; k < 16; k += 4) {
      const __m128i four = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + i + k));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i + k), _mm256_cvtepu16_epi64(four));
    }
  }
  for (; i < n; ++i) to[i] = from[i];
}

MEMFIT_V3 void three_runs(const uint8_t* from, int64_t pixels, uint8_t* to[3]) {
  // Which byte of the 1st, 2nd, 3rd vector of 16 comes where in a channel's 16; -1: from another vector.
  alignas(16) int8_t masks[3][3][16];
  for (int c = 0; c < 3; ++c)
    for (int p = 0; p < 16; ++p)
      for (int v = 0; v < 3; ++v) {
        const int at = 3 * p + c;
        masks[c][v][p] = static_cast<int8_t>(at / 16 == v ? at % 16 : -1);
      }
  __m128i mask[3][3];
  for (int c = 0; c < 3; ++c)
    for (int v = 0; v < 3; ++v) mask[c][v] = _mm_load_si128(reinterpret_cast<const __m128i*>(masks[c][v]));
  int64_t i = 0;
  for (; i + 16 <= pixels; i += 16) {
    const auto* at = reinterpret_cast<const __m128i*>(from + 3 * i);
    _mm_prefetch(reinterpret_cast<const char*>(from + 3 * i + kAhead), _MM_HINT_T0);
    const __m128i x = _mm_loadu_si128(at), y = _mm_loadu_si128(at + 1), z = _mm_loadu_si128(at + 2);
    for (int c = 0; c < 3; ++c) {
      const __m128i both = _mm_or_si128(_mm_shuffle_epi8(x, mask[c][0]), _mm_shuffle_epi8(y, mask[c][1]));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to[c] + i), _mm_or_si128(both, _mm_shuffle_epi8(z, mask[c][2])));
    }
  }
  for (; i < pixels; ++i)
    for (int c = 0; c < 3; ++c) to[c][i] = from[3 * i + c];
}

}  // namespace

bool vectors_here() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }

bool run_u8_f32(const uint8_t* from, int64_t n, float scale, float shift, float* to, bool stream) {
  stream ? u8_f32<true>(from, n, scale, shift, to) : u8_f32<false>(from, n, scale, shift, to);
  return true;
}

bool run_u8_half(const uint8_t* from, int64_t n, float scale, float shift, uint16_t* to, bool brain, bool stream) {
  if (brain) stream ? u8_half<true, true>(from, n, scale, shift, to) : u8_half<true, false>(from, n, scale, shift, to);
  else stream ? u8_half<false, true>(from, n, scale, shift, to) : u8_half<false, false>(from, n, scale, shift, to);
  return true;
}

bool run_u16_i64(const uint16_t* from, int64_t n, int64_t* to) {
  u16_i64(from, n, to);
  return true;
}

bool pattern_f32_f32(const float* from, int64_t n, const float* scale, const float* shift, float* to, bool stream) {
  stream ? f32_f32<true>(from, n, scale, shift, to) : f32_f32<false>(from, n, scale, shift, to);
  return true;
}

bool pattern_f32_half(const float* from, int64_t n, const float* scale, const float* shift, uint16_t* to, bool brain, bool stream) {
  if (brain) stream ? f32_half<true, true>(from, n, scale, shift, to) : f32_half<true, false>(from, n, scale, shift, to);
  else stream ? f32_half<false, true>(from, n, scale, shift, to) : f32_half<false, false>(from, n, scale, shift, to);
  return true;
}

bool pattern_u8_f32(const uint8_t* from, int64_t n, const float* scale, const float* shift, float* to, bool stream) {
  stream ? u8_pattern<true>(from, n, scale, shift, to) : u8_pattern<false>(from, n, scale, shift, to);
  return true;
}

bool split_three(const uint8_t* from, int64_t pixels, uint8_t* first, uint8_t* second, uint8_t* third) {
  uint8_t* to[3] = {first, second, third};
  three_runs(from, pixels, to);
  return true;
}

void stream_fence() { _mm_sfence(); }

}  // namespace memfit
#else
namespace memfit {
bool vectors_here() { return false; }
bool run_u8_f32(const uint8_t*, int64_t, float, float, float*, bool) { return false; }
bool run_u8_half(const uint8_t*, int64_t, float, float, uint16_t*, bool, bool) { return false; }
bool run_u16_i64(const uint16_t*, int64_t, int64_t*) { return false; }
bool pattern_f32_f32(const float*, int64_t, const float*, const float*, float*, bool) { return false; }
bool pattern_f32_half(const float*, int64_t, const float*, const float*, uint16_t*, bool, bool) { return false; }
bool pattern_u8_f32(const uint8_t*, int64_t, const float*, const float*, float*, bool) { return false; }
bool split_three(const uint8_t*, int64_t, uint8_t*, uint8_t*, uint8_t*) { return false; }
void stream_fence() {}
}  // namespace memfit
#endif
