// Bindings of PyTorch's caching allocator.
#include "bind.h"

void bind_caching(nb::module_&) {}
