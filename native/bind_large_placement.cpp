// Bindings of placement of large problems.
#include "bind.h"

void bind_large_placement(nb::module_&) {}
