"""The composition root: a worker, its supervisor, reloading, and the small platform of `kaa-gateway dev`."""
