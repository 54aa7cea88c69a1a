"""What each operation does to memory: effects, purity, aliasing. Nowhere else."""
