"""PyTorch: trace on fake tensors, record a real run, capture a step as a Graph, apply a schedule to it."""
