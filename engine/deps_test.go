package engine_test

import (
	"os/exec"
	"strings"
	"testing"
)

// A program that embeds the engine compiles the engine, the standard library, and two small
// modules.
func TestEngineDependsOnLittle(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}",
		"./engine/...", "./splice/...", "./intercept/...", "./tproxy/...")
	cmd.Dir = ".."
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &complaints)
	}
	const own = "github.com/tprelay/tprelay/"
	allowed := []string{
		own + "engine", own + "splice", own + "intercept", own + "tproxy", own + "internal/sock",
		"golang.org/x/sys", "github.com/valyala/bytebufferpool",
	}
	found := map[string]bool{}
next:
	for path := range strings.FieldsSeq(string(out)) {
		for _, root := range allowed {
			if path == root || strings.HasPrefix(path, root+"/") {
				found[root] = true
				continue next
			}
		}
		t.Errorf("the engine depends on %s", path)
	}
	for _, root := range allowed {
		if !found[root] {
			t.Errorf("%s is not among the packages listed: %s", root, out)
		}
	}
}
