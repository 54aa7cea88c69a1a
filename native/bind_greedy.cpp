// Bindings of greedy placement.
#include "bind.h"

void bind_greedy(nb::module_&) {}
