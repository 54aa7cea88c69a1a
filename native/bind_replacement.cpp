// Bindings of page replacement.
#include "bind.h"

#include "core/replacement.h"

using memfit::Accesses;

namespace {

using Pages = Array<int32_t>;
using Policy = memfit::PagingOutcome (*)(const Accesses&, int32_t, const memfit::PagingStop&);

template <Policy policy>
void define(nb::module_& m, const char* name) {
  m.def(
      name,
      [](Pages page, int32_t pages, int32_t capacity, bool flags) {
        std::vector<uint8_t> hit(flags ? page.shape(0) : 0);
        const Accesses accesses{page.data(), static_cast<int32_t>(page.shape(0)), pages, flags ? hit.data() : nullptr};
        const auto out = interruptible([&](const memfit::PagingStop& stop) { return policy(accesses, capacity, stop); });
        return nb::make_tuple(out.misses, out.evictions, own(std::move(hit)));
      },
      "Misses, evictions, and on demand a hit flag for each access. Pages are dense numbers below `pages`.");
}

template <class Curve>
void define_curve(nb::module_& m, const char* name, Curve curve) {
  m.def(
      name,
      [curve](Pages page, int32_t pages) {
        const Accesses accesses{page.data(), static_cast<int32_t>(page.shape(0)), pages, nullptr};
        return own(interruptible([&](const memfit::PagingStop& stop) { return curve(accesses, stop); }));
      },
      "Misses at each capacity from 0 to `pages`.");
}

}  // namespace

void bind_replacement(nb::module_& m) {
  define<memfit::replace_fifo>(m, "replace_fifo");
  define<memfit::replace_clock>(m, "replace_clock");
  define<memfit::replace_lru>(m, "replace_lru");
  define<memfit::replace_mru>(m, "replace_mru");
  define<memfit::replace_two_queues>(m, "replace_two_queues");
  define<memfit::replace_arc>(m, "replace_arc");
  define<memfit::replace_s3_fifo>(m, "replace_s3_fifo");
  define<memfit::replace_sieve>(m, "replace_sieve");
  define<memfit::replace_optimal>(m, "replace_optimal");
  define_curve(m, "curve_lru", &memfit::curve_lru);
  define_curve(m, "curve_optimal", &memfit::curve_optimal);
}
