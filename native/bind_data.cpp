// Data sets: arrays over mapped files in, batches in arrays of the caller's out; every size is checked here.
#include <algorithm>
#include <stdexcept>

#include "bind.h"
#include "core/column_moments.h"
#include "core/direct_reader.h"
#include "core/gather_rows.h"
#include "core/shuffled_order.h"

template <class T>
using Writable = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

static memfit::BlockOrder block_order(int64_t rows, int64_t chunk, int64_t open, int64_t rotation, const Array<uint64_t>& keys) {
  if (rows < 1 || chunk < 1 || open < 1 || rotation < 0 || rotation >= rows || keys.shape(0) != 2 * memfit::kOrderRounds)
    throw std::invalid_argument("no such order");
  memfit::BlockOrder order{rows, chunk, open, rotation, {}, {}};
  std::copy(keys.data(), keys.data() + memfit::kOrderRounds, order.chunk_keys);
  std::copy(keys.data() + memfit::kOrderRounds, keys.data() + 2 * memfit::kOrderRounds, order.row_keys);
  return order;
}

static void bind_reading(nb::module_& m) {
  m.def("ring_here", &memfit::ring_here, "Whether io_uring works here.");
  m.def(
      "read_pieces",
      [](int descriptor, Array<int64_t> offsets, Array<int64_t> lengths, Array<int64_t> targets, Writable<uint8_t> memory,
         int64_t file_bytes, int depth, bool ring, int refused) {
        const auto count = static_cast<int64_t>(offsets.shape(0)), room = static_cast<int64_t>(memory.shape(0));
        if (static_cast<int64_t>(lengths.shape(0)) != count || static_cast<int64_t>(targets.shape(0)) != count)
          throw std::invalid_argument("pieces need one offset, length and target each");
        for (int64_t i = 0; i < count; ++i)
          if (offsets.data()[i] < 0 || lengths.data()[i] < 0 || targets.data()[i] < 0 || targets.data()[i] + lengths.data()[i] > room)
            throw std::invalid_argument("a piece lies outside of the memory");
        memfit::ReadFailure failure;
        {
          nb::gil_scoped_release release;
          failure = memfit::read_pieces(descriptor, offsets.data(), lengths.data(), targets.data(), count, memory.data(), file_bytes,
                                        depth, ring ? memfit::ReadMethod::ring : memfit::ReadMethod::threads, refused);
        }
        return nb::make_tuple(failure.piece, failure.error);
      },
      nb::arg("descriptor"), nb::arg("offsets"), nb::arg("lengths"), nb::arg("targets"), nb::arg("memory"), nb::arg("file_bytes"),
      nb::arg("depth"), nb::arg("ring"), nb::arg("refused") = -1,
      "Pieces of a file into memory; (-1, 0), or the piece that failed and its errno.");
}

static void bind_statistics(nb::module_& m) {
  m.def(
      "add_moments",
      [](Array<float> values, int64_t columns, Writable<double> into) {
        if (columns < 1 || values.shape(0) % columns || static_cast<int64_t>(into.shape(0)) != 5 * columns)
          throw std::invalid_argument("moments need five numbers per column");
        nb::gil_scoped_release release;
        memfit::add_moments(values.data(), values.shape(0) / columns, columns, reinterpret_cast<memfit::ColumnMoments*>(into.data()));
      },
      nb::arg("values"), nb::arg("columns"), nb::arg("into"), "Merge a matrix into moments [columns][count, mean, squares, least, greatest].");
  m.def(
      "add_byte_counts",
      [](Array<uint8_t> values, int64_t channels, int64_t inner, Writable<int64_t> counts) {
        if (channels < 1 || inner < 1 || values.shape(0) % (channels * inner) || static_cast<int64_t>(counts.shape(0)) != 256 * channels)
          throw std::invalid_argument("byte counts need 256 numbers per channel");
        nb::gil_scoped_release release;
        memfit::add_byte_counts(values.data(), values.shape(0) / (channels * inner), channels, inner, counts.data());
      },
      nb::arg("values"), nb::arg("channels"), nb::arg("inner"), nb::arg("counts"), "Add how often each byte occurs in each channel.");
  m.def(
      "add_float_counts",
      [](Array<float> values, int64_t columns, Writable<int64_t> counts) {
        if (columns < 1 || values.shape(0) % columns || static_cast<int64_t>(counts.shape(0)) != columns << 16)
          throw std::invalid_argument("leading halves need 65536 numbers per column");
        nb::gil_scoped_release release;
        memfit::add_float_counts(values.data(), values.shape(0) / columns, columns, counts.data());
      },
      nb::arg("values"), nb::arg("columns"), nb::arg("counts"), "Add how often each leading half of the code occurs.");
  m.def(
      "add_tail_counts",
      [](Array<float> values, int64_t columns, Array<int32_t> prefixes, Writable<int64_t> counts) {
        const auto all = static_cast<int64_t>(prefixes.shape(0));
        if (columns < 1 || values.shape(0) % columns || all % columns || static_cast<int64_t>(counts.shape(0)) != all << 16)
          throw std::invalid_argument("trailing halves need 65536 numbers per prefix");
        nb::gil_scoped_release release;
        memfit::add_tail_counts(values.data(), values.shape(0) / columns, columns, prefixes.data(), all / columns, counts.data());
      },
      nb::arg("values"), nb::arg("columns"), nb::arg("prefixes"), nb::arg("counts"), "Add how often each trailing half occurs.");
}

