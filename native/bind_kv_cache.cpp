// Bindings of the key/value cache: the memory file, the ranges over it, the table of blocks.
#include "bind.h"

#include <string>

#include "core/block_table.h"
#include "core/virtual_range.h"

using memfit::BlockTable;
using memfit::SharedFile;
using memfit::VirtualRange;

namespace {

using Longs = Array<int64_t>;
using Tokens = Array<int32_t>;


// Where appended keys (or values) of one layer go. Holds the range alive.
class Appender {
 public:
  Appender(nb::object range, int64_t rows, int64_t heads, int64_t head_bytes, int64_t row_bytes)
      : held_(std::move(range)), range_(nb::cast<VirtualRange*>(held_)), rows_(rows), heads_(heads),
        head_bytes_(head_bytes), row_bytes_(row_bytes) {
    if (rows <= 0 || heads <= 0 || head_bytes <= 0 || row_bytes <= 0 || range_->size() / row_bytes < rows)
      throw nb::value_error("rows of the range");
  }

  void append(uintptr_t from, int64_t row, int64_t head, int64_t token, int64_t position, int64_t tokens) {
    const int64_t room = row_bytes_ / (heads_ * head_bytes_);
    if (position < 0 || tokens < 0 || tokens > room || position > room - tokens) throw nb::index_error("outside of the row");
    const memfit::TokenSource source{reinterpret_cast<const char*>(from), row, head, token, head_bytes_};
    if (rows_ * heads_ * tokens * head_bytes_ < (1 << 16)) {
      memfit::append_tokens(range_->data(), row_bytes_, position, source, rows_, heads_, tokens);
      return;
    }
    nb::gil_scoped_release release;
    memfit::append_tokens(range_->data(), row_bytes_, position, source, rows_, heads_, tokens);
  }

  // The strides of a tensor [row, head, token, number], in numbers of ``item`` bytes; false: its numbers do not lie side by side.
  bool append_tensor(uintptr_t from, nb::tuple strides, int64_t item, int64_t position, int64_t tokens) {
    if (nb::len(strides) != 4) throw nb::value_error("strides of four dimensions");
    if (nb::cast<int64_t>(strides[3]) != 1) return false;
    append(from, nb::cast<int64_t>(strides[0]) * item, nb::cast<int64_t>(strides[1]) * item,
           nb::cast<int64_t>(strides[2]) * item, position, tokens);
    return true;
  }

 private:
  nb::object held_;
  VirtualRange* range_;
  int64_t rows_, heads_, head_bytes_, row_bytes_;
};

template <class Run>
nb::ndarray<nb::numpy, int64_t, nb::ndim<1>> listed(Run run) {
  std::vector<int64_t> out;
  run(out);
  return own(std::move(out));
}

}  // namespace

void bind_kv_cache(nb::module_& m) {
  // A tensor over a range may outlive the interpreter: torch drops no Python reference once that is shutting down. The
  // system takes the pages back; a user is not to read about it.
  nb::set_leak_warnings(false);
  nb::class_<SharedFile>(m, "SharedFile", "A sparse file in memory; only written pages exist.")
      .def(nb::init<int64_t>())
      .def("write", [](SharedFile& self, int64_t offset, VirtualRange& from, int64_t at, int64_t bytes) {
        if (at < 0 || bytes < 0 || bytes > from.size() - at) throw nb::index_error("outside of the range");
        nb::gil_scoped_release release;
        self.write(offset, from.data() + at, bytes);
      })
      .def("punch", &SharedFile::punch, nb::call_guard<nb::gil_scoped_release>())
      .def("close", &SharedFile::close)
      .def_prop_ro("resident", &SharedFile::resident, "Bytes of the pages that exist, as the kernel counts them.")
      .def_prop_ro("foreign", &SharedFile::foreign, "Whether this process is a forked child of the file's maker.");
  nb::class_<VirtualRange>(m, "VirtualRange", "Reserved addresses that show parts of a memory file.")
      .def(nb::init<int64_t>())
      .def("show", &VirtualRange::show)
      .def("populate", &VirtualRange::populate)
      .def("retire", &VirtualRange::retire)
      .def("bytes",
           [](nb::handle self) {
             auto* range = nb::cast<VirtualRange*>(self);
             return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(
                 range->data(), {static_cast<size_t>(range->size())}, nb::borrow(self));
           },
           "All of it as an array, which keeps the range alive.")
      .def_prop_ro("size", &VirtualRange::size);
  nb::class_<Appender>(m, "TokenAppender", "Copies the tokens of one layer behind those that are there.")
      .def(nb::init<nb::object, int64_t, int64_t, int64_t, int64_t>())
      .def("append", &Appender::append)
      .def("append_tensor", &Appender::append_tensor);
  nb::class_<BlockTable>(m, "BlockTable", "Who holds which block; see memfit.runtime.block_table for the twin.")
      .def(nb::init<int64_t, int64_t>())
      .def("open_lane", &BlockTable::open_lane)
      .def("close_lane", &BlockTable::close_lane)
      .def("allocate",
           [](BlockTable& self, int64_t lane, int64_t first, int64_t count) -> nb::object {
             std::vector<int64_t> evicted;
             if (!self.allocate(lane, first, count, evicted)) return nb::none();
             return nb::cast(own(std::move(evicted)));
           })
      .def("retain", [](BlockTable& self, Longs blocks) { self.retain(blocks.data(), static_cast<int64_t>(blocks.shape(0))); })
      .def("release",
           [](BlockTable& self, Longs blocks) {
             return listed([&](auto& out) { self.release(blocks.data(), static_cast<int64_t>(blocks.shape(0)), out); });
           })
      .def("publish",
           [](BlockTable& self, int64_t block, int64_t parent, Tokens tokens) {
             return self.publish(block, parent, tokens.data(), static_cast<int64_t>(tokens.shape(0)));
           })
      .def("match",
           [](BlockTable& self, Tokens tokens, int64_t block_tokens) {
             return listed([&](auto& out) {
               self.match(tokens.data(), static_cast<int64_t>(tokens.shape(0)), block_tokens, out);
             });
           })
      .def("resize",
           [](BlockTable& self, int64_t capacity) -> nb::object {
             std::vector<int64_t> evicted;
             if (!self.resize(capacity, evicted)) return nb::none();
             return nb::cast(own(std::move(evicted)));
           })
      .def("drop_unused", [](BlockTable& self) { return listed([&](auto& out) { self.drop_unused(out); }); })
      .def("references", &BlockTable::references)
      .def_prop_ro("held", &BlockTable::held)
      .def_prop_ro("unused", &BlockTable::unused)
      .def_prop_ro("capacity", &BlockTable::capacity);
}
