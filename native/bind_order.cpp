// Bindings of operator order.
#include "bind.h"

void bind_order(nb::module_&) {}
