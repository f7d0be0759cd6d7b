"""Eyes on the machine: what the engine has counted, where its devices' time went, and who is told of it."""
