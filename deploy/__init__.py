"""The chip side: NIR in, integer Program, simulator, Lava, proof of equality, profile. Never imports torch."""
