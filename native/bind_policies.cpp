// Bindings of the other allocator policies.
#include "bind.h"

void bind_policies(nb::module_&) {}
