// Bindings of exact placement.
#include "bind.h"

void bind_placement(nb::module_&) {}
