// Products with weights of few bits: addresses of tensors in, nothing copied.
#include <stdexcept>

#include "bind.h"
#include "core/lowbit_product.h"

void bind_lowbit(nb::module_& m) {
  m.def("lowbit_activation_bytes", &memfit::activation_bytes, nb::arg("tokens"), nb::arg("columns"),
        "Scratch bytes of one lowbit_product.");
  m.def("lowbit_vectorised", &memfit::lowbit_vectorised, "Whether the AVX2 kernel runs here.");
  m.def("lowbit_force_portable", &memfit::lowbit_force_portable, nb::arg("portable"), "Use the plain kernel from now on.");
  m.def(
      "lowbit_product",
      [](Array<uint8_t> tiles, Array<uint16_t> scales, Array<uint8_t> zeros, int64_t rows, int64_t columns, int bits,
         int group, Array<float> x, int64_t tokens, nb::object bias, nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu> out,
         nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> scratch, int threads) {
        const int64_t padded = (rows + 7) / 8 * 8, blocks = (columns + 31) / 32;
        const bool known = bits == 2 || bits == 3 || bits == 4 || bits == 6 || bits == 8;
        if (!known || rows < 1 || columns < 1 || tokens < 0 || group < 32 || group % 32) throw std::invalid_argument("no such packed weight");
        const int64_t groups = (columns + group - 1) / group;
        if (static_cast<int64_t>(tiles.shape(0)) != padded / 8 * blocks * 32 * bits ||
            static_cast<int64_t>(scales.shape(0)) != groups * padded || static_cast<int64_t>(zeros.shape(0)) != groups * padded ||
            static_cast<int64_t>(x.shape(0)) != tokens * columns || static_cast<int64_t>(out.shape(0)) != tokens * rows ||
            scratch.shape(0) < memfit::activation_bytes(tokens, columns))
          throw std::invalid_argument("arrays of a packed product do not fit together");
        const float* added = nullptr;
        Array<float> held;
        if (!bias.is_none()) {
          held = nb::cast<Array<float>>(bias);
          if (static_cast<int64_t>(held.shape(0)) != rows) throw std::invalid_argument("a bias needs one value per row");
          added = held.data();
        }
        const memfit::LowbitWeight weight{tiles.data(), scales.data(), zeros.data(), rows, columns, bits, group};
        nb::gil_scoped_release release;
        memfit::lowbit_product(weight, x.data(), tokens, added, out.data(), scratch.data(), threads);
      },
      nb::arg("tiles"), nb::arg("scales"), nb::arg("zeros"), nb::arg("rows"), nb::arg("columns"), nb::arg("bits"),
      nb::arg("group"), nb::arg("x"), nb::arg("tokens"), nb::arg("bias").none(), nb::arg("out"), nb::arg("scratch"),
      nb::arg("threads"), "x W' + bias into `out`; layout and scratch as in core/lowbit_product.h.");
}
