package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/tprelay/tprelay/tproxy"
)

// bigFile is the size of the file that is moved both ways at once. 2 GiB is
// beyond what one splice(2) or a signed 32-bit number can hold.
func bigFile() int64 {
	if os.Getenv("TPRELAY_E2E_FULL") != "" {
		return 2<<30 + 12345
	}
	return 256<<20 + 12345
}

func TestBigFileBothWaysAtOnce(t *testing.T) {
	// The file and nginx's directory are shared: a file of this size takes long to make.
	root := filepath.Join(sharedDir(t), "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(root, "source")
	size := bigFile()
	want := writeStream(t, source, 9, size)

	all := append(variants(tproxy.TPROXY), families(tproxy.Redirect)[0])
	each(t, all, func(t *testing.T, g *gateway) {
		_, err := g.H3.Nginx(within(t), httpPort, root)
		started(t, err)
		uploaded := make(chan error, 1)
		go func() {
			r, err := g.H1.Curl(within(t), g.url("/upload"), nil, "-T", source)
			if err == nil && r.Status != 201 && r.Status != 204 {
				err = fmt.Errorf("status %d", r.Status)
			}
			t.Logf("uploaded %d bytes, %.0f Mbit/s", r.Sent, float64(r.Sent)*8/1e6/r.Time.Seconds())
			uploaded <- err
		}()
		h := sha256.New()
		r, err := g.H1.Curl(within(t), g.url("/source"), h)
		if err != nil || r.Status != 200 {
			t.Errorf("download: status %d, %v", r.Status, err)
		}
		t.Logf("downloaded %d bytes, %.0f Mbit/s", r.Received, float64(r.Received)*8/1e6/r.Time.Seconds())
		if got := (digest{r.Received, [sha256.Size]byte(h.Sum(nil))}); got != want {
			t.Errorf("downloaded %v, want %v", got, want)
		}
		if err := <-uploaded; err != nil {
			t.Fatalf("upload: %v", err)
		}
		up := filepath.Join(root, "upload")
		if got := readDigest(t, up); got != want {
			t.Errorf("uploaded %v, want %v", got, want)
		}
		if err := os.Remove(up); err != nil {
			t.Error(err)
		}
		g.onOnePath()
	})
}

// writeStream makes a file.
func writeStream(t *testing.T, path string, seed byte, n int64) digest {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), stream(seed, n)); err != nil {
		t.Fatal(err)
	}
	return digest{n, [sha256.Size]byte(h.Sum(nil))}
}

func readDigest(t *testing.T, path string) digest {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := digestOf(f)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