void bind_data(nb::module_& m) {
  bind_reading(m);
  bind_statistics(m);
  m.def("gather_vectorised", &memfit::gather_vectorised, "Whether vector instructions are used here.");
  m.def("gather_force_portable", &memfit::gather_force_portable, nb::arg("portable"), "Use the plain loops from now on.");
  m.def(
      "rows_at",
      [](int64_t rows, int64_t chunk, int64_t open, int64_t rotation, Array<uint64_t> keys, int64_t start, Writable<int64_t> out) {
        const auto count = static_cast<int64_t>(out.shape(0));
        const auto order = block_order(rows, chunk, open, rotation, keys);
        if (start < 0 || start + count > rows) throw std::invalid_argument("positions outside of the rows");
        nb::gil_scoped_release release;
        memfit::rows_at(order, start, count, out.data());
      },
      nb::arg("rows"), nb::arg("chunk"), nb::arg("open"), nb::arg("rotation"), nb::arg("keys"), nb::arg("start"), nb::arg("out"),
      "The rows at positions from `start` on.");
  m.def(
      "gather_rows",
      [](Array<uint8_t> base, Array<int64_t> offsets, int source, int target, int layout, int64_t channels, int64_t inner,
         nb::object scale, nb::object shift, Writable<uint8_t> out, bool stream) {
        if (source < 0 || source > 11 || target < 0 || target > 11 || layout < 0 || layout > 3 || channels < 1 || inner < 1)
          throw std::invalid_argument("no such gather");
        memfit::GatherPlan plan{static_cast<memfit::Element>(source), static_cast<memfit::Element>(target),
                                static_cast<memfit::Layout>(layout), channels, inner, nullptr, nullptr, stream};
        const auto count = static_cast<int64_t>(offsets.shape(0)), length = static_cast<int64_t>(base.shape(0));
        const int64_t row = channels * inner * memfit::element_bytes(plan.source);
        const int64_t made = channels * inner * memfit::element_bytes(plan.target);
        Array<double> scales, shifts;
        if (!scale.is_none()) {
          scales = nb::cast<Array<double>>(scale);
          shifts = nb::cast<Array<double>>(shift);
          if (static_cast<int64_t>(scales.shape(0)) != channels || static_cast<int64_t>(shifts.shape(0)) != channels)
            throw std::invalid_argument("scale and shift need one number per channel");
          plan.scale = scales.data();
          plan.shift = shifts.data();
        }
        if (static_cast<int64_t>(out.shape(0)) < count * made) throw std::invalid_argument("the batch is too small for its rows");
        const int64_t unit = memfit::element_bytes(plan.source);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t at = offsets.data()[i];
          if (at < 0 || at > length - row || (reinterpret_cast<uintptr_t>(base.data()) + at) % unit)
            throw std::out_of_range("a row lies outside of the data");
        }
        nb::gil_scoped_release release;
        memfit::gather_rows(plan, base.data(), offsets.data(), count, out.data());
      },
      nb::arg("base"), nb::arg("offsets"), nb::arg("source"), nb::arg("target"), nb::arg("layout"), nb::arg("channels"), nb::arg("inner"),
      nb::arg("scale").none(), nb::arg("shift").none(), nb::arg("out"), nb::arg("stream"),
      "Rows into a batch in one pass; element numbers and layouts as in core/gather_rows.h.");
}
