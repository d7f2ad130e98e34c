package engine_test

import (
	"os"
	"strings"
	"testing"
)

// The code in README.md is the code of the examples, which run as tests.
func TestReadmeShowsTheExamples(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to string }{
		{"\trelay, err := engine.New(engine.Options{\n\t\tListeners:", "\n\n\t// Output:\n\t// hello\n"},
		{"\tbanner := ", "\n\n\trelay, err"},
	} {
		_, code, ok := strings.Cut(string(source), c.from)
		if !ok {
			t.Fatalf("no %q in the examples", c.from)
		}
		if code, _, ok = strings.Cut(code, c.to); !ok {
			t.Fatalf("no %q in the examples", c.to)
		}
		code = strings.ReplaceAll(c.from+code, "\n\t", "\n")[1:]
		if !strings.Contains(string(readme), "```go\n"+code+"\n```\n") {
			t.Errorf("README.md does not show\n%s", code)
		}
	}
}
