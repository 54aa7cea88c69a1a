// Rows from mapped pages into a batch, in one pass: gather, scale and shift, reorder channels, change the type.
//
//   out[i][c][p] = type(row(offsets[i])[p][c] * scale[c] + shift[c])        p: a pixel, c: a channel or feature
//
// The product and the sum are rounded each (no fused multiply-add), so that the twin in data/gather.py gets the same bits.
// Float and half targets compute in float32. Stores go past the caches where `stream` says that the batch is larger than
// they are: the lines written are then not read first, which is a third of the traffic. Cost: one read of the rows, one
// write of the batch; on one thread it runs at the speed of the memory bus.
#pragma once
#include <cstdint>

namespace memfit {

enum class Element : int { u8, i8, u16, i16, u32, i32, u64, i64, f16, f32, f64, bf16 };
int element_bytes(Element element);

enum class Layout : int { keep_last, keep_first, last_to_first, first_to_last };

struct GatherPlan {
  Element source, target;
  Layout layout;
  int64_t channels, inner;  // of a row: channels * inner elements
  const double* scale;      // one per channel, or null: values are only converted
  const double* shift;
  bool stream;
};

// `offsets`: bytes from `base` of each row. Rows and batch must hold what the plan says; nothing is checked here.
void gather_rows(const GatherPlan& plan, const uint8_t* base, const int64_t* offsets, int64_t count, uint8_t* out);

// Whether vector instructions are used here; `portable` forces the plain loops.
bool gather_vectorised();
void gather_force_portable(bool portable);

}  // namespace memfit
