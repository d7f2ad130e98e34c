package main

// slowCmd is tpbench slow.
type slowCmd struct{ transferFlags }

func (c *slowCmd) Run() error { return nil }
