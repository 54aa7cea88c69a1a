#include <algorithm>
#include <limits>
#include <new>
#include <vector>

#include "core/cache_moved.h"
#include "core/cache_simulation.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#pragma GCC diagnostic ignored "-Wpsabi"
namespace memfit::portable {
namespace {
#include "core/cache_lru.h"
#include "core/nest_walk.h"
#include "core/trace_walk.h"
}  // namespace
#include "core/cache_engines.h"
}  // namespace memfit::portable
