"""Fields on grids, in time or steady: reading the layouts of the PDE data sets, and serving windows."""
