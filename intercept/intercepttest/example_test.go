package intercepttest_test

import (
	"testing"

	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/intercept/intercepttest"
)

// greeting puts a line before everything and removes itself.
func greeting() intercept.Handler {
	return intercept.HandlerFunc(func(c *intercept.Chunk) intercept.Verdict {
		c.WriteString("hello\n")
		return intercept.Detach
	})
}

func TestGreetingComesFirst(t *testing.T) {
	got, last := intercepttest.Run(t, greeting, []byte("some bytes"))
	if string(got) != "hello\nsome bytes" || last != intercept.Detach {
		t.Errorf("got %q, verdict %d", got, last)
	}
}
