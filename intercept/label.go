package intercept

// Label puts text before each run of bytes that is read, in both directions. The network decides
// where one read ends and the next begins, so this shows that traffic passes; it cannot change a
// protocol. With an empty text, pairs are relayed unchanged.
func Label(text string) Interceptor {
	if text == "" {
		return always{}
	}
	return both(label(text))
}

type label string

// Handle writes the label before what was read. The end of a stream is no read.
func (l label) Handle(c *Chunk) Verdict {
	if len(c.Data) > 0 {
		c.WriteString(string(l))
	}
	return Forward
}

// OnRead calls f with each run of bytes that is read, in both directions, and sends on what f
// returns: the same slice, edited or cut, or another one, which must not change until f is called
// again for that pair and direction.
//
// It is the simplest interceptor: f does not learn which pair the bytes belong to, and cannot hold
// any back. Loops call f concurrently, and it must not block. With a nil f, pairs are relayed
// unchanged.
func OnRead(f func([]byte) []byte) Interceptor {
	if f == nil {
		return always{}
	}
	return both(onRead(f))
}

type onRead func([]byte) []byte

// Handle replaces what was read by what the function makes of it.
func (f onRead) Handle(c *Chunk) Verdict {
	if len(c.Data) > 0 {
		c.Data = f(c.Data)
	}
	return Forward
}
