package netlab

// WithLines has delays made by lines also where the kernel has netem.
func WithLines(cfg Config) Config {
	cfg.alwaysLine = true
	return cfg
}
