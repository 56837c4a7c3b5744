"""Context mixing: many contexts predict each symbol, and a mixer learns which of them to trust."""
