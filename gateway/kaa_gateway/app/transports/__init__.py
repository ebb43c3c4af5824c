"""The servers of the protocols, and the listeners that they have, one module for each protocol."""
