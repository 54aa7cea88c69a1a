// The vector paths of gather_rows: runs of values of one channel, and pixels of three channels taken apart.
#pragma once
#include <cstdint>

namespace memfit {

// Values that share scale and shift; true: done, false: no vector path for these types here.
bool run_u8_f32(const uint8_t* from, int64_t n, float scale, float shift, float* to, bool stream);
bool run_u8_half(const uint8_t* from, int64_t n, float scale, float shift, uint16_t* to, bool brain, bool stream);
bool run_u16_i64(const uint16_t* from, int64_t n, int64_t* to);
// Values each with its own scale and shift.
bool pattern_f32_f32(const float* from, int64_t n, const float* scale, const float* shift, float* to, bool stream);
bool pattern_f32_half(const float* from, int64_t n, const float* scale, const float* shift, uint16_t* to, bool brain, bool stream);
bool pattern_u8_f32(const uint8_t* from, int64_t n, const float* scale, const float* shift, float* to, bool stream);
// [pixels][3] bytes -> three runs.
bool split_three(const uint8_t* from, int64_t pixels, uint8_t* first, uint8_t* second, uint8_t* third);
void stream_fence();
bool vectors_here();

}  // namespace memfit
