package protocol

import "net"

// BlockSize is how many bytes a stream reads and writes at a time, as iperf3 does.
const BlockSize = 128 << 10

// WriteStream writes the pattern until that fails.
func WriteStream(c net.Conn, payload Pattern) error {
	for at := 0; ; {
		n, err := c.Write(payload.From(at, BlockSize))
		if err != nil {
			return err
		}
		at = (at + n) % Period
	}
}

// StreamReader checks a stream, read by read, and counts it.
type StreamReader struct {
	Conn    net.Conn
	Arrived func(n int) // told of each read
	at      int
}

// Read is one read into buf. At the end of the stream the error is io.EOF.
func (s *StreamReader) Read(buf []byte) (n int, err error) {
	n, err = s.Conn.Read(buf)
	if n > 0 {
		s.Arrived(n)
		if err := Check(buf[:n], s.at); err != nil {
			return n, err
		}
		s.at = (s.at + n) % Period
	}
	return n, err
}

// ReadAll reads until the end of the stream, which is an error too: io.EOF.
func (s *StreamReader) ReadAll() error {
	buf := make([]byte, BlockSize)
	for {
		if _, err := s.Read(buf); err != nil {
			return err
		}
	}
}

// Reset closes a connection at once, with a reset: data in flight is dropped, and the port is free
// again.
func Reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
