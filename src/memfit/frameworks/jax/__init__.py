"""JAX: jaxpr -> Program and back, and what XLA makes of it. Only this folder imports jax."""
