"""How good a meta-gradient is: samples of it, and their bias, variance and signal-to-noise by estimator."""
