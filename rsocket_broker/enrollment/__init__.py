"""How a stranger gets a first certificate: the plain endpoint, the proof, the delivery."""
